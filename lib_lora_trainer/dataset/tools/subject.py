"""Where the subject of a picture is: given, from its mask, from its transparency, or by its contrast to the borders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib_lora_trainer.base.errors import DataError, Problem
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.masks import same_shape
from lib_lora_trainer.dataset.pixels import open_grey, open_opacity
from lib_lora_trainer.dataset.tools.members import Member
from lib_lora_trainer.dataset.tools.pictures import FOREIGN, Shape, whole

Found = Literal["given", "mask", "transparency", "contrast"]
ANALYSIS = 256  # pixels of the longer side that subjects are looked for at
SPECKS = 0.002  # share of the subject that may lie outside of the box, at each of its sides
COLOURS = 24  # that a border is reduced to
LEAST_DISTANCE = 30  # of 0 to 441: the contrast that noise and gradients of a plain ground stay below


@dataclass(frozen=True, eq=False)
class Subject:
    """The subject of an upright picture.

    box: left, top, right, bottom in pixels of the picture. presence: (h, w) bool, where it is, at ANALYSIS pixels of
    the longer side; None when only the box is known. found: how.
    """

    box: tuple[int, int, int, int]
    presence: NDArray[np.bool_] | None
    found: Found

    def columns(self, top: int, bottom: int, size: tuple[int, int]) -> tuple[int, int]:
        """Return its left and right edge between two rows of the picture; size: of the picture, width and height."""
        if self.presence is None:
            return self.box[0], self.box[2]
        height, width = self.presence.shape
        first = min(height - 1, int(top * height / size[1]))
        rows = self.presence[first : max(first + 1, round(bottom * height / size[1]))]
        edges = _extent(rows.sum(0))
        if edges is None:
            return self.box[0], self.box[2]
        return int(edges[0] * size[0] / width), -int(-edges[1] * size[0] // width)


def find(member: Member, shape: Shape, given: tuple[int, int, int, int] | None, by_contrast: bool) -> Subject | Problem:
    """Return a picture's subject by the first that is there: a given box, its mask, its transparency, its contrast.

    Contrast is only a guess, so it has to be allowed. What keeps it from being found is a problem.
    """
    where = printable(member.path)
    if given is not None:
        left, top, right, bottom = given
        if not (0 <= left < right <= shape.width and 0 <= top < bottom <= shape.height):
            text = f"has no box {left},{top},{right},{bottom}: it is {shape.width}×{shape.height} pixels."
            return Problem("warning", where, text, "Give left, top, right and bottom within the picture.")
        return Subject(given, None, "given")
    try:
        known = _known(member, shape)
        if known is not None:
            presence, found = known
        elif by_contrast:
            presence, found = contrast(whole(member.path)), "contrast"
        else:
            text = "has neither a mask nor transparency that tells where its subject is."
            return Problem("note", where, text, "Make a mask, give a box, or allow a guess by contrast.")
    except DataError as error:
        return Problem("warning", where, f"shows no subject: {error}", "Replace it, or make its mask anew.")
    box = _box(presence, shape.size)
    if box is None:
        text = f"has no subject that its {found} would show."
        return Problem("warning", where, text, "Give a box, or make its mask anew.")
    return Subject(box, presence, found)


def _known(member: Member, shape: Shape) -> tuple[NDArray[np.bool_], Found] | None:
    if member.mask is not None:
        grey = open_grey(member.mask)
        if not same_shape(grey.size, shape.size):
            raise DataError(f"its mask is {grey.width}×{grey.height} pixels, which does not fit it.")
        return np.asarray(_small(grey)) >= 128, "mask"
    if shape.transparent and member.path.suffix.lower() not in FOREIGN:
        return np.asarray(_small(open_opacity(member.path))) >= 128, "transparency"
    return None


def contrast(image: Image.Image) -> NDArray[np.bool_]:
    """Return where a picture differs from all of its border's main colours: (h, w) bool, as `Subject.presence`.

    The ground is what the border shows (the boundary prior of Wei et al., Geodesic Saliency, ECCV 2012): each pixel's
    distance to the nearest of the border's 24 main colours, cut by Otsu's threshold, but never below 30 of 441. Nothing
    where almost all of the picture differs, or almost none.
    """
    small = _small(image.convert("RGB"))
    values = np.asarray(small).astype(np.float32)
    thick = max(1, min(small.size) // 40)
    border = np.concatenate(
        [
            values[:thick].reshape(-1, 3),
            values[-thick:].reshape(-1, 3),
            values[:, :thick].reshape(-1, 3),
            values[:, -thick:].reshape(-1, 3),
        ]
    )
    strip = Image.fromarray(border.astype(np.uint8)[None]).quantize(COLOURS, Image.Quantize.MEDIANCUT)
    palette = np.asarray(strip.getpalette()[: 3 * COLOURS], dtype=np.float32).reshape(-1, 3)
    used = palette[np.unique(np.asarray(strip))]
    distance = np.sqrt(((values[:, :, None] - used) ** 2).sum(-1)).min(-1)
    presence: NDArray[np.bool_] = distance > max(LEAST_DISTANCE, _otsu(distance))
    return presence if 0.01 <= presence.mean() <= 0.95 else np.zeros_like(presence)


def _otsu(values: NDArray[np.float32]) -> float:
    """Return the threshold that separates values into the two classes farthest apart (Otsu 1979)."""
    if values.min() == values.max():
        return float(values.max())
    counts, edges = np.histogram(values, bins=128)
    middles = (edges[:-1] + edges[1:]) / 2
    below = counts.cumsum()
    above = below[-1] - below
    total = (counts * middles).cumsum()
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (total / below - (total[-1] - total) / above) ** 2
    return float(edges[1:][np.nanargmax(np.where(above > 0, between, np.nan))])


def _small(image: Image.Image) -> Image.Image:
    scale = min(1.0, ANALYSIS / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BOX)


def _box(presence: NDArray[np.bool_], size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Return the box around a subject, without specks, in pixels of the whole picture."""
    across, down = _extent(presence.sum(0)), _extent(presence.sum(1))
    if across is None or down is None:
        return None
    height, width = presence.shape
    left, right = int(across[0] * size[0] / width), -int(-across[1] * size[0] // width)
    top, bottom = int(down[0] * size[1] / height), -int(-down[1] * size[1] // height)
    return left, top, min(right, size[0]), min(bottom, size[1])


def _extent(counts: NDArray[np.int_]) -> tuple[int, int] | None:
    """Return the first index and the one behind the last that hold a histogram but for SPECKS at either end."""
    total = int(counts.sum())
    if not total:
        return None
    inside = np.flatnonzero((counts.cumsum() > total * SPECKS) & (counts[::-1].cumsum()[::-1] > total * SPECKS))
    return int(inside[0]), int(inside[-1]) + 1
