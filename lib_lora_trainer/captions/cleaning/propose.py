"""All rules of clean-up in their order: each proposes on what the ones before it, where they are on, leave."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from lib_lora_trainer.captions.cleaning import boards, garments, words
from lib_lora_trainer.captions.cleaning.values import (
    Captions,
    CleanFacts,
    CleanOptions,
    CleanProposal,
    Look,
    applied,
)

Propose = Callable[[Look], Iterator[CleanProposal]]

RULES: Mapping[str, str] = {
    "dumps": "Board dumps",
    "quality": "Quality from scores",
    "meta": "Meta tags",
    "characters": "Wrong characters",
    "typos": "Typing errors",
    "synonyms": "Synonyms",
    "redundancy": "Redundancy",
    "consolidation": "Consolidation",
    "overlap": "Overlapping words",
}
"""The rules with their titles; a rule's name is its switch in `CleanOptions`."""

ORDER: tuple[tuple[str, Propose], ...] = (
    ("dumps", boards.unescaped),
    ("dumps", boards.parted),
    ("quality", boards.quality),  # once a dump is tags, but before its score goes
    ("dumps", boards.entries),
    ("meta", boards.meta),
    ("characters", boards.characters),
    ("typos", words.typos),
    ("synonyms", words.synonyms),
    ("redundancy", garments.redundancy),
    ("consolidation", garments.consolidation),
    ("overlap", words.overlap),
)


def proposals(
    captions: Captions, options: CleanOptions | None = None, facts: CleanFacts | None = None
) -> tuple[CleanProposal, ...]:
    """Return what the rules that are on propose, in order; `values.applied` does what is on among it.

    Where a proposal is switched off, later ones that build on it do nothing.
    """
    options, facts = options or CleanOptions(), facts or CleanFacts()
    found: list[CleanProposal] = []
    now = dict(captions)
    for name, propose in ORDER:
        if getattr(options, name):
            own = tuple(propose(Look(now, options, facts)))
            now = applied(now, own)
            found += own
    return tuple(found)
