"""What is entered for a trial of epochs and weights, as the options that the command line has, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lib_lora_trainer.base.errors import Problem, ProblemsFound
from lib_lora_trainer.evaluate.pick_options import PickOptions
from lib_lora_trainer.ui import captions_options, captions_tagging

TAGGER = "wd-swinv2-tagger-v3"
"""Chosen where nothing else is, as by the command `pick`."""
MOST = 6
"""Files that are chosen at first; a run may have saved many more."""
FIELDS = tuple(
    replace(field, path=field.path.replace("captions.", "evaluate.", 1))
    for field in captions_options.fields_of("pick", PickOptions, without=("sampler",))
)
WEIGHTS = next(field for field in FIELDS if field.path.endswith(".weights"))
IMAGES = next(field for field in FIELDS if field.path.endswith(".images"))
MORE = tuple(field for field in FIELDS if field not in (WEIGHTS, IMAGES))


def chosen(weights: str | None, images: object, sampler: str | None, more: Sequence[object]) -> PickOptions:
    """Return the options as they were entered; more: in the order of `MORE`.

    Raises ProblemsFound for weights that are no numbers, ConfigError naming another field.
    """
    options: PickOptions = captions_options.chosen(
        (IMAGES, *MORE), PickOptions, (images, *more), weights=numbers(weights), sampler=sampler or ""
    )
    return options


def numbers(text: str | None) -> tuple[float, ...]:
    """Return the weights that a text names. Raises ProblemsFound for one that is no list of numbers."""
    try:
        return tuple(float(part) for part in (text or "").replace(";", ",").split(",") if part.strip())
    except ValueError as error:
        problem = Problem("error", "weights", f"{text!r} is no list of numbers.", "Write it as 0.4, 0.8, 1.")
        raise ProblemsFound((problem,)) from error


def spread(names: Sequence[str]) -> list[str]:
    """Return at most `MOST` names, evenly spread, the last one among them."""
    if len(names) <= MOST:
        return list(names)
    return [names[round((number + 1) * len(names) / MOST) - 1] for number in range(MOST)]


def taggers(name: str | None, own: str | None) -> tuple[str, ...]:
    """Return the tagger that is chosen: a folder of one's own in place of a name."""
    return captions_tagging.wanted((), own) or captions_tagging.wanted([name] if name else (), "")
