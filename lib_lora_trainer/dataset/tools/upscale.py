"""Pictures that training would enlarge are enlarged beforehand, by something better than Lanczos where there is any."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from PIL import Image

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.items import Scan
from lib_lora_trainer.dataset.tools.bucket_report import Placed, placed
from lib_lora_trainer.dataset.tools.members import Dataset, Member
from lib_lora_trainer.dataset.tools.names import Names
from lib_lora_trainer.dataset.tools.operations import Proposal
from lib_lora_trainer.dataset.tools.options import UpscaleOptions
from lib_lora_trainer.dataset.tools.pictures import Edit, still_shape
from lib_lora_trainer.dataset.tools.rewriting import rewritten


def lanczos(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return a picture scaled to a size; an `Upscaler` that adds no detail."""
    return image.resize(size, Image.Resampling.LANCZOS)


Upscaler = Callable[[Image.Image, tuple[int, int]], Image.Image]
"""Takes an RGB picture and the size wanted, and returns it about that size or larger, of the same shape."""


@dataclass(frozen=True)
class NamedUpscaler:
    """What a host can enlarge pictures with. download: where its model has to be fetched from at first use, "" if not."""

    name: str
    upscale: Upscaler
    download: str = ""


def plan(dataset: Dataset, scan: Scan, options: UpscaleOptions) -> Iterator[Proposal]:
    """Yield for each picture of the scan its version of the size that training needs.

    Only for pictures that training would enlarge, or that have fewer pixels than its resolution squared; the others are
    left as they are. They get the size that training would scale them to, or the least one of their shape with that
    many pixels where it is larger, as some buckets are smaller than the resolution squared. At several resolutions the
    largest counts. Masks of another size still fit, since the shape stays.
    """
    names = Names()
    # Whoever asks for enlarged pictures wants them at the bucket's size, also where training itself would not enlarge.
    largest = _largest(placed(scan, replace(dataset.data, no_upscale=False)))
    for member in dataset.members:
        needed = largest.get(member.path)
        if needed is None or needed[0] == needed[1].placement.original:
            yield Proposal(member.path, before=needed[1].facts() if needed else {})
        else:
            yield _proposal(dataset, member, needed, options, names)


def needed_size(view: Placed) -> tuple[int, int]:
    """Return the size that a picture needs for one resolution, (width, height); its own when it is large enough."""
    width, height = view.placement.original
    if not view.lacking:
        return view.placement.scaled if view.factor > 1 else (width, height)
    factor = max(view.factor, view.resolution / (width * height) ** 0.5)
    return math.ceil(width * factor), math.ceil(height * factor)


def _largest(views: Sequence[Placed]) -> dict[Path, tuple[tuple[int, int], Placed]]:
    found: dict[Path, tuple[tuple[int, int], Placed]] = {}
    for view in views:
        size = needed_size(view)
        if view.path not in found or size > found[view.path][0]:
            found[view.path] = (size, view)
    return found


def _proposal(
    dataset: Dataset, member: Member, needed: tuple[tuple[int, int], Placed], options: UpscaleOptions, names: Names
) -> Proposal:
    target, view = needed
    shape = still_shape(member.path)
    if isinstance(shape, Problem):
        return Proposal(member.path, problems=(shape,))
    original = view.placement.original
    if shape.size != original:
        text = "was changed since the scan."
        problem = Problem("warning", printable(member.path), text, "Scan the folder again.")
        return Proposal(member.path, problems=(problem,))
    operations = rewritten(dataset, member, original, enlarging(options.upscaler or lanczos, target), names)
    factor = round(target[0] / original[0], 4)
    after = {"width": target[0], "height": target[1], "factor": factor, "upscaler": options.name}
    return Proposal(member.path, tuple(operations), view.facts(), after)


def enlarging(upscaler: Upscaler, size: tuple[int, int]) -> Edit:
    """Return the edit that enlarges a picture to a size; transparency is enlarged by Lanczos, whatever the upscaler."""
    return partial(enlarged, upscaler, size)


def enlarged(upscaler: Upscaler, size: tuple[int, int], image: Image.Image) -> Image.Image:
    """Return a picture enlarged to a size; the edit of `enlarging`."""
    result = upscaler(image.convert("RGB"), size).convert("RGB")
    if result.size != size:
        result = lanczos(result, size)
    if image.mode == "RGBA":
        result.putalpha(lanczos(image.getchannel("A"), size))
    return result
