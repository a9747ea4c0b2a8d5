"""Every change that a tool makes to a dataset: recorded before it begins, finished or taken back after a crash, undoable.

In the dataset's own folder lies `.lora-trainer`, hidden from scans:

    journal/000001.json     one entry: its steps and how far it has come
    holding/000001/old/     what the entry replaced or removed; nothing of the user's is ever deleted
    holding/000001/new/     what it is about to write, and after an undo what it had written
    lock                    held while a tool works

Order of events: new contents are written into the holding; the entry is written, with the digests of all contents
before and after; then each step renames one file. So a process that ends at any moment leaves every file old or new,
and whoever opens the journal next finishes the entry, or takes it back where somebody has changed a file meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from dataclasses import replace as changed
from datetime import datetime
from pathlib import Path
from types import TracebackType

from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.base.events import Phase
from lib_lora_trainer.dataset.entries import absolute, is_folder, printable
from lib_lora_trainer.dataset.tools import disk, entries
from lib_lora_trainer.dataset.tools.disk import Files, Identities
from lib_lora_trainer.dataset.tools.entries import Entry, State
from lib_lora_trainer.dataset.tools.lock import locked
from lib_lora_trainer.dataset.tools.operations import Operation
from lib_lora_trainer.dataset.tools.preparing import prepared
from lib_lora_trainer.dataset.tools.steps import LENIENT, Site, Step, condition, inverses, perform, reason, remaining

FOLDER = ".lora-trainer"
_UNFINISHED = ("applying", "redoing", "undoing", "taking back")


@dataclass(frozen=True)
class Held:
    """One original in the holding. path: where it was; file: where it lies now; bytes: its length."""

    entry: int
    path: Path
    file: Path
    bytes: int


class Journal:
    """The journal of one dataset, open for changes: a context manager that only one tool at a time may enter."""

    def __init__(self, root: Path, files: Files | None = None) -> None:
        """root: the dataset's folder; files: makes the changes."""
        self.root = absolute(str(root))
        self.notes: tuple[str, ...] = ()
        self._files = files or Files()
        self._identities = Identities()
        self._folder = self.root / FOLDER
        self._entries: dict[int, Entry] = {}
        self._leaving = ExitStack()

    def __enter__(self) -> Journal:
        """Take the lock and settle what an earlier process left unfinished; `notes` then says what that was.

        Raises RunConflict while another tool works, DataError where the folder cannot be written or its journal read.
        """
        if not is_folder(self.root):
            raise DataError(f"{printable(self.root)}: is no folder. Choose the folder with your pictures.")
        with ExitStack() as entering:
            try:
                for folder in (self._folder, self._folder / "journal", self._folder / "holding"):
                    if not folder.is_dir():
                        self._files.make_folder(folder)
                entering.enter_context(locked(self._folder / "lock", self.root))
                self._entries = {entry.number: entry for entry in entries.read(self._folder / "journal")}
                self.notes = tuple(self._recovered())
            except OSError as error:
                reason = error.strerror or error
                raise DataError(
                    f"{printable(self.root)}: its journal cannot be written: {reason}. Make the folder writable."
                ) from error
            self._leaving = entering.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the lock."""
        self._leaving.close()

    def record(self, tool: str, text: str, operations: Sequence[Operation]) -> Generator[Phase, None, Entry | None]:
        """Do what a tool proposes as one entry and return it; None when nothing had to change.

        text: what was done, for people. Closing the generator before its end changes nothing. Raises DataError when an
        operation cannot be prepared or done; then everything is as it was.
        """
        site = self._site(self._next_number())
        try:
            steps = yield from prepared(operations, site)
        except BaseException:
            self._discard(site.slots)
            raise
        if not steps:
            self._discard(site.slots)
            return None
        now = datetime.now().isoformat(timespec="seconds")
        undone = tuple(number for number, each in self._entries.items() if each.state == "undone")
        entry = self._written(Entry(int(site.slots.name), tool, text, now, "applying", steps, ended=undone))
        return self._through(entry, steps, "applied", "taking back", "rolled back")

    def undo(self) -> Entry:
        """Take the latest entry back and return it. Raises DataError when there is none, or naming a file in the way."""
        entry = entries.undoable(tuple(self._entries.values()))
        if entry is None:
            raise DataError(f"{printable(self.root)}: there is nothing to undo.")
        steps = inverses(entry.steps)
        self._check(steps, self._site(entry.number))
        return self._through(self._written(changed(entry, state="undoing")), steps, "undone", "redoing", "applied")

    def redo(self) -> Entry:
        """Do the entry again that was undone last and return it. Raises as `undo`."""
        entry = entries.redoable(tuple(self._entries.values()))
        if entry is None:
            raise DataError(f"{printable(self.root)}: there is nothing to redo.")
        self._check(entry.steps, self._site(entry.number))
        return self._through(
            self._written(changed(entry, state="redoing")), entry.steps, "applied", "undoing", "undone"
        )

    def held(self) -> tuple[Held, ...]:
        """Return the originals in the holding, the latest entry's first."""
        found: list[Held] = []
        for entry in reversed(self._entries.values()):
            site = self._site(entry.number)
            for step in entry.steps if entry.state != "closed" else ():
                name = {"take": step.slot, "swap": step.held}.get(step.kind, "")
                if name and os.path.lexists(site.slot(name)):
                    size = site.slot(name).lstat().st_size
                    found.append(Held(entry.number, site.at(step.path), site.slot(name), size))
        return tuple(found)

    def empty_holding(self) -> int:
        """Delete everything in the holding for good and return how many bytes that were; nothing can be undone then."""
        freed = sum(path.lstat().st_size for path in self._folder.joinpath("holding").rglob("*") if not path.is_dir())
        for entry in tuple(self._entries.values()):
            if entry.state != "closed":  # first, so that nobody undoes an entry whose originals are half gone
                self._written(changed(entry, state="closed"))
        for slots in sorted(self._folder.glob("holding/*")):
            self._discard(slots)
        return freed

    def _check(self, steps: Sequence[Step], site: Site) -> None:
        """Raise DataError for the first step that cannot be done, before any is.

        Where folders are renamed, one step makes the path of the next, so there each is only looked at in its turn.
        """
        if any(step.kind == "move" and step.digest == disk.FOLDER for step in steps):
            return
        for step in steps:
            try:
                now = condition(step, site)
            except OSError as error:
                raise DataError(_words(error)) from error
            if now != "ready" and step.kind not in LENIENT:
                raise DataError(reason(step, site))

    def _through(self, entry: Entry, steps: Sequence[Step], then: State, back: State, before: State) -> Entry:
        """Do all steps and write the entry with the state `then`; on an error take them back to the state `before`."""
        site = self._site(entry.number)
        error, done = self._performed(steps, site)
        if error is None:
            return self._written(changed(entry, state=then))
        self._written(changed(entry, state=back))
        left = self._settled(inverses(steps[:done]), site)
        self._written(changed(entry, state=before, left=left))
        rest = f"These could not be put back: {' '.join(left)}" if left else "Everything is as it was before."
        raise DataError(f"{_words(error)} {rest}") from error

    def _performed(self, steps: Sequence[Step], site: Site) -> tuple[Exception | None, int]:
        """Do steps up to the first that cannot be done; return the error, None without one, and how many are done."""
        for number, step in enumerate(steps):
            try:
                perform(step, site)
            except (OSError, DataError) as error:
                return error, number
        return None, len(steps)

    def _settled(self, steps: Sequence[Step], site: Site) -> tuple[str, ...]:
        """Do the rest of some steps, as many as can be done, and return why the others cannot."""
        left: list[str] = []
        for step in remaining(steps, site):
            try:
                perform(step, site)
            except (OSError, DataError) as error:
                left.append(_words(error))
        return tuple(left)

    def _recovered(self) -> Iterator[str]:
        """Settle every unfinished entry, remove what never became one, and yield what was done."""
        for leftover in self._folder.glob("journal/.writing-*"):
            self._files.discard(leftover)
        known = tuple(self._entries.values())
        for entry in known:
            if entry.state in _UNFINISHED:
                yield self._finished(entry)
        kept = {f"{entry.number:06d}" for entry in known if entry.state != "closed"}
        closed = {f"{entry.number:06d}" for entry in known} - kept
        for slots in sorted(self._folder.glob("holding/*")):
            # Without an entry it was never more than new contents, unless somebody moved the entry's file away.
            if slots.name in closed or (slots.name not in kept and not any(slots.glob("old/*"))):
                self._discard(slots)

    def _finished(self, entry: Entry) -> str:
        """Bring an entry that was cut off to an end, and return what became of it."""
        site, name = self._site(entry.number), f"{entry.tool} ({entry.text})"
        if entry.state in ("applying", "redoing"):
            rest = remaining(entry.steps, site)
            error, done = self._performed(rest, site)
            if error is None:
                self._written(changed(entry, state="applied"))
                return f"{name} was interrupted and is finished now."
            first = entry.state == "applying"
            self._written(changed(entry, state="taking back" if first else "undoing"))
            left = self._settled(inverses(entry.steps[: len(entry.steps) - len(rest) + done]), site)
            self._written(changed(entry, state="rolled back" if first else "undone", left=left))
            return f"{name} was interrupted and is taken back. {' '.join((_words(error), *left))}"
        left = self._settled(inverses(entry.steps), site)
        self._written(changed(entry, state="undone" if entry.state == "undoing" else "rolled back", left=left))
        return " ".join((f"{name} was interrupted while it was taken back, which is finished now.", *left))

    def _next_number(self) -> int:
        held = [int(path.name) for path in self._folder.glob("holding/*") if path.name.isdecimal()]
        return max([*self._entries, *held], default=0) + 1

    def _site(self, number: int) -> Site:
        return Site(self.root, self._folder / "holding" / f"{number:06d}", self._files, self._identities)

    def _written(self, entry: Entry) -> Entry:
        path = self._folder / "journal" / f"{entry.number:06d}.json"
        try:
            self._files.write(path, entries.to_json(entry))
        except OSError as error:
            text = f"{printable(path)}: cannot be written: {error.strerror or error}."
            raise DataError(f"{text} Make room on the drive, then start any tool: it settles what is left.") from error
        self._entries[entry.number] = entry
        return entry

    def _discard(self, folder: Path) -> None:
        """Delete a folder of the journal's own with everything in it."""
        if not folder.is_dir():
            return
        for path in sorted(folder.iterdir()):
            if path.is_dir() and not path.is_symlink():
                self._discard(path)
            else:
                self._files.discard(path)
        self._files.drop_folder(folder)


def history(root: Path) -> tuple[Entry, ...]:
    """Return the entries of a dataset's journal, oldest first, without opening it for changes."""
    return entries.read(absolute(str(root)) / FOLDER / "journal")


def unfinished(root: Path) -> bool:
    """Tell whether an entry was cut off, which whoever opens the journal next settles."""
    return any(entry.state in _UNFINISHED for entry in history(root))


def _words(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or 'The disk'}: {error.strerror or error}."
    return str(error)
