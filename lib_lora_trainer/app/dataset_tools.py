"""What a user wants done to a dataset, as generators of events: look first, then do it, and take it back.

`draft` ends with a `Draft`, which says what would be done and changes nothing; `apply` does it. The last event of
everything else is Finished; a wish to stop is granted between two pictures, and leaves every file as it was.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from lib_lora_trainer.app.threaded import Report, Stopped, reported
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import DataError, Problem, ProblemsFound
from lib_lora_trainer.base.events import Event, Finished, Note, Phase
from lib_lora_trainer.base.setting import range_problems
from lib_lora_trainer.config.data import DataConfig
from lib_lora_trainer.dataset import balance as balancing
from lib_lora_trainer.dataset.balance import Balance
from lib_lora_trainer.dataset.entries import absolute, printable
from lib_lora_trainer.dataset.items import Scan
from lib_lora_trainer.dataset.journal import FOLDER, Held, Journal, history, unfinished
from lib_lora_trainer.dataset.scan import scan
from lib_lora_trainer.dataset.tools import bucket_report, monochrome
from lib_lora_trainer.dataset.tools.bucket_report import BucketReport
from lib_lora_trainer.dataset.tools.disk import Files
from lib_lora_trainer.dataset.tools.entries import Entry, redoable, undoable
from lib_lora_trainer.dataset.tools.members import Dataset, gather, narrowed
from lib_lora_trainer.dataset.tools.operations import Operation, Proposal, operations_of
from lib_lora_trainer.dataset.tools.options import Empty, Goal
from lib_lora_trainer.dataset.tools.table import TOOLS

Result = TypeVar("Result")
Steps = Generator[Event, None, Result]


@dataclass(frozen=True)
class Request:
    """What a draft is about: a source of the settings, and the tool's options.

    found: a scan of all sources, for tools that need one; made if absent. only: the pictures it is about, by absolute
    path; None for all of the source.
    """

    data: DataConfig
    options: Any = field(default_factory=Empty)
    index: int = 0
    triggers: tuple[str, ...] = ()
    found: Scan | None = None
    only: tuple[Path, ...] | None = None


@dataclass(frozen=True)
class Draft:
    """What a tool would do to a dataset; text: in words, for the journal."""

    tool: str
    text: str
    root: Path
    proposals: tuple[Proposal, ...]

    @property
    def operations(self) -> tuple[Operation, ...]:
        """All of its operations, in order."""
        return operations_of(self.proposals)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """All of its problems, each once."""
        return tuple(dict.fromkeys(problem for proposal in self.proposals for problem in proposal.problems))


def draft(tool: str, request: Request, control: Control) -> Iterator[Event | Draft]:
    """Look at a source's pictures and say what a tool would do; the last value is the Draft, or Finished when stopped.

    What an interrupted tool left is settled first. Raises ProblemsFound for impossible options or folders, and
    DataError when there is no picture to look at, or when folders are to be flattened for some of their pictures alone.
    """
    chosen = TOOLS[tool]
    problems = range_problems(request.options)
    if problems:
        raise ProblemsFound(tuple(problems))
    yield from recover(Path(request.data.sources[request.index].path))
    if tool == "flatten" and request.only is not None:
        raise DataError("Folders are flattened as a whole. Choose all pictures of the folder.")
    dataset = gathered(request, nothing_is_fine=tool == "files")
    found = request.found
    try:
        if chosen.scans and found is None:
            found = yield from _scanned(request.data, request.triggers, control)
        proposals = yield from _counted(chosen.plan(dataset, found, request.options), len(dataset.members), control)
    except Stopped:
        yield Finished("stopped", 0, (), 0.0)
        return
    if tool == "upscale" and request.options.upscaler is None and any(each.operations for each in proposals):
        text = "Lanczos enlarges without adding detail. In the WebUI, one of its upscalers does more."
        yield Note("note", text)
    changed = sum(bool(each.operations) for each in proposals)
    yield Draft(tool, f"{chosen.title}: {changed} of {len(proposals)}", dataset.root, tuple(proposals))


def gathered(request: Request, *, nothing_is_fine: bool = False) -> Dataset:
    """Return the source of a request with the pictures that it is about. Raises DataError when there are none."""
    dataset = gather(request.data, request.index)
    if not dataset.members and not nothing_is_fine:
        raise DataError(f"{printable(dataset.root)}: contains no pictures. Choose a folder with pictures.")
    if request.only is None:
        return dataset
    chosen = narrowed(dataset, request.only)
    if not chosen.members and not nothing_is_fine:
        text = f"{printable(dataset.root)}: none of the {len(request.only)} selected pictures lies in this folder."
        raise DataError(f"{text} Select some of its pictures, or choose the folder they lie in.")
    return chosen


def draft_balance(balance: Balance, data: DataConfig, index: int) -> Draft:
    """Return what renaming the folders of one source to the proposed repeats would do."""
    dataset = gather(data, index)
    proposals = tuple(balancing.plan(balance, dataset))
    changed = sum(bool(each.operations) for each in proposals)
    return Draft("balance", f"Balanced repeats: {changed} of {len(proposals)} folders", dataset.root, proposals)


def apply(draft: Draft, control: Control, files: Files | None = None) -> Iterator[Event]:
    """Do what a draft says, through the dataset's journal; files in Finished are those written.

    Raises RunConflict while another tool works on the dataset, DataError when something cannot be done; then everything
    is as it was.
    """
    started = time.monotonic()
    if not draft.operations:
        yield Note("note", "Nothing has to be changed.")
        yield Finished("done", 0, (), 0.0)
        return
    with Journal(draft.root, files) as journal:
        yield from (Note("warning", text) for text in journal.notes)
        with closing(journal.record(draft.tool, draft.text, draft.operations)) as recording:
            while True:
                try:
                    phase = next(recording)
                except StopIteration as ended:
                    entry = ended.value
                    break
                yield phase
                if control.wish != "go":
                    recording.close()
                    yield Finished("stopped", 0, (), time.monotonic() - started)
                    return
    written = [printable(each.path) for each in draft.operations if each.kind in ("write", "replace")]
    yield Finished("done", entry.files if entry else 0, tuple(written), time.monotonic() - started)


def undo(root: Path, files: Files | None = None) -> Iterator[Event]:
    """Take the latest change of a dataset back. Raises DataError naming a file that was changed meanwhile."""
    yield from _stepped(root, "undo", files)


def redo(root: Path, files: Files | None = None) -> Iterator[Event]:
    """Do the change that was undone last again. Raises as `undo`."""
    yield from _stepped(root, "redo", files)


def _stepped(root: Path, direction: Literal["undo", "redo"], files: Files | None) -> Iterator[Event]:
    started = time.monotonic()
    with Journal(root, files) as journal:
        yield from (Note("warning", text) for text in journal.notes)
        entry = journal.undo() if direction == "undo" else journal.redo()
    done = "Taken back" if direction == "undo" else "Done again"
    yield Note("note", f"{done}: {entry.text} ({entry.time}).")
    yield Finished("done", entry.files, (), time.monotonic() - started)


def recover(root: Path) -> Iterator[Note]:
    """Settle what an interrupted tool left in a dataset, and say what that was; quick when there is nothing."""
    if unfinished(root):
        with Journal(root) as journal:
            yield from (Note("warning", text) for text in journal.notes)


def empty_holding(root: Path) -> Iterator[Event]:
    """Delete a dataset's replaced originals for good; nothing done until now can be undone then."""
    entries = len(history(root))
    with Journal(root) as journal:
        freed = journal.empty_holding()
    yield Note("note", f"{freed / 1e6:.1f} MB of originals are deleted.")
    yield Finished("done", entries, (), 0.0)


