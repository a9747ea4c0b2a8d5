"""Masks made by a model that separates a picture's subject from its background, checked before they count."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from lib_lora_trainer.base.errors import ConfigError, DataError, Problem
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.pixels import open_upright
from lib_lora_trainer.dataset.tools.kept import Remover
from lib_lora_trainer.dataset.tools.mask_check import MEANING, judge
from lib_lora_trainer.dataset.tools.mask_files import require_folder, taken
from lib_lora_trainer.dataset.tools.members import Dataset, Member
from lib_lora_trainer.dataset.tools.operations import Proposal, shown
from lib_lora_trainer.dataset.tools.options import MaskGenerateOptions
from lib_lora_trainer.dataset.tools.pictures import still_shape


def plan(dataset: Dataset, options: MaskGenerateOptions) -> Iterator[Proposal]:
    """Yield for each picture the mask that a model makes of it, saved as grey PNG in the source's folder of masks.

    Pictures that have one keep it unless told otherwise. Black and white ones, and those with holes, are not taken. The
    model works once to judge and once to write, so whoever passes it keeps its results (`kept.kept_remover`). Raises
    ConfigError when the source has no folder for masks, or no model was passed.
    """
    require_folder(dataset)
    if options.remover is None:
        raise ConfigError("model: nothing that makes masks was passed. Install it, then begin again.")
    for member in dataset.members:
        if member.mask is not None and not options.replace:
            yield Proposal(member.path, before={"mask": printable(member.mask)})
        else:
            yield _proposal(dataset, member, options.remover, options.holes / 100)


def _proposal(dataset: Dataset, member: Member, remover: Remover, holes: float) -> Proposal:
    before = {"mask": printable(member.mask)} if member.mask else {}
    shape = still_shape(member.path)
    if isinstance(shape, Problem):
        return Proposal(member.path, before=before, problems=(shape,))
    try:
        picture = open_upright(member.path)
    except DataError as error:
        problem = Problem("warning", printable(member.path), str(error), "Replace it.")
        return Proposal(member.path, before=before, problems=(problem,))
    judged = judge(remover(picture).convert("L"), holes)
    facts = {"verdict": judged.verdict, "learned": round(judged.learned, 4), "holes": round(judged.holes, 4)}
    if judged.verdict != "good":
        text = f"would get a mask that {MEANING[judged.verdict][0]}"
        problem = Problem("warning", printable(member.path), text, "Draw its mask, or try another model.")
        return Proposal(member.path, before={**before, **facts}, problems=(problem,))
    operations = taken(dataset, member, partial(_write, remover, member.path))
    after = {**facts, "mask": shown(operations[-1].path, dataset.root)}
    return Proposal(member.path, tuple(operations), before, after)


def _write(remover: Remover, source: Path, path: Path) -> None:
    remover(open_upright(source)).convert("L").save(path, "PNG")
