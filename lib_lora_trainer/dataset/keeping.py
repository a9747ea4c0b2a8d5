"""Which of several files of one picture is the best one, and why: finer detail, fewer compression artefacts, more pixels.

The blockiness follows Wang, Bovik and Evans (2000): how much more neighbours differ across the borders of 8×8 blocks
than inside them. Here each position of the grid is tried, because a crop moves it
(`test_blockiness_follows_the_quality_and_not_the_place_of_the_grid`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.dataset.pixels import open_upright

BLOCKS = 0.12  # more than this much blockier is seen before anything else, in pictures of about the same size
SLIGHTLY = 0.03  # blockier
SHARPER = 1.1  # times as much detail at the same scale
LARGER = 1.02  # times as many pixels
CLEARLY_LARGER = 1.44  # times as many pixels: 1.2 on each side
ENLARGED = 0.55  # of what the smaller picture loses when it is shrunk as much: an enlarged one loses less
_COMMON = 1024 * 1024  # pixels at which detail is compared, at most
_BLOCK = 8
_LOSSY = frozenset({".jpg", ".jpeg", ".webp", ".avif", ".jxl"})


@dataclass(frozen=True)
class Quality:
    """What one file is worth. pixels: width × height; detail: standard deviation of the Laplacian at the common size.

    blocks: how much blockier than without compression, 0 and more; length: of the file, bytes.
    """

    path: Path
    width: int
    height: int
    detail: float
    blocks: float
    length: int
    grey: Image.Image

    @property
    def pixels(self) -> int:
        """Width × height."""
        return self.width * self.height


@dataclass(frozen=True)
class Proposal:
    """Which file to keep, and why each of the others is not better, in the order given."""

    keep: Path
    reason: str
    others: tuple[tuple[Path, str], ...]


def choose(paths: Sequence[Path]) -> Proposal:
    """Return which of several files of one picture to keep. Raises DataError naming a file that cannot be read."""
    greys = [open_upright(path).convert("L") for path in paths]
    common = max(greys, key=lambda grey: grey.width * grey.height).size
    ratio = min(1.0, (_COMMON / (common[0] * common[1])) ** 0.5)
    common = (max(1, round(common[0] * ratio)), max(1, round(common[1] * ratio)))
    measured = [_measure(path, grey, common) for path, grey in zip(paths, greys, strict=True)]
    best = measured[0]
    for other in measured[1:]:
        if _why_better(other, best):
            best = other
    others = [(each.path, _why_better(best, each)) for each in measured if each is not best]
    return Proposal(best.path, _praise(best, measured), tuple((path, why or "equal") for path, why in others))


def _measure(path: Path, grey: Image.Image, common: tuple[int, int]) -> Quality:
    values = np.asarray(grey.resize(common, Image.Resampling.LANCZOS), np.float32)
    detail = float(_laplacian(values).std()) if min(common) > 2 else 0.0
    try:
        length = path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}. Scan the folder again.") from error
    return Quality(path, grey.width, grey.height, detail, blockiness(np.asarray(grey, np.float32)), length, grey)


def _laplacian(values: NDArray[np.float32]) -> NDArray[np.float32]:
    inner = values[1:-1, 1:-1]
    around: NDArray[np.float32] = values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:]
    return around - 4 * inner


def blockiness(values: NDArray[np.float32]) -> float:
    """Return how much more neighbours differ across an 8×8 grid than elsewhere: 0 for none. values: (H, W) grey."""
    shares = []
    for axis in (0, 1):
        if values.shape[axis] < 4 * _BLOCK:
            continue
        steps = np.abs(np.diff(values, axis=axis)).mean(axis=1 - axis)
        places = np.array([np.median(steps[place::_BLOCK]) for place in range(_BLOCK)])  # one edge is no grid
        usual = float(np.median(places))
        shares.append(float(places.max()) / usual - 1 if usual > 0 else 0.0)
    return max(0.0, min(shares)) if shares else 0.0


def _why_better(one: Quality, two: Quality) -> str:
    """Return why the first file is better than the second, "" when it is not."""
    ratio = one.pixels / two.pixels
    blockier = two.blocks - one.blocks
    similar = 1 / CLEARLY_LARGER < ratio < CLEARLY_LARGER
    if similar and abs(blockier) > BLOCKS:
        return "more compression artefacts" if blockier > 0 else ""
    if max(one.detail, two.detail) > SHARPER * min(one.detail, two.detail):
        why = f"{_size(two)} instead of {_size(one)}" if ratio > LARGER else "less sharp"
        return why if one.detail > two.detail else ""
    if not similar:
        larger, smaller = (one, two) if ratio > 1 else (two, one)
        enlarged = smaller.blocks <= larger.blocks + SLIGHTLY and _lacks_detail(larger, smaller)
        why = "only enlarged" if enlarged else f"{_size(two)} instead of {_size(one)}"
        return why if (one is smaller) == enlarged else ""
    if not 1 / LARGER < ratio < LARGER:
        return f"{_size(two)} instead of {_size(one)}" if ratio > 1 else ""
    if abs(blockier) > SLIGHTLY:
        return "more compression artefacts" if blockier > 0 else ""
    if one.length != two.length and _is_lossy(one.path) and _is_lossy(two.path):
        return "compressed more" if one.length > two.length else ""
    return "equal" if str(one.path) < str(two.path) else ""


def _is_lossy(path: Path) -> bool:
    """Tell whether fewer bytes may mean a worse picture, by the file's extension."""
    return path.suffix.lower() in _LOSSY


def _lacks_detail(larger: Quality, smaller: Quality) -> bool:
    """Tell whether the larger picture loses little on its way to the size of the smaller one and back.

    The measure of little is what the smaller one itself loses when it is shrunk by the same factor.
    """
    shrunk = (
        max(1, round(smaller.width * smaller.width / larger.width)),
        max(1, round(smaller.height * smaller.height / larger.height)),
    )
    usual = _loss(smaller.grey, shrunk)
    return usual > 0 and _loss(larger.grey, (smaller.width, smaller.height)) < ENLARGED * usual


def _loss(grey: Image.Image, size: tuple[int, int]) -> float:
    """Return the standard deviation of what a picture loses on its way to a smaller size and back, of its own."""
    there = grey.resize(size, Image.Resampling.LANCZOS)
    back = there.resize(grey.size, Image.Resampling.BICUBIC)
    soft = ImageFilter.GaussianBlur(0.5)  # rounding to 256 levels is no detail
    before, after = (np.asarray(image.filter(soft), np.float32) for image in (grey, back))
    contrast = float(before.std())
    return float((before - after).std()) / contrast if contrast else 0.0


def _size(quality: Quality) -> str:
    return f"{quality.width}×{quality.height}"


def _praise(best: Quality, measured: Sequence[Quality]) -> str:
    others = [each for each in measured if each is not best]
    said = []
    if all(best.pixels > LARGER * each.pixels for each in others):
        said.append(f"the largest, {_size(best)}")
    if all(best.detail > SHARPER * each.detail for each in others):
        said.append("the sharpest")
    if all(best.blocks + SLIGHTLY < each.blocks for each in others):
        said.append("the fewest compression artefacts")
    return ", ".join(said) or f"none is better, {_size(best)}"
