"""Borders of a single colour are cut off."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib_lora_trainer.base.errors import DataError, Problem
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.tools.members import Dataset, Member
from lib_lora_trainer.dataset.tools.names import Names
from lib_lora_trainer.dataset.tools.operations import Proposal
from lib_lora_trainer.dataset.tools.options import Box, TrimOptions
from lib_lora_trainer.dataset.tools.pictures import Edit, still_shape, whole
from lib_lora_trainer.dataset.tools.rewriting import mask_rewritten, rewritten


def plan(dataset: Dataset, options: TrimOptions) -> Iterator[Proposal]:
    """Yield for each picture its version without borders, with its mask cut alike; without borders it is left."""
    names = Names()
    for member in dataset.members:
        yield _proposal(dataset, member, options, names)


def content_box(image: Image.Image, tolerance: float) -> Box | None:
    """Return the box within the borders of a picture, RGB or RGBA; None when all of it is border.

    The rule of ImageMagick's -trim with -fuzz (`GetImageBoundingBox`, `IsFuzzyEquivalencePixelInfo` in 7.0): the left
    and upper borders have the colour of the upper left corner, the right one that of the upper right, the lower one
    that of the lower left; the box holds every pixel that differs from the border's colour. Two pixels are alike when
    3 Δα² + α₁ α₂ (Δr² + Δg² + Δb²) ≤ 3 f², with f the tolerance times 255, and α from 0 to 1 where it scales.
    """
    values = np.asarray(image).astype(np.float32)
    upper_left = _differs(values, values[0, 0], tolerance)
    upper_right = _differs(values, values[0, -1], tolerance)
    lower_left = _differs(values, values[-1, 0], tolerance)
    columns, rows = np.flatnonzero(upper_left.any(0)), np.flatnonzero(upper_left.any(1))
    rights, bottoms = np.flatnonzero(upper_right.any(0)), np.flatnonzero(lower_left.any(1))
    if not min(len(columns), len(rows), len(rights), len(bottoms)):
        return None
    left, top, right, bottom = int(columns[0]), int(rows[0]), int(rights[-1]) + 1, int(bottoms[-1]) + 1
    return (left, top, right, bottom) if left < right and top < bottom else None


def _differs(values: NDArray[np.float32], colour: NDArray[np.float32], tolerance: float) -> NDArray[np.bool_]:
    """Return which pixels (H, W, 3 or 4) in 0 to 255 are not alike to a colour (3 or 4)."""
    limit = 3 * (tolerance / 100 * 255) ** 2
    distance = ((values[..., :3] - colour[:3]) ** 2).sum(-1)
    if values.shape[-1] == 4:
        weight = values[..., 3] * colour[3] / 255**2
        distance = distance * weight + 3 * (values[..., 3] - colour[3]) ** 2
    different: NDArray[np.bool_] = distance > limit
    return different


def _proposal(dataset: Dataset, member: Member, options: TrimOptions, names: Names) -> Proposal:
    shape = still_shape(member.path)
    if isinstance(shape, Problem):
        return Proposal(member.path, problems=(shape,))
    try:
        box = content_box(whole(member.path), options.tolerance)
    except DataError as error:
        return Proposal(member.path, problems=(Problem("warning", printable(member.path), str(error), "Replace it."),))
    if box is None or min(box[2] - box[0], box[3] - box[1]) < options.shortest:
        if box == (0, 0, *shape.size):
            return Proposal(member.path, before=shape.facts())
        text = "is of one colour within the tolerance, or nearly so, and is not trimmed."
        problem = Problem("note", printable(member.path), text, "Lower the tolerance to trim it.")
        return Proposal(member.path, before=shape.facts(), problems=(problem,))
    if box == (0, 0, *shape.size):
        return Proposal(member.path, before=shape.facts())
    return cut(dataset, member, shape.size, box, names)


def cut(dataset: Dataset, member: Member, size: tuple[int, int], box: Box, names: Names) -> Proposal:
    """Propose to cut a picture of a size, and its mask, down to a box."""
    before = {"width": size[0], "height": size[1]}
    mask, problem = mask_rewritten(member, size, cropping(box))
    if problem is not None:
        return Proposal(member.path, before=before, problems=(problem,))
    after = {"width": box[2] - box[0], "height": box[3] - box[1], "box": list(box)}
    return Proposal(member.path, (*rewritten(dataset, member, size, cropping(box), names), *mask), before, after)


def cropping(box: Box) -> Edit:
    """Return the edit that cuts a picture down to a box."""

    def crop(image: Image.Image) -> Image.Image:
        return image.crop(box)

    return crop
