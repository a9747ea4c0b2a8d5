"""What is entered for an analysis of blocks, as the options that the command line has, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lib_lora_trainer.evaluate.blocks_options import BlockOptions
from lib_lora_trainer.ui import captions_options

FIELDS = tuple(
    replace(field, path=field.path.replace("captions.", "evaluate.", 1))
    for field in captions_options.fields_of("blocks", BlockOptions, without=("sampler",))
)
FIRST = tuple(field for field in FIELDS if field.about.essential)
MORE = tuple(field for field in FIELDS if not field.about.essential)


def chosen(sampler: str | None, first: Sequence[Any], more: Sequence[Any]) -> BlockOptions:
    """Return the options as they were entered, in the order of `FIRST` and `MORE`. Raises ConfigError naming a field."""
    options: BlockOptions = captions_options.chosen(
        (*FIRST, *MORE), BlockOptions, (*first, *more), sampler=sampler or ""
    )
    return options


def images(options: BlockOptions, blocks: int, triggers: int) -> int:
    """Return about how many images an analysis makes, before the dataset has been looked at: no more than these."""
    given = [text for text in options.prompts if text.strip()]
    with_trigger = len(given) or max(1, triggers) * options.count
    without = len(given) or options.count - 1
    sets = {1: 2, 2: 4}.get(blocks, 2 * blocks + 2)  # of few blocks, one alone is the others off
    return sets * (with_trigger + without) * options.seeds
