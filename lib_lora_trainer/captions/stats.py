"""How often each tag occurs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from lib_lora_trainer.captions.tags import split


def tag_frequency(items_by_concept: Mapping[str, Sequence[str]]) -> dict[str, dict[str, int]]:
    """Return how many times each tag, in lower case, occurs in the captions of each concept.

    items_by_concept: concept name to the captions of its pictures, each once, whatever its repeats.
    The shape is that of the metadata key `ss_tag_frequency`; most frequent tags first, then by alphabet.
    """
    return {
        concept: dict(sorted(_count(captions).items(), key=lambda entry: (-entry[1], entry[0])))
        for concept, captions in items_by_concept.items()
    }


def _count(captions: Sequence[str]) -> Counter[str]:
    return Counter(tag.lower() for caption in captions for line in caption.splitlines() for tag in split(line))
