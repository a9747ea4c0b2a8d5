"""The caption of one exposure: dropped, chosen from wildcards, shuffled, thinned out, between prefix and suffix."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lib_lora_trainer.base.seeds import derive
from lib_lora_trainer.captions import emphasis, wildcards
from lib_lora_trainer.captions.tags import join, split
from lib_lora_trainer.config.data import CaptionConfig, SourceConfig

_OWN_SEPARATOR = (",", ".", ":", ";", "!", "?")
_ROUNDING = 1e-9  # so that 0.29 / 0.5 · 50 is 29 tags, not 28


@dataclass(frozen=True)
class Moment:
    """Where in the run an exposure is.

    progress: share of the run seen before it, in [0, 1]; step: optimizer steps finished before it, 0 in the first one;
    steps: of the whole run; epoch: counted from 1.
    """

    progress: float
    step: int
    steps: int
    epoch: int


def vary(caption: str, config: CaptionConfig, seed: int, moment: Moment) -> str:
    """Return a caption as one exposure uses it; equal arguments give equal captions on every machine.

    In order: dropout; wildcards; the kept tags apart from the free ones; token warm-up, shuffling and tag dropout of
    the free ones; prefix and suffix; the secondary separator. Every option draws from `seed` on its own: switching one
    on or off changes no draw of another, and the tags that stay keep their order among each other.

    A dropped caption is empty, without prefix and suffix as well, as in sd-scripts (library/train_util.py
    `process_caption` at 48d368f). With neither shuffling nor tag dropout nor token warm-up a caption stays as it is,
    byte for byte, apart from separators, prefix and suffix: sentences stay sentences; else tags are joined by ", ".

    Different from sd-scripts on purpose (tests/test_captions.py, `DIFFERENCES`): prefix and suffix never move, do not
    count among `keep_tokens` and bring a comma where they have no punctuation of their own, instead of a bare space;
    the keep separator never reaches the text encoder; empty tags are left out; every line counts without wildcards.
    """
    if _is_dropped(config, seed, moment):
        return ""
    if config.wildcards:
        caption = wildcards.resolve(wildcards.one_line(caption, derive(seed, "line")), derive(seed, "wildcards"))
    prefix = _outer(config.prefix, config, derive(seed, "prefix"))
    suffix = _outer(config.suffix, config, derive(seed, "suffix"))
    if config.shuffle or config.tag_dropout > 0 or config.warmup > 0:
        caption = _varied_tags(caption, config, seed, moment)
    elif config.separator and config.separator in caption:
        caption = _without_separators(caption, config)
    text = _joined(_joined(prefix, caption), suffix)
    return text.replace(config.secondary_separator, ",") if config.secondary_separator else text


def effective(config: CaptionConfig, source: SourceConfig) -> CaptionConfig:
    """Return the caption settings of one source: its own where it has them, else the general ones."""
    own: dict[str, Any] = {
        "shuffle": source.shuffle,
        "keep_tokens": source.keep_tokens,
        "prefix": source.prefix,
        "suffix": source.suffix,
        "dropout": source.caption_dropout,
        "tag_dropout": source.tag_dropout,
    }
    return replace(config, **{name: value for name, value in own.items() if value is not None})


def is_fixed(config: CaptionConfig) -> bool:
    """Tell whether a caption is the same in every exposure, so that its encoding can be kept."""
    return not reasons_varying(config)


def reasons_varying(config: CaptionConfig) -> tuple[str, ...]:
    """Return the names of the caption settings that are on and may change a caption from one exposure to the next."""
    varying = ("shuffle", "dropout", "dropout_every_epochs", "tag_dropout", "warmup", "wildcards")
    return tuple(name for name in varying if getattr(config, name))


def _is_dropped(config: CaptionConfig, seed: int, moment: Moment) -> bool:
    """Tell whether an exposure has no caption: by its share, or because its epoch is an n-th one."""
    by_epoch = config.dropout_every_epochs > 0 and moment.epoch % config.dropout_every_epochs == 0
    return by_epoch or random.Random(derive(seed, "dropout")).random() < config.dropout


def _varied_tags(caption: str, config: CaptionConfig, seed: int, moment: Moment) -> str:
    first, free, last = _parts(caption, config)
    order = list(range(len(free)))
    if config.shuffle:
        random.Random(seed).shuffle(order)
    # Drawn for every tag by its place in the file, so that neither shuffling nor the warm-up changes what is dropped.
    draws = random.Random(derive(seed, "tag dropout"))
    dropped = [draws.random() < config.tag_dropout for _ in free]
    allowed = _allowed(len(free), config, moment)
    return join([*first, *(free[index] for index in order if index < allowed and not dropped[index]), *last])


def _allowed(count: int, config: CaptionConfig, moment: Moment) -> int:
    """Return how many of `count` free tags the token warm-up lets through: rising linearly from `warmup_tags` to all."""
    if config.warmup <= 0:
        return count
    finished = moment.progress / config.warmup if config.warmup < 1 else moment.step / config.warmup
    if finished >= 1:
        return count
    return config.warmup_tags + math.floor(finished * (count - config.warmup_tags) + _ROUNDING)


def _parts(caption: str, config: CaptionConfig) -> tuple[list[str], list[str], list[str]]:
    """Return the tags that stay first, the free ones and those that stay last."""
    if config.separator and config.separator in caption:
        first, free, *last = caption.split(config.separator)
        return _tags(first, config), _tags(free, config), [tag for part in last for tag in _tags(part, config)]
    tags = _tags(caption, config)
    return tags[: config.keep_tokens], tags[config.keep_tokens :], []


def _tags(text: str, config: CaptionConfig) -> list[str]:
    """Return tags; with emphasis a comma between brackets separates none, so that a weight keeps its words."""
    return list(emphasis.split_tags(text) if config.emphasis else split(text))


def _without_separators(caption: str, config: CaptionConfig) -> str:
    return _folded([part.strip() for part in caption.split(config.separator)])


def _outer(text: str, config: CaptionConfig, seed: int) -> str:
    """Return prefix or suffix without marks; it stays in place as a whole, so separators in it mean nothing."""
    if config.wildcards:
        text = wildcards.resolve(text, seed)
    return _without_separators(text, config) if config.separator and config.separator in text else text.strip()


def _folded(parts: Sequence[str]) -> str:
    text = ""
    for part in parts:
        text = _joined(text, part)
    return text


def _joined(left: str, right: str) -> str:
    """Return two texts with a comma between them, unless one brings punctuation of its own or is empty."""
    if not left or not right:
        return left or right
    if right.startswith(_OWN_SEPARATOR):
        return left + right
    return f"{left} {right}" if left.endswith(_OWN_SEPARATOR) else f"{left}, {right}"
