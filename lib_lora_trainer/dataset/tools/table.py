"""Every tool that proposes changes to a dataset, by name. Their options: see `options`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.items import Scan
from lib_lora_trainer.dataset.journal import Held, Journal
from lib_lora_trainer.dataset.tools import (
    alpha,
    arrange,
    convert,
    framing,
    mask_check,
    mask_generate,
    mask_import,
    pad,
    selection,
    trim,
    upscale,
)
from lib_lora_trainer.dataset.tools.members import Dataset
from lib_lora_trainer.dataset.tools.operations import Proposal
from lib_lora_trainer.dataset.tools.options import Empty, FileOptions, UpscaleOptions


@dataclass(frozen=True)
class Tool:
    """One tool. title: begins the journal's text; plan: gives its proposals, its options last; scans: needs a scan."""

    title: str
    plan: Callable[[Dataset, Scan | None, Any], Iterator[Proposal]]
    scans: bool = False


def _scanless(plan: Callable[[Dataset, Any], Iterator[Proposal]]) -> Callable[..., Iterator[Proposal]]:
    return lambda dataset, _scan, options: plan(dataset, options)


def _files(dataset: Dataset, _: Scan | None, options: FileOptions) -> Iterator[Proposal]:
    paths, to = [Path(file) for file in options.files], Path(options.to)
    if options.action == "move":
        return selection.move_to(dataset, paths, to)
    if options.action == "copy":
        return selection.copy_to(dataset, paths, to)
    if options.action == "include":
        return selection.include(dataset, [dataset.root / path for path in paths])
    if options.action == "remove":
        return selection.remove_all(dataset, paths)
    if options.action == "restore":
        return selection.restore(_held(dataset, [dataset.root / path for path in paths]))
    return selection.exclude(dataset, paths)


def _held(dataset: Dataset, paths: Sequence[Path]) -> list[Held]:
    """Return the latest original in the holding for each path. Raises DataError naming one that is not there."""
    with Journal(dataset.root) as journal:
        latest = {held.path: held for held in reversed(journal.held())}
    for path in paths:
        if path not in latest:
            raise DataError(f"{printable(path)}: no original of it is in the holding.")
    return [latest[path] for path in dict.fromkeys(paths)]


def _upscaled(dataset: Dataset, found: Scan | None, options: UpscaleOptions) -> Iterator[Proposal]:
    assert found is not None
    return upscale.plan(dataset, found, options)


def _sorted(dataset: Dataset, found: Scan | None, _: Empty) -> Iterator[Proposal]:
    assert found is not None
    return arrange.by_bucket(dataset, found)


def _flattened(dataset: Dataset, _found: Scan | None, _: Empty) -> Iterator[Proposal]:
    return arrange.flattened(dataset)


TOOLS: Mapping[str, Tool] = {
    "convert": Tool("Converted to PNG", _scanless(convert.plan)),
    "flatten-alpha": Tool("Laid transparency over a colour", _scanless(alpha.plan)),
    "trim": Tool("Trimmed borders", _scanless(trim.plan)),
    "pad": Tool("Padded to squares", _scanless(pad.plan)),
    "crop": Tool("Cropped to framings", _scanless(framing.plan)),
    "upscale": Tool("Enlarged", _upscaled, scans=True),
    "sort": Tool("Sorted by bucket", _sorted, scans=True),
    "flatten": Tool("Flattened folders", _flattened),
    "mask": Tool("Rejected masks", _scanless(mask_check.plan)),
    "mask-import": Tool("Took over masks", _scanless(mask_import.plan)),
    "mask-generate": Tool("Made masks", _scanless(mask_generate.plan)),
    "files": Tool("Chosen files", _files),
}
