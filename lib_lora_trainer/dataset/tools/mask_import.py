"""Masks that another program made are taken over from its folder, found by name and checked before they count."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from lib_lora_trainer.base.errors import ConfigError, DataError, Problem
from lib_lora_trainer.config.data import SourceConfig
from lib_lora_trainer.dataset import masks
from lib_lora_trainer.dataset.entries import absolute, printable, real
from lib_lora_trainer.dataset.masks import same_shape
from lib_lora_trainer.dataset.pixels import open_grey
from lib_lora_trainer.dataset.tools.mask_check import MEANING, judge
from lib_lora_trainer.dataset.tools.mask_files import require_folder, taken
from lib_lora_trainer.dataset.tools.members import Dataset, Member
from lib_lora_trainer.dataset.tools.operations import Proposal, shown
from lib_lora_trainer.dataset.tools.options import MaskImportOptions
from lib_lora_trainer.dataset.tools.pictures import still_shape


def plan(dataset: Dataset, options: MaskImportOptions) -> Iterator[Proposal]:
    """Yield for each picture the mask that it gets, saved as grey PNG in the source's folder of masks.

    A mask is found by the rules by which a source's own are: the same subfolder or directly in the folder, any picture
    extension. Black and white ones, those of another shape and those with holes are not taken. Raises ConfigError when
    the source has no folder for masks, or the other folder cannot serve.
    """
    own = require_folder(dataset)
    folder = absolute(options.folder) if options.folder.strip() else None
    if folder is None or real(folder) in (real(own), real(dataset.root)):
        raise ConfigError("folder: choose a folder other than the source's own and than that of its masks.")
    source: SourceConfig = replace(dataset.data.sources[dataset.index], masks=str(folder))
    # Sizes are compared below, with the pictures as they are.
    found, problems = masks.find_masks(source, [(member.path, 1, 1) for member in dataset.everyone], "folder")
    if any(problem.where == "folder" and problem.severity == "error" and not found for problem in problems):
        raise ConfigError("\n".join(str(problem) for problem in problems if problem.severity == "error"))
    for member in dataset.members:
        mask = found.get(member.path)
        if mask is None or (member.mask is not None and not options.replace):
            yield Proposal(member.path, before={"mask": printable(member.mask)} if member.mask else {})
        else:
            yield _proposal(dataset, member, mask, options)


def _proposal(dataset: Dataset, member: Member, mask: Path, options: MaskImportOptions) -> Proposal:
    where, before = printable(mask), {"mask": printable(member.mask)} if member.mask else {}
    shape = still_shape(member.path)
    if isinstance(shape, Problem):
        return Proposal(member.path, before=before, problems=(shape,))
    try:
        grey = open_grey(mask)
    except DataError as error:
        text = str(error).removeprefix(f"{where}: ")
        return Proposal(member.path, before=before, problems=(Problem("warning", where, text, "Make it anew."),))
    problem = None
    judged = judge(grey, options.holes / 100)
    if not same_shape(grey.size, shape.size):
        text = f"is {grey.width}×{grey.height} pixels, which does not fit its picture's {shape.width}×{shape.height}."
        problem = Problem("warning", where, text, "Make it anew.")
    elif judged.verdict != "good":
        problem = Problem("warning", where, *MEANING[judged.verdict])
    if problem is not None:
        return Proposal(member.path, before=before, problems=(problem,))
    operations = taken(dataset, member, partial(_write_grey, mask))
    after = {"mask": shown(operations[-1].path, dataset.root), "learned": round(judged.learned, 4)}
    return Proposal(member.path, tuple(operations), before, after)


def _write_grey(source: Path, path: Path) -> None:
    open_grey(source).save(path, "PNG")
