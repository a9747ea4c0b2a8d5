"""Transparency is laid over a colour, since training knows none; it can be kept as a mask."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from lib_lora_trainer.base.errors import ConfigError, Problem
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.pixels import open_opacity
from lib_lora_trainer.dataset.tools.members import Dataset, Member
from lib_lora_trainer.dataset.tools.names import Names
from lib_lora_trainer.dataset.tools.operations import Operation, Proposal, write
from lib_lora_trainer.dataset.tools.options import AlphaOptions
from lib_lora_trainer.dataset.tools.pictures import colour_of, over, still_shape
from lib_lora_trainer.dataset.tools.rewriting import rewritten


def plan(dataset: Dataset, options: AlphaOptions) -> Iterator[Proposal]:
    """Yield for each picture its version without transparency; opaque ones are left as they are.

    Over white, training sees the same pixels as before. Raises ConfigError for what is no colour, or for masks without
    a folder to put them in.
    """
    colour = colour_of(options.colour, "colour")
    if options.keep_as_mask and dataset.masks is None:
        raise ConfigError("keep_as_mask: the source has no folder for masks. Choose one, then begin again.")
    names = Names()
    for member in dataset.members:
        yield _proposal(dataset, member, colour, options.keep_as_mask, names)


def _proposal(
    dataset: Dataset, member: Member, colour: tuple[int, int, int], keep_as_mask: bool, names: Names
) -> Proposal:
    shape = still_shape(member.path)
    if isinstance(shape, Problem):
        return Proposal(member.path, problems=(shape,))
    if not shape.transparent:
        return Proposal(member.path, before=shape.facts())
    operations = rewritten(dataset, member, shape.size, partial(over, colour), names)
    problems: tuple[Problem, ...] = ()
    if keep_as_mask and member.mask is None:
        operations.append(_mask(dataset, member, operations[0].path))
    elif dataset.data.sources[dataset.index].alpha_masks and member.mask is None:
        text = "its transparency is its mask, as the source says, and is lost."
        problems = (Problem("warning", printable(member.path), text, "Keep it as a mask."),)
    after = {**shape.facts(), "transparent": False, "format": "PNG"}
    return Proposal(member.path, tuple(operations), shape.facts(), after, problems)


def _mask(dataset: Dataset, member: Member, picture: Path) -> Operation:
    assert dataset.masks is not None
    target = dataset.masks / picture.parent.relative_to(dataset.root) / f"{picture.stem}.png"
    return write(target, partial(_write_opacity, member.path))


def _write_opacity(source: Path, path: Path) -> None:
    open_opacity(source).save(path, "PNG")
