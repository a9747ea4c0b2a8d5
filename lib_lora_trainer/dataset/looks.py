"""What near-duplicates are recognized by: a small grey picture, and difference hashes of it and of crops of it.

The hash is ImageHash's `dhash`, across and down: each bit says which of two neighbouring cells is brighter. It stands
recompression and resizing without change; a crop moves the cells, so that crops of one picture are hashed as well
(`test_every_crop_is_near_one_of_the_windows`).
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib_lora_trainer.base.errors import UserError
from lib_lora_trainer.dataset.formats import opened
from lib_lora_trainer.dataset.pixels import upright_rgb

SIDE = 96  # pixels of the grey picture, whatever the picture's shape
CELLS = 12  # of the hash, each way
CROP = 0.05  # of a side that a window leaves out
SMALLEST = 16  # pixels of a picture's shorter side; below, there is nothing to recognize
FLAT = 2.0  # standard deviation of grey, of 255, below which a picture is of one colour
WINDOWS = tuple((left, top, 1 - right, 1 - bottom) for left, top, right, bottom in product((0.0, CROP), repeat=4))
"""The whole picture first, then each way to cut 5 % off some of its sides: (left, top, right, bottom) of 1."""
_BASE = 64  # pixels of the picture that is hashed


@dataclass(frozen=True)
class Look:
    """How one picture looks.

    width, height: upright, pixels. grey: (96, 96) uint8. hashes: (16, 36) uint8, the 288 bits of each of `WINDOWS`;
    mirrored: (36,) uint8, those of the whole picture seen in a mirror.
    """

    path: Path
    width: int
    height: int
    grey: NDArray[np.uint8]
    hashes: NDArray[np.uint8]
    mirrored: NDArray[np.uint8]

    @property
    def recognizable(self) -> bool:
        """Whether there is enough in the picture to tell it from others."""
        return min(self.width, self.height) >= SMALLEST and float(self.grey.std()) >= FLAT


def look_at(path: Path) -> Look:
    """Return how a picture looks. Raises one of `formats.DECODER_ERRORS`, and UserError without ImageHash."""
    with opened(path) as image:
        width, height = image.size
        image.draft(image.mode, (2 * SIDE, 2 * SIDE))  # a JPEG then decodes at a fraction of its size
        small = upright_rgb(image).convert("L")
    if (small.width > small.height) != (width > height):
        width, height = height, width
    grey = small.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    base = small.resize((_BASE, _BASE), Image.Resampling.LANCZOS)
    hashes = np.stack([_hash(base, window) for window in WINDOWS])
    mirrored = _hash(base.transpose(Image.Transpose.FLIP_LEFT_RIGHT), WINDOWS[0])
    return Look(path, width, height, np.asarray(grey), hashes, mirrored)


def _hash(base: Image.Image, window: tuple[float, float, float, float]) -> NDArray[np.uint8]:
    import imagehash

    if window != WINDOWS[0]:
        left, top, right, bottom = (side * _BASE for side in window)
        base = base.resize((_BASE, _BASE), Image.Resampling.BICUBIC, box=(left, top, right, bottom))
    across, down = imagehash.dhash(base, CELLS).hash, imagehash.dhash_vertical(base, CELLS).hash
    return np.packbits(np.concatenate([across.ravel(), down.ravel()]))


def require_imagehash() -> None:
    """Raise UserError that says what to install, where ImageHash is missing."""
    if importlib.util.find_spec("imagehash") is None:
        raise UserError("Near-duplicates are found with ImageHash, which is not installed: pip install ImageHash")
