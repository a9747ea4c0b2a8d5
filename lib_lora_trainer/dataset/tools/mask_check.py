"""Masks that would spoil the training: black, white, of another shape, or with holes inside the subject."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib_lora_trainer.base.errors import DataError, Problem
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.masks import same_shape
from lib_lora_trainer.dataset.pixels import open_grey
from lib_lora_trainer.dataset.tools.members import Dataset, Member
from lib_lora_trainer.dataset.tools.operations import Proposal, remove
from lib_lora_trainer.dataset.tools.options import MaskOptions
from lib_lora_trainer.dataset.tools.pictures import still_shape

Verdict = Literal["good", "black", "white", "no white", "holes", "shape", "unreadable", "missing"]
BAD: tuple[Verdict, ...] = ("black", "white", "no white", "holes", "shape", "unreadable")
ANALYSIS = 256  # pixels of the longer side that holes are looked for at
WHITE = 230  # of 255: from here on a pixel counts as learned
MEANING: dict[str, tuple[str, str]] = {
    "black": ("is black everywhere, so that nothing of its picture is learned.", "Make it anew, or remove it."),
    "white": ("is white everywhere, as if there were none.", "Remove it, or make it anew."),
    "no white": ("is nowhere white, so that all of its picture is learned weakly.", "Make it anew, or brighten it."),
    "holes": ("has holes inside its subject.", "Look at it: fill them, unless the background shows there."),
}


@dataclass(frozen=True)
class Judged:
    """What a mask is like. learned: the share of its area that is white; holes: of the subject that is enclosed dark."""

    verdict: Verdict
    learned: float = 0.0
    holes: float = 0.0


def plan(dataset: Dataset, options: MaskOptions) -> Iterator[Proposal]:
    """Yield for each picture what its mask is like, and with `reject` the removal of a bad one."""
    for member in dataset.members:
        yield _proposal(member, options)


def judge(grey: Image.Image, holes_allowed: float) -> Judged:
    """Return what a mask, 8-bit grey, is like; holes_allowed: share of the subject, 0 to 1.

    The subject is everything but the dark that can be reached from the mask's border; holes are what is dark within it,
    also grey. A gap between an arm and the body is one as well, so holes are worth a look, no more.
    """
    darkest, brightest = grey.getextrema()
    if brightest == 0:
        return Judged("black")
    if darkest >= WHITE:
        return Judged("white", 1.0)
    if brightest < WHITE:
        return Judged("no white")
    scale = min(1.0, ANALYSIS / max(grey.size))
    small = (max(1, round(grey.width * scale)), max(1, round(grey.height * scale)))
    white = np.asarray(grey.resize(small, Image.Resampling.BOX)) >= WHITE
    subject = ~_outside(~white)
    holes = float((subject & ~white).sum() / max(1, subject.sum()))
    return Judged("holes" if holes > holes_allowed else "good", float(white.mean()), holes)


def _outside(dark: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the dark pixels (h, w) that are connected with the border through dark ones, by their sides."""
    padded = np.pad(dark, 1, constant_values=True)
    reached = np.zeros_like(padded)
    reached[0], reached[-1], reached[:, 0], reached[:, -1] = True, True, True, True
    while True:
        grown = reached.copy()
        grown[1:] |= reached[:-1]
        grown[:-1] |= reached[1:]
        grown[:, 1:] |= reached[:, :-1]
        grown[:, :-1] |= reached[:, 1:]
        grown &= padded
        if (grown == reached).all():
            return reached[1:-1, 1:-1]
        reached = grown


def _proposal(member: Member, options: MaskOptions) -> Proposal:
    if member.mask is None:
        return Proposal(member.path, before={"verdict": "missing"})
    judged, problem = _judged(member, member.mask, options)
    before = {
        "verdict": judged.verdict,
        "mask": printable(member.mask),
        "learned": round(judged.learned, 4),
        "holes": round(judged.holes, 4),
    }
    bad = options.reject and judged.verdict in BAD and member.mask not in member.shared
    operations = (remove(member.mask),) if bad else ()
    return Proposal(member.path, operations, before, {"verdict": "missing"} if bad else {}, problem)


def _judged(member: Member, mask: Path, options: MaskOptions) -> tuple[Judged, tuple[Problem, ...]]:
    where = printable(mask)
    try:
        grey = open_grey(mask)
    except DataError as error:
        text = str(error).removeprefix(f"{where}: ")
        return Judged("unreadable"), (Problem("error", where, f"cannot be read: {text}", "Make it anew."),)
    shape = still_shape(member.path)
    if not isinstance(shape, Problem) and not same_shape(grey.size, shape.size):
        text = f"is {grey.width}×{grey.height} pixels, which does not fit its picture's {shape.width}×{shape.height}."
        return Judged("shape"), (Problem("error", where, text, "Make it anew, or remove it."),)
    judged = judge(grey, options.holes / 100)
    if judged.verdict == "good":
        return judged, ()
    text, fix = MEANING[judged.verdict]
    if judged.verdict == "holes":
        text = f"{text[:-1]}, {judged.holes:.1%} of it."
    return judged, (Problem("warning", where, text, fix),)
