"""Pictures in every format become PNG, and every frame of an animation a picture of its own."""

from __future__ import annotations

from collections.abc import Iterator

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.dataset.tools.members import Dataset, Member, caption_extensions
from lib_lora_trainer.dataset.tools.names import Names
from lib_lora_trainer.dataset.tools.operations import Operation, Proposal, shown
from lib_lora_trainer.dataset.tools.options import ConvertOptions
from lib_lora_trainer.dataset.tools.pictures import FrameOf, Rewritten, is_png, shape_of, unchanged
from lib_lora_trainer.dataset.tools.rewriting import rewritten, taken_apart


def plan(dataset: Dataset, options: ConvertOptions) -> Iterator[Proposal]:
    """Yield for each picture what becomes of it: a PNG with the pixels that training sees in the original.

    Every frame of an animated GIF, PNG or WebP, and every page of a TIFF, becomes a PNG with a copy of the captions and
    the mask. A still PNG is left as it is. The original goes to the holding.
    """
    names, wanted = Names(), {extension.lower() for extension in caption_extensions(options.formats)}
    for member in dataset.members:
        if wanted and member.path.suffix.lower() not in wanted:
            yield Proposal(member.path)
        else:
            yield _proposal(dataset, member, names)


def _proposal(dataset: Dataset, member: Member, names: Names) -> Proposal:
    shape = shape_of(member.path)
    if isinstance(shape, Problem):
        return Proposal(member.path, problems=(shape,))
    operations: list[Operation] = []
    if shape.frames > 1:
        operations = taken_apart(dataset, member, shape, names)
    elif not is_png(member.path):
        operations = rewritten(dataset, member, shape.size, unchanged, names)
    written = [shown(each.path, dataset.root) for each in operations if isinstance(each.content, (Rewritten, FrameOf))]
    return Proposal(member.path, tuple(operations), shape.facts(), {"files": written} if written else {})
