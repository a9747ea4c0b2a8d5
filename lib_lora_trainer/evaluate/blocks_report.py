"""The report of an analysis as data: cells, what each block does, and the smallest set, written and read again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from lib_lora_trainer.base.families import Family
from lib_lora_trainer.base.files import write_text
from lib_lora_trainer.evaluate import blocks
from lib_lora_trainer.evaluate.blocks import Analysis, Cell
from lib_lora_trainer.evaluate.blocks_options import BlockOptions
from lib_lora_trainer.evaluate.pick import rate

VERSION = 1
FILE = "blocks.json"


@dataclass(frozen=True)
class Tried:
    """A set of blocks that was measured. recall: in each image; fresh: with the other seeds."""

    blocks: tuple[str, ...]
    fresh: bool
    share: float
    recall: tuple[float, ...]


@dataclass(frozen=True)
class Chosen:
    """The smallest set that was found for a share to keep.

    blocks: the one that matters most first; share, fresh: what it keeps; without: what is left without each. preset: its
    block weights; training: the value of the setting `adapter.blocks`. before: recall of all blocks, after: of the set.
    """

    keep: float
    blocks: tuple[str, ...]
    share: float
    fresh: float
    without: Mapping[str, float]
    tried: tuple[Tried, ...]
    preset: str
    training: str
    before: float
    after: float


@dataclass(frozen=True)
class Report:
    """Everything that is told. file: the adapter's name; parts: triggers with their traits; prompts, controls: of the images with
    and without a trigger; images: of one set of blocks; options: as they were asked for; chosen: None before the search.
    """

    file: str
    digest: str
    family: Family
    parts: tuple[tuple[str, tuple[str, ...]], ...]
    prompts: tuple[str, ...]
    controls: tuple[str, ...]
    images: int
    options: BlockOptions
    analysis: Analysis
    chosen: Chosen | None = None

    @property
    def order(self) -> tuple[str, ...]:
        """The blocks of the file in the model's order."""
        return self.analysis.blocks


def content(report: Report) -> dict[str, Any]:
    """Return the report as plain values for JSON; what each block does is there for readers, and not read again."""
    analysis = report.analysis
    return {
        "version": VERSION,
        **{name: getattr(report, name) for name in ("file", "digest", "family", "prompts", "controls", "images")},
        "parts": [{"words": words, "traits": list(traits)} for words, traits in report.parts],
        "options": asdict(report.options),
        "gained": asdict(analysis.gained),
        "ranking": [asdict(row) for row in blocks.rows(analysis)],
        "blocks": list(analysis.blocks),
        "base": _cell(analysis.base),
        "full": _cell(analysis.full),
        "off": {block: _cell(cell) for block, cell in analysis.off.items()},
        "alone": {block: _cell(cell) for block, cell in analysis.alone.items()},
        "chosen": asdict(report.chosen) if report.chosen else None,
    }  # fmt: skip


def write(folder: Path, report: Report) -> Path:
    """Write the report as JSON, and return its file. Raises OSError."""
    path = folder / FILE
    write_text(path, json.dumps(content(report), ensure_ascii=False, indent=1))
    return path


def read(folder: Path) -> Report | None:
    """Return the report in a folder; None where there is none, or none that this version wrote."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return _report(found) if found["version"] == VERSION else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def with_search(report: Report, before: Report | None) -> Report:
    """Return a report with the search of an earlier one, if that was about the same images."""
    same = before is not None and before.digest == report.digest and before.analysis.full == report.analysis.full
    return replace(report, chosen=before.chosen) if before is not None and same else report


def _cell(cell: Cell) -> dict[str, Any]:
    return {**asdict(cell), "rate": asdict(rate(cell.recall))}


def _report(found: Mapping[str, Any]) -> Report:
    analysis = Analysis(
        tuple(found["blocks"]),
        _read_cell(found["base"]),
        _read_cell(found["full"]),
        {block: _read_cell(cell) for block, cell in found["off"].items()},
        {block: _read_cell(cell) for block, cell in found["alone"].items()},
    )
    chosen = found["chosen"]
    return Report(
        file=found["file"],
        digest=found["digest"],
        family=cast(Family, found["family"]),
        parts=tuple((part["words"], tuple(part["traits"])) for part in found["parts"]),
        prompts=tuple(found["prompts"]),
        controls=tuple(found["controls"]),
        images=found["images"],
        options=BlockOptions(**{**found["options"], "prompts": _texts(found["options"]["prompts"])}),
        analysis=analysis,
        chosen=_read_chosen(chosen) if chosen else None,
    )


def _read_cell(found: Mapping[str, Any]) -> Cell:
    return Cell(
        _texts(found["blocks"]), tuple(found["recall"]), tuple(found["drift"]), found["from_base"], found["from_full"],
        found["traits"], _texts(found["images"]),
    )  # fmt: skip


def _read_chosen(found: Mapping[str, Any]) -> Chosen:
    tried = tuple(
        Tried(_texts(each["blocks"]), each["fresh"], each["share"], tuple(each["recall"])) for each in found["tried"]
    )
    return Chosen(**{**found, "blocks": _texts(found["blocks"]), "tried": tried})


def _texts(found: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(str, found))
