"""Pictures are padded to squares, for upscalers that take no others."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from PIL import Image

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.dataset.tools.members import Dataset, Member
from lib_lora_trainer.dataset.tools.names import Names
from lib_lora_trainer.dataset.tools.operations import Proposal
from lib_lora_trainer.dataset.tools.options import PadOptions
from lib_lora_trainer.dataset.tools.pictures import colour_of, still_shape
from lib_lora_trainer.dataset.tools.rewriting import mask_rewritten, rewritten


def plan(dataset: Dataset, options: PadOptions) -> Iterator[Proposal]:
    """Yield for each picture its square version, itself in the middle, never scaled; squares are left as they are.

    Masks get black bars: what was added is not learned. Raises ConfigError for what is no colour.
    """
    colour, names = colour_of(options.colour, "colour"), Names()
    for member in dataset.members:
        yield _proposal(dataset, member, colour, names)


def squared(colour: tuple[int, ...] | int, image: Image.Image) -> Image.Image:
    """Return a picture in the middle of a square of a colour; an odd pixel goes to the right or below."""
    side = max(image.size)
    if image.mode == "RGBA" and isinstance(colour, tuple):
        colour = (*colour, 255)
    ground = Image.new(image.mode, (side, side), colour)
    ground.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return ground


def _proposal(dataset: Dataset, member: Member, colour: tuple[int, int, int], names: Names) -> Proposal:
    shape = still_shape(member.path)
    if isinstance(shape, Problem):
        return Proposal(member.path, problems=(shape,))
    if shape.width == shape.height:
        return Proposal(member.path, before=shape.facts())
    mask, problem = mask_rewritten(member, shape.size, partial(squared, 0))
    if problem is not None:
        return Proposal(member.path, before=shape.facts(), problems=(problem,))
    operations = (*rewritten(dataset, member, shape.size, partial(squared, colour), names), *mask)
    side = max(shape.size)
    return Proposal(member.path, operations, shape.facts(), {**shape.facts(), "width": side, "height": side})