def held(root: Path) -> tuple[Held, ...]:
    """Return the originals in a dataset's holding, the latest first; looks, and settles what was interrupted."""
    if not history(root):
        return ()
    with Journal(root) as journal:
        return journal.held()


def holding_size(root: Path) -> int:
    """Return how many bytes a dataset's holding takes."""
    folder = absolute(str(root)) / FOLDER / "holding"
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def next_to(direction: Literal["undo", "redo"], root: Path) -> Entry | None:
    """Return the change that would be taken back, or done again, next; None when there is none."""
    return undoable(history(root)) if direction == "undo" else redoable(history(root))


def look(request: Request, control: Control) -> Iterator[Event | Scan]:
    """Scan all sources; the last value is the Scan, or Finished when stopped."""
    try:
        found = yield from _scanned(request.data, request.triggers, control)
    except Stopped:
        yield Finished("stopped", 0, (), 0.0)
        return
    yield found


def buckets(request: Request, control: Control) -> Iterator[Event | BucketReport]:
    """Say where training puts every picture; the last value is the report, or Finished when stopped."""
    try:
        found = request.found or (yield from _scanned(request.data, request.triggers, control))
    except Stopped:
        yield Finished("stopped", 0, (), 0.0)
        return
    yield bucket_report.report(found, request.data)


def balance(request: Request, control: Control) -> Iterator[Event | Balance]:
    """Propose repeats for all sources, options being the Goal, and look for monochrome pictures.

    The last value is the Balance, its problems with those about monochrome; or Finished when stopped.
    """
    goal: Goal = request.options
    problems = [*range_problems(goal), *balancing.grade_problems(goal)]
    if problems:
        raise ProblemsFound(tuple(problems))
    try:
        found = request.found or (yield from _scanned(request.data, request.triggers, control))
        flags = dict((yield from _counted(monochrome.looked_at(found), len(found.items), control)))
    except Stopped:
        yield Finished("stopped", 0, (), 0.0)
        return
    proposed = balancing.propose(found, goal, request.triggers)
    grey = monochrome.problems(monochrome.shares(found, flags))
    yield Balance(proposed.rows, proposed.totals, (*proposed.problems, *grey))


def _counted(values: Iterator[Result], total: int, control: Control) -> Steps[list[Result]]:
    found: list[Result] = []
    for value in values:
        found.append(value)
        yield Phase("looking at pictures", min(len(found), total), total)
        if control.wish != "go":
            raise Stopped
    return found


def _scanned(data: DataConfig, triggers: tuple[str, ...], control: Control) -> Steps[Scan]:
    """Scan in a thread, so that its progress can be told while it goes on."""

    def work(report: Report) -> Scan:
        return scan(data, triggers, partial(report, "reading pictures"))

    return (yield from reported(work, control, "scan"))
