"""The caption of one exposure: prefix, fixed tags, shuffled tags."""

from __future__ import annotations

import random

from lib_lora_trainer.captions.tags import join, split
from lib_lora_trainer.config.data import CaptionConfig

_OWN_SEPARATOR = (",", ".", ":", ";", "!", "?")


def vary(caption: str, config: CaptionConfig, seed: int) -> str:
    """Return a caption as one exposure uses it; equal arguments give equal captions on every machine.

    shuffle on: the first `keep_tokens` tags stay, the others are shuffled; tags are joined by ", ".
    shuffle off: the caption is untouched, byte for byte, apart from the prefix: sentences stay sentences.
    The prefix always comes first and does not count among `keep_tokens`; a comma follows it unless it brings its own
    punctuation (sd-scripts puts a bare space, which glues the prefix to the first tag).
    """
    if config.shuffle:
        tags = split(caption)
        free = list(tags[config.keep_tokens :])
        random.Random(seed).shuffle(free)
        caption = join([*tags[: config.keep_tokens], *free])
    prefix = config.prefix.strip()
    if not prefix or not caption:
        return prefix or caption
    return f"{prefix} {caption}" if prefix.endswith(_OWN_SEPARATOR) else f"{prefix}, {caption}"
