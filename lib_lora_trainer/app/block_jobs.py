"""Which blocks matter, as generators of events: what would be made, the analysis, and the search for the smallest set.

`draft` ends with a Draft and makes no image; `analyse` and `search` end with Analysed, having written blocks.json,
blocks.html and a sheet. Images and what the tagger says of them are named by what they are made from: work that is
stopped goes on there the next time, and the search takes over the analysis.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from lib_lora_trainer.app import block_search, block_sets, pick_dataset
from lib_lora_trainer.app.block_bench import Bench, Counted
from lib_lora_trainer.app.block_sets import FileBlocks
from lib_lora_trainer.app.pick_dataset import Surveyed
from lib_lora_trainer.app.pick_jobs import PickRequest
from lib_lora_trainer.app.relay import relay
from lib_lora_trainer.app.threaded import Stopped
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ProblemsFound
from lib_lora_trainer.base.events import Event, Finished, Note, Planned
from lib_lora_trainer.base.setting import range_problems
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.evaluate import blocks, blocks_options, blocks_page, blocks_report, pick_files
from lib_lora_trainer.evaluate.blocks import Analysis, Cell, Reference
from lib_lora_trainer.evaluate.blocks_options import BlockOptions, Shots
from lib_lora_trainer.evaluate.blocks_report import Report
from lib_lora_trainer.evaluate.grid_studio import Studio
from lib_lora_trainer.evaluate.pick_files import AdapterFile
from lib_lora_trainer.evaluate.pick_options import PickOptions, usual_side
from lib_lora_trainer.evaluate.pick_store import Store, writing
from lib_lora_trainer.tagging import scores, wd14
from lib_lora_trainer.tagging.models import Found

PAGE, SHEET = "blocks.html", "blocks.png"


@dataclass(frozen=True)
class BlocksRequest:
    """What is tried. file: the adapter; config: of its run, for the dataset and the triggers; folder: for the results.

    traits: what the trigger has to bring, or none for what follows from `before`, a folder with the captions before
    pruning, or from the pictures. device: where the tagger computes.
    """

    file: Path
    config: RunConfig
    tagger: Found
    folder: Path
    traits: tuple[str, ...] = ()
    before: Path | None = None
    options: BlockOptions = field(default_factory=BlockOptions)
    device: str = "cpu"


@dataclass(frozen=True)
class Draft:
    """What an analysis would make. images: of it; missing: those that are not kept from an earlier one."""

    file: AdapterFile
    inside: FileBlocks
    surveyed: Surveyed
    shots: Shots
    images: int
    missing: int

    @property
    def sets(self) -> tuple[frozenset[str], ...]:
        """The sets of blocks of the analysis: none, all, and each block off and alone."""
        every = frozenset(self.inside.names)
        singles = [each for block in self.inside.names for each in (every - {block}, frozenset({block}))]
        return tuple(dict.fromkeys((frozenset(), every, *singles)))

    def lines(self) -> tuple[str, ...]:
        """Return it in words."""
        names, per_set = self.inside.names, len(self.shots.recall)
        steps = math.ceil(math.log2(max(2, len(names))))
        asked = [
            f"{', '.join(part.words)} has to bring {', '.join(part.traits)} ({part.pictures} pictures)"
            for part in self.surveyed.subject.parts
        ]
        outside = ("Layers in no block (time embedding, output) act in every image.",) if self.inside.outside else ()
        return (
            f"{self.file.label}: {len(names)} blocks, {', '.join(names)}, each off and alone, and all and none: "
            f"{len(self.sets)} sets of {len(self.shots.all)} images, {self.images} images, {self.missing} still to be made",
            f"the search for the smallest set then makes {per_set} images for each further set, of which it tries "
            f"{steps + 2} to about {steps + 2 * len(names)}",
            *asked,
            *outside,
        )


@dataclass(frozen=True)
class Analysed:
    """The result, with the smallest set where it was searched for; page, sheet: what was written beside blocks.json."""

    report: Report
    path: Path
    page: Path
    sheet: Path
    images: int


Further = Callable[[Bench, BlocksRequest, Draft, Report], Generator[Event, None, Report]]
"""Work after the analysis; returns the report with what it adds."""


def draft(studio: Studio, request: BlocksRequest, control: Control) -> Iterator[Event | Draft]:
    """Look at the file and the dataset; the last value is a Draft, or Finished when stopped.

    Raises ProblemsFound for impossible options and whatever the studio cannot make, or when there is nothing to look
    for, ConfigError, DataError for a file that cannot be read, HostRefusal.
    """
    found = range_problems(request.options)
    if found:
        raise ProblemsFound(tuple(found))
    file = pick_files.ordered((request.file,))[0]
    inside = block_sets.of_file(file.path, studio.family())
    asked = PickOptions(images=2 * request.options.count)  # some scenes have no tags, and are not used
    survey = PickRequest(
        (file.path,), request.config, request.tagger, request.folder, request.traits, request.before, asked
    )
    try:
        with wd14.opened(request.tagger, request.device) as tagger:
            surveyed = yield from pick_dataset.survey(survey, tagger, _store(request), control)
    except Stopped:
        yield Finished("stopped", 0, (), 0.0)
        return
    shots = blocks_options.shots(surveyed.subject, request.options)
    made = Draft(file, inside, surveyed, shots, 0, 0)
    bench = _bench(studio, request, made, control)
    refused = studio.problems([bench.scene(inside.names, shots.recall[0])])
    if refused:
        raise ProblemsFound(tuple(refused))
    names = {bench.name(chosen, shot) for chosen in made.sets for shot in shots.all}
    missing = sum(not _store(request).image(name).is_file() for name in names)
    yield replace(made, images=len(names), missing=missing)


def analyse(studio: Studio, request: BlocksRequest, control: Control) -> Iterator[Event | Analysed]:
    """Measure each block off and alone; the last value is Analysed, or Finished when stopped or paused.

    Raises as `draft`, and DataError for a folder that cannot be written. Closing the generator gives the model back.
    """
    return _worked(studio, request, control, _as_it_is)


def search(studio: Studio, request: BlocksRequest, control: Control) -> Iterator[Event | Analysed]:
    """Analyse, and look for the smallest set of blocks that keeps enough; what is kept of the analysis is not repeated.

    The last value is Analysed with `report.chosen`, None where the adapter adds nothing to the recall, or Finished when
    stopped or paused. Raises as `analyse`.
    """
    return _worked(studio, request, control, _with_smallest)


def _worked(studio: Studio, request: BlocksRequest, control: Control, further: Further) -> Iterator[Event | Analysed]:
    """Analyse, and do what is further wanted with the report."""
    started = time.monotonic()
    made = yield from relay(draft(studio, request, control), Draft)
    if made is None:
        return  # stopped, which was told
    for problem in made.surveyed.problems:
        yield Note(problem.severity, str(problem))
    yield Planned("blocks", made.lines(), made.missing, 0, 0)
    bench = _bench(studio, request, made, control)
    try:
        with wd14.opened(request.tagger, request.device) as tagger, bench.at_work(tagger):
            report = yield from _analysed(bench, request, made)
            _write(request, report)
            report = yield from further(bench, request, made, report)
    except Stopped:
        yield Note("note", "Not complete. Start again to go on: what was made is kept.")
        reason: Literal["stopped", "paused"] = "paused" if control.wish == "pause" else "stopped"
        yield Finished(reason, bench.images, (), time.monotonic() - started)
        return
    folder = request.folder
    yield Note("note", f"wrote {folder / PAGE}")
    yield Analysed(report, folder / blocks_report.FILE, folder / PAGE, folder / SHEET, bench.images)


def _analysed(bench: Bench, request: BlocksRequest, made: Draft) -> Generator[Event, None, Report]:
    """Measure every set of the analysis. Raises Stopped on the user's wish."""
    shots, none, every = made.shots.all, frozenset[str](), frozenset(made.inside.names)
    counted = Counted("measuring the blocks", len(made.sets) * len(shots), made.missing)
    base = yield from bench.measured(none, shots, counted)
    full = yield from bench.measured(every, shots, replace(counted, done=len(shots)))
    images = [tuple(each.image for each in seen) for seen in (base, full)]
    to = Reference(made.surveyed.looking, images[0], images[1])

    def cell(chosen: frozenset[str], seen: Sequence[blocks.Seen]) -> Cell:
        names = [bench.name(chosen, shot) for shot in shots]
        return blocks.cell([block for block in made.inside.names if block in chosen], shots, seen, names, to)

    cells = {none: cell(none, base), every: cell(every, full)}
    for chosen in made.sets:
        if chosen not in cells:
            now = replace(counted, done=len(cells) * len(shots))
            cells[chosen] = cell(chosen, (yield from bench.measured(chosen, shots, now)))
    analysis = Analysis(
        made.inside.names,
        cells[none],
        cells[every],
        {block: cells[every - {block}] for block in made.inside.names},
        {block: cells[frozenset({block})] for block in made.inside.names},
    )
    parts = tuple((", ".join(part.words), tuple(part.traits)) for part in made.surveyed.subject.parts)
    report = Report(
        file=made.file.label,
        digest=made.file.digest,
        family=made.inside.family,
        parts=parts,
        prompts=tuple(dict.fromkeys(shot.prompt for shot in made.shots.recall)),
        controls=tuple(dict.fromkeys(shot.prompt for shot in made.shots.drift)),
        images=len(shots),
        options=request.options,
        analysis=analysis,
    )
    return blocks_report.with_search(report, blocks_report.read(request.folder))


def _as_it_is(_: Bench, __: BlocksRequest, ___: Draft, report: Report) -> Generator[Event, None, Report]:
    yield from ()
    return report


def _with_smallest(bench: Bench, request: BlocksRequest, made: Draft, report: Report) -> Generator[Event, None, Report]:
    chosen = yield from block_search.searched(
        bench, made.inside, made.shots, report.analysis, made.surveyed.looking, request.options.keep
    )
    found = replace(report, chosen=chosen)
    _write(request, found)
    return found


def _write(request: BlocksRequest, report: Report) -> None:
    with writing(request.folder):
        blocks_report.write(request.folder, report)
        blocks_page.write(request.folder / PAGE, report)
        blocks_page.write_sheet(request.folder / SHEET, report, _store(request))


def _store(request: BlocksRequest) -> Store:
    return Store(request.folder, scores.identity(request.tagger))


def _bench(studio: Studio, request: BlocksRequest, made: Draft, control: Control) -> Bench:
    sized = replace(request.options, side=request.options.side or usual_side(request.config.data))
    return Bench(studio, made.file, made.inside, sized, _store(request), control)
