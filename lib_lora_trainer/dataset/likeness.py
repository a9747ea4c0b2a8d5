"""Whether two pictures are the same, the same with a part changed, or two different ones.

Laid on each other, two files of one picture differ by noise that recompression and resizing leave along edges. Where a
part was changed, they differ by much more than that in one place, however small it is. The largest difference, measured
in what the edges there allow, is therefore compared with how noisy the pair is elsewhere
(`test_changes_stand_out_from_noise`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from lib_lora_trainer.dataset.alignment import Alignment, of_window, refine, warp
from lib_lora_trainer.dataset.candidates import Candidate
from lib_lora_trainer.dataset.formats import opened
from lib_lora_trainer.dataset.looks import WINDOWS, Look
from lib_lora_trainer.dataset.pixels import upright_rgb

Kind = Literal["same", "variant"]
Pixels = NDArray[np.float32]

PIXELS = 384 * 384  # of the pictures that are compared in colour; smaller ones are compared at their own size
RELATED = 0.6  # of what there is to see is in both, or they are different pictures
FLOOR, NOISE = 2.0, 4.0  # a change: more than FLOOR + NOISE · the pair's noise, in units of what its edges allow
CERTAIN = 4.0  # times that limit on the small grey pictures needs no closer look
BORDER = 3  # pixels at the border in which resampling shows
_BLUR = 1.2  # pixels


@dataclass(frozen=True)
class Likeness:
    """How alike two pictures are.

    similarity: correlation of what both show, 0 to 1; changed: share of it that differs by more than noise, 0 to 1.
    mirrored: one was compared with the other in a mirror.
    """

    kind: Kind
    similarity: float
    changed: float
    mirrored: bool


class Judge:
    """Compares pairs of pictures; the pictures used last are kept in memory. Any number of threads may ask."""

    def __init__(self, kept: int = 128) -> None:
        self._small: Callable[[Path], Image.Image] = functools.lru_cache(maxsize=kept)(_small)

    def compare(self, one: Look, two: Look, ways: Sequence[Candidate]) -> Likeness | None:
        """Return how alike two pictures are, None when they are different ones. Raises `formats.DECODER_ERRORS`.

        ways: how the second may lie on the first; the one that fits best counts. A figure that is nearly symmetric fits
        in the mirror too, only worse.
        """
        found = [likeness for way in ways if (likeness := self._compare(one, two, way)) is not None]
        return max(found, key=lambda each: (each.kind == "same", each.similarity), default=None)

    def _compare(self, one: Look, two: Look, way: Candidate) -> Likeness | None:
        first = one.grey.astype(np.float32)
        second = two.grey.astype(np.float32)
        if way.mirrored:
            second = np.ascontiguousarray(second[:, ::-1])
        alignment = refine(first, second, _start(way))
        warped, inside = warp(first, alignment)
        rough = _measure(warped[None], second[None], inside)
        if rough.shared < RELATED:
            return None
        if rough.largest > CERTAIN * rough.limit:
            return Likeness("variant", rough.similarity, rough.changed, way.mirrored)
        fine = _measure(*self._laid_on(one, two, way.mirrored, alignment), None)
        if fine.shared < RELATED:
            return None
        kind: Kind = "variant" if fine.largest > fine.limit else "same"
        return Likeness(kind, fine.similarity, fine.changed, way.mirrored)

    def _laid_on(self, one: Look, two: Look, mirrored: bool, alignment: Alignment) -> tuple[Pixels, Pixels]:
        """Return what both pictures show, in the same size: two of (3, H, W)."""
        some, other = self._small(one.path), self._small(two.path)
        if mirrored:
            other = other.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        boxes = [
            (left * image.width, top * image.height, right * image.width, bottom * image.height)
            for image, (left, top, right, bottom) in zip((some, other), alignment.boxes, strict=True)
        ]
        # No larger than what the smaller one holds: what one of them lacks is no difference.
        size = (
            max(1, round(min(box[2] - box[0] for box in boxes))),
            max(1, round(min(box[3] - box[1] for box in boxes))),
        )
        images = [
            image.resize(size, Image.Resampling.LANCZOS, box=box).filter(ImageFilter.GaussianBlur(_BLUR))
            for image, box in zip((some, other), boxes, strict=True)
        ]
        # Channels first: numpy works along the last axis.
        first, second = (np.stack([np.asarray(band, np.float32) for band in image.split()]) for image in images)
        return first, second


def _start(candidate: Candidate) -> Alignment:
    left, top, right, bottom = WINDOWS[candidate.window]
    if candidate.mirrored and not candidate.within:
        left, right = 1 - right, 1 - left
    return of_window((left, top, right, bottom), candidate.within)


def _small(path: Path) -> Image.Image:
    """Return a picture of at most 384×384 pixels, in its own shape."""
    with opened(path) as image:
        ratio = math.sqrt(min(1.0, PIXELS / (image.width * image.height)))
        size = (max(1, round(image.width * ratio)), max(1, round(image.height * ratio)))
        image.draft(image.mode, (2 * size[0], 2 * size[1]))
        upright = upright_rgb(image)
    if (upright.width > upright.height) != (size[0] > size[1]):
        size = (size[1], size[0])
    return upright.resize(size, Image.Resampling.LANCZOS)


@dataclass(frozen=True)
class _Measured:
    """shared: of what there is to see, how much is in both; largest: the largest difference; limit: what noise may do."""

    shared: float
    largest: float
    limit: float
    similarity: float
    changed: float


def _measure(some: Pixels, other: Pixels, inside: NDArray[np.bool_] | None) -> _Measured:
    """Compare two pictures that lie on each other: (channels, H, W). inside: where both are, None for everywhere."""
    height, width = some.shape[1:]
    steep = _steepness(some, other)
    each = np.abs(some - other).max(axis=0) / (4 + 0.5 * steep)
    around = _around(each)  # a change covers some pixels, noise single ones
    if min(height, width) > 4 * BORDER:
        whole = (slice(BORDER, -BORDER), slice(BORDER, -BORDER))
        steep, each, around, some, other = (
            steep[whole],
            each[whole],
            around[whole],
            some[:, whole[0], whole[1]],
            other[:, whole[0], whole[1]],
        )
        inside = None if inside is None else inside[whole]
    if inside is not None:
        steep, each, around, some, other = (
            steep[inside],
            each[inside],
            around[inside],
            some[:, inside],
            other[:, inside],
        )
    if not steep.size:
        return _Measured(0.0, 0.0, 0.0, 0.0, 0.0)
    strong = float(np.quantile(steep, 0.7))
    filled = steep > max(8.0, strong / 4)
    if not filled.any():
        return _Measured(0.0, 0.0, 0.0, 0.0, 0.0)
    limit = FLOOR + NOISE * float(np.median(each[steep >= strong]))
    return _Measured(
        shared=float((around[filled] < max(1.0, limit / 2)).mean()),
        largest=float(around.max()),
        limit=limit,
        similarity=_correlation(some, other),
        changed=float((around > limit).mean()),
    )


def _steepness(some: Pixels, other: Pixels) -> Pixels:
    """Return how steep the steeper picture is around each pixel, grey levels per pixel: (H, W)."""
    if min(some.shape[1:]) < 2:
        return np.zeros(some.shape[1:], np.float32)
    squares = []
    for picture in (some, other):
        down, across = np.gradient(picture, axis=(1, 2))
        squares.append((down * down + across * across).max(axis=0))
    steepest: Pixels = np.sqrt(np.maximum(*squares))
    for axis in (0, 1):
        steepest = functools.reduce(np.maximum, _shifted(steepest, axis, 2))
    return steepest


def _around(values: Pixels) -> Pixels:
    """Return the mean of each 3×3 pixels: (H, W)."""
    for axis in (0, 1):
        values = functools.reduce(np.add, _shifted(values, axis, 1)) / np.float32(3)
    return values


def _shifted(values: Pixels, axis: int, reach: int) -> list[Pixels]:
    """Return an array shifted by -reach to reach along an axis, its border repeated."""
    padding = [(reach, reach) if each == axis else (0, 0) for each in range(values.ndim)]
    padded, length = np.pad(values, padding, mode="edge"), values.shape[axis]
    starts = range(2 * reach + 1)
    return [padded[start : start + length] if axis == 0 else padded[:, start : start + length] for start in starts]


def _correlation(some: Pixels, other: Pixels) -> float:
    one, two = ((values - values.mean(dtype=np.float64)).astype(np.float32).ravel() for values in (some, other))
    scale = math.sqrt(float(one @ one) * float(two @ two))
    return min(1.0, max(0.0, float(one @ two) / scale)) if scale else 0.0
