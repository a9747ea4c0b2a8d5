"""The report of a trial as data: every cell with its rates, the verdict, and which image belongs where."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lib_lora_trainer.base.files import write_text
from lib_lora_trainer.evaluate.findings import Verdict
from lib_lora_trainer.evaluate.pick import KINDS, Cell, Trial, rate
from lib_lora_trainer.evaluate.pick_options import PickOptions, Shot
from lib_lora_trainer.evaluate.pick_subject import Subject

VERSION = 1


@dataclass(frozen=True)
class Report:
    """Everything a report tells. keys: the names of the images of the base model and of each cell, in their order."""

    trial: Trial
    verdict: Verdict
    shots: tuple[Shot, ...]
    subject: Subject
    keys: Sequence[tuple[str, ...]]
    options: PickOptions


def content(report: Report) -> dict[str, Any]:
    """Return the report as plain values for JSON: numbers between 0 and 1 unless `pick.Cell` says else."""
    verdict, choice = report.verdict, report.verdict.choice
    qualities = [asdict(each) for each in choice.qualities] if choice else [None] * len(report.trial.cells)
    recommended = None
    if choice is not None:
        cell = choice.cell
        recommended = {
            "file": cell.label, "step": cell.step, "epoch": cell.epoch, "weight": cell.weight,
            "lowest_weight": choice.lowest, "highest_weight": choice.highest,
        }  # fmt: skip
    return {
        "version": VERSION,
        "length": verdict.length,
        "recommended": recommended,
        "why": list(verdict.why),
        "findings": [asdict(finding) for finding in verdict.findings],
        "epochs": verdict.epochs,
        "ceiling": report.trial.ceiling,
        "triggers": [
            {"words": list(part.words), "traits": dict(part.traits), "pictures": part.pictures}
            for part in report.subject.parts
        ],
        "options": asdict(report.options),
        "base": _cell(report, report.trial.base, 0, None),
        "cells": [
            _cell(report, cell, number, quality)
            for number, (cell, quality) in enumerate(zip(report.trial.cells, qualities, strict=True), 1)
        ],
    }


def write(path: Path, report: Report) -> None:
    """Write the report as JSON. Raises OSError."""
    write_text(path, json.dumps(content(report), ensure_ascii=False, indent=1))


def _cell(report: Report, cell: Cell, number: int, quality: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "file": cell.label,
        "step": cell.step,
        "epoch": cell.epoch,
        "weight": cell.weight,
        "quality": quality,
        **{kind: asdict(rate(getattr(cell, kind))) for kind in KINDS if getattr(cell, kind)},
        "similarity": cell.similarity,
        "nearest": cell.nearest,
        "change": cell.change,
        "traits": dict(cell.traits),
        "images": [
            {
                "kind": shot.kind, "prompt": shot.request.prompt, "seed": shot.request.seed,
                "file": f"images/{key}.png", "damaged": bool(damaged),
            }
            for shot, key, damaged in zip(report.shots, report.keys[number], cell.defects, strict=True)
        ],
    }  # fmt: skip
