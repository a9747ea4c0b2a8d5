"""Masks: where they lie, what is wrong with them, and how they come to the size of a picture's latents."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib_lora_trainer.base.errors import DataError, Problem
from lib_lora_trainer.config.data import SourceConfig
from lib_lora_trainer.dataset import findings
from lib_lora_trainer.dataset.buckets import LATENT_CELL, Placement
from lib_lora_trainer.dataset.entries import absolute, is_folder, printable, real
from lib_lora_trainer.dataset.formats import FORMATS
from lib_lora_trainer.dataset.items import Item
from lib_lora_trainer.dataset.pixels import cut_out, open_grey, open_opacity

_Place = tuple[str, str]  # folder relative to the masks' or the source's own, with slashes; stem


@dataclass
class _Faults:
    """Masks that cannot be used as they are, by what is wrong."""

    shapes: list[Path] = field(default_factory=list)
    black: list[Path] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def masks_folder(source: SourceConfig) -> Path | None:
    """Return the folder of a source's masks, or None when it has none."""
    return absolute(source.masks) if source.masks.strip() else None


def find_masks(
    source: SourceConfig, pictures: Sequence[tuple[Path, int, int]], where: str
) -> tuple[dict[Path, Path], tuple[Problem, ...]]:
    """Return the mask of each picture that has one, and every problem with them.

    pictures: path, upright width and height. A mask has its picture's name, with any picture extension, and lies in the
    same subfolder of the masks' folder, or directly in it when no other picture of the source has the name.
    A mask may be larger or smaller than its picture, but must have its shape.
    """
    folder = masks_folder(source)
    if folder is None:
        return {}, ()
    if not is_folder(folder):
        text = f"{printable(folder)} is no folder."
        return {}, (Problem("error", where, text, "Choose the folder with the masks, or leave it empty."),)
    root = absolute(source.path)
    if real(folder) == real(root):
        text = f"{printable(folder)} is the folder of the pictures themselves."
        return {}, (Problem("error", where, text, "Put the masks into a folder of their own and choose that."),)
    there = _listed(folder)
    stems = Counter(_stem(path) for path, _, _ in pictures)
    found: dict[Path, Path] = {}
    for path, _, _ in pictures:
        exact = (path.parent.relative_to(root).as_posix(), _stem(path))
        flat = (".", _stem(path))
        if exact in there:
            found[path] = there[exact]
        elif flat in there and stems[_stem(path)] == 1:
            found[path] = there[flat]
    return found, tuple(_problems(source, pictures, found, there, where))


def _stem(path: Path) -> str:
    return os.path.normcase(path.stem)


def _listed(folder: Path) -> dict[_Place, Path]:
    """Return the pictures in a folder and below it; of several that differ in the extension alone the first counts."""
    there: dict[_Place, Path] = {}
    for parent, subfolders, names in os.walk(folder):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(".") and name != "__MACOSX")
        inside = Path(parent).relative_to(folder).as_posix()
        for name in sorted(names):
            if Path(name).suffix.lower() in FORMATS and not name.startswith("."):
                there.setdefault((inside, _stem(Path(name))), Path(parent, name))
    return there


def _problems(
    source: SourceConfig,
    pictures: Sequence[tuple[Path, int, int]],
    found: Mapping[Path, Path],
    there: Mapping[_Place, Path],
    where: str,
) -> list[Problem]:
    faults = _Faults()
    for path, width, height in pictures:
        if path in found:
            _examine(found[path], width, height, faults)
    missing = [path for path, _, _ in pictures if path not in found]
    unused = sorted(set(there.values()) - set(found.values()))
    problems = list(faults.problems)
    if missing:
        instead = "take their transparency instead" if source.alpha_masks else "are learned as a whole"
        text = f"{findings.counted(missing, len(pictures))} have no mask and {instead}: {findings.named(missing)}."
        fix = "Add masks of the same names, if that is not meant."
        problems.append(Problem("note" if source.alpha_masks else "warning", where, text, fix))
    if faults.shapes:
        text = f"{len(faults.shapes)} masks have another shape than their pictures: {findings.named(faults.shapes)}."
        problems.append(Problem("error", where, text, "Make them anew from the pictures, or remove them."))
    if faults.black:
        text = f"{len(faults.black)} masks are black everywhere, so that nothing of their pictures is learned: "
        fix = "Check them; white is learned."
        problems.append(Problem("warning", where, f"{text}{findings.named(faults.black)}.", fix))
    if unused:
        text = f"masks that belong to no picture are ignored, {len(unused)} in all: {findings.named(unused)}."
        problems.append(Problem("note", where, text))
    return problems


def _examine(mask: Path, width: int, height: int, faults: _Faults) -> None:
    try:
        grey = open_grey(mask)
    except DataError as error:
        message, _, fix = str(error).removeprefix(f"{printable(mask)}: ").rpartition(". ")
        faults.problems.append(Problem("error", printable(mask), f"{message}.", fix))
        return
    if not same_shape(grey.size, (width, height)):
        faults.shapes.append(mask)
    if grey.getextrema()[1] == 0:
        faults.black.append(mask)


def same_shape(one: tuple[int, int], two: tuple[int, int]) -> bool:
    """Tell whether one size is the other one scaled, give or take a pixel of the smaller one."""
    (width, height), (other_width, other_height) = sorted((one, two))
    by_width = abs(other_height * width / other_width - height)
    by_height = abs(other_width * height / other_height - width)
    return min(by_width, by_height) <= 1


def load_mask(item: Item, alpha: bool, placement: Placement) -> NDArray[np.float32] | None:
    """Return how much of each latent pixel of a picture is learned: (h, w) float32 in [0, 1], or None for all of it.

    The mask's file counts, without one and with `alpha` the picture's own opacity. It takes the picture's way, scaled
    and cropped as placed, and each latent pixel is the mean of its 8×8 pixels. Raises DataError naming the file.
    """
    if item.mask is None and not alpha:
        return None
    grey = open_grey(item.mask) if item.mask is not None else open_opacity(item.path)
    if not same_shape(grey.size, placement.original):
        raise DataError(
            f"{item.mask or item.path}: is {grey.width}×{grey.height} pixels now, which does not fit the picture's "
            f"{placement.original[0]}×{placement.original[1]}. Scan the folder again."
        )
    # Bilinear: Lanczos would put dark and bright seams along the mask's borders.
    pixels = np.asarray(cut_out(grey, placement, Image.Resampling.BILINEAR), dtype=np.float32)
    bucket = placement.bucket
    cells = pixels.reshape(bucket.height // LATENT_CELL, LATENT_CELL, bucket.width // LATENT_CELL, LATENT_CELL)
    mean: NDArray[np.float32] = cells.mean(axis=(1, 3)) / 255
    return mean
