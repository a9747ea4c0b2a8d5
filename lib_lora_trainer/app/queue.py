"""The runner: trains one run after another in a thread of its own, and lets any number of browsers watch."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from lib_lora_trainer.app import runs
from lib_lora_trainer.app.projects import Project
from lib_lora_trainer.app.runs import RunState
from lib_lora_trainer.app.work import Train, Work, failure
from lib_lora_trainer.base import files
from lib_lora_trainer.base.errors import RunConflict
from lib_lora_trainer.base.events import Event, Failed, Note
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.hosts.api import Host

__all__ = ["Runner", "Status", "Train", "Waiting", "failure"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Waiting:
    """A run that has not begun. waiting: its id on the project's list; name: the adapter's.

    queued: whether this process will begin it by itself; else it was left by an earlier one and `go_on` begins it.
    """

    project: Project
    waiting: str
    name: str
    queued: bool


@dataclass(frozen=True)
class Status:
    """What the runner is doing, or did last. busy: a thread is working on the run now.

    waiting: what this process will begin afterwards, the next one first; while the run is paused, not before the pause
    is over.
    """

    project: Project
    run: str
    state: RunState
    busy: bool
    waiting: tuple[Waiting, ...] = ()


@dataclass(frozen=True)
class _Entry:
    host: Host
    project: Project
    waiting: str
    config: RunConfig

    @property
    def shown(self) -> Waiting:
        return Waiting(self.project, self.waiting, self.config.name, queued=True)


class Runner:
    """At most one run at a time, in a daemon thread, and a queue of others; journals and queue are on disk.

    When a run has ended, done, stopped or failed, the next one begins: a failed run never stops the queue, and the next
    run's journal says that it failed. A pause gives the model back, so nothing begins until the paused run is resumed
    or stopped, another one is started, or `go_on` is called. After the process has ended the waiting runs of a project
    are still listed, and begin when `go_on` is called, never by themselves.
    """

    def __init__(self, train: Train) -> None:
        self._train = train
        self._lock = threading.Lock()
        self._current: Work | None = None
        self._queue: list[_Entry] = []
        self._thread: threading.Thread | None = None

    def start(self, host: Host, project: Project, config: RunConfig) -> str:
        """Begin a new run and return its id. Raises RunConflict while another run is in work."""
        with self._lock:
            self._refuse_when_busy()
            run = runs.create(project, config, datetime.now())
            self._begin(Work(host, project, run, config))
        return run

    def resume(self, host: Host, project: Project, run: str) -> None:
        """Continue a run that was paused, stopped, interrupted or failed, from its last saved state.

        Raises RunConflict while another run is in work, ConfigError for an unknown run.
        """
        with self._lock:
            self._refuse_when_busy()
            self._begin(Work(host, project, run, runs.configuration(project, run)))

    def add(self, host: Host, project: Project, configs: Sequence[RunConfig]) -> tuple[Waiting, ...]:
        """Append new runs to the queue and return them; the first begins at once if nothing is in work or paused.

        Raises ConfigError for an impossible name, with nothing appended.
        """
        for config in configs:
            files.check_name(config.name, "name")
        with self._lock:
            added = [_Entry(host, project, runs.enlist(project, config), config) for config in configs]
            self._queue += added
            if self._current is None or not (self._current.busy or self._current.state == "paused"):
                self._begin_next()
        return tuple(entry.shown for entry in added)

    def go_on(self, host: Host, project: Project) -> None:
        """Take up what an earlier process left waiting in a project, and begin the next run if none is in work.

        It also ends the wait for a paused run, which stays paused. Raises ConfigError, or ProblemsFound, naming the file
        of a waiting run that cannot be read, with nothing taken up.
        """
        with self._lock:
            known = {entry.waiting for entry in self._queue if entry.project == project}
            self._queue += [
                _Entry(host, project, waiting, runs.enlisted_configuration(project, waiting))
                for waiting in runs.enlisted(project)
                if waiting not in known
            ]
            if self._current is None or not self._current.busy:
                self._begin_next()

    def waiting(self, project: Project | None = None) -> tuple[Waiting, ...]:
        """Return what waits, in the order of its beginning; of a project also what an earlier process left."""
        with self._lock:
            queued = tuple(entry.shown for entry in self._queue if project in (None, entry.project))
        if project is None:
            return queued
        known = {entry.waiting for entry in queued}
        left = (waiting for waiting in runs.enlisted(project) if waiting not in known)
        return (*queued, *(Waiting(project, waiting, waiting.partition("-")[2], queued=False) for waiting in left))

    def clear(self, project: Project | None = None) -> tuple[Waiting, ...]:
        """Remove all waiting runs, or those of one project with what an earlier process left, and return them."""
        removed = self.waiting(project)
        for entry in removed:
            self.remove(entry.project, entry.waiting)
        return removed

    def remove(self, project: Project, waiting: str) -> None:
        """Remove one waiting run; one that has begun meanwhile goes on."""
        with self._lock:
            self._queue = [entry for entry in self._queue if (entry.project, entry.waiting) != (project, waiting)]
            runs.strike(project, waiting)

    def pause(self) -> None:
        """Ask the run in work to save its state and give the model back; the queue waits until the pause is over."""
        with self._lock:
            if self._current is not None and self._current.busy:
                self._current.control.ask("pause")

    def stop(self) -> None:
        """Ask the run to save its files and end; a paused one is taken up once more for that. The queue goes on."""
        with self._lock:
            work = self._current
            if work is None:
                return
            if not work.busy and work.state == "paused":
                work = Work(work.host, work.project, work.run, work.config)
                work.control.ask("stop")
                self._begin(work)
            work.control.ask("stop")

    def status(self) -> Status | None:
        """Return what is in work, or the run that ended last in this process; None when there was none."""
        with self._lock:
            work = self._current
            if work is None:
                return None
            return Status(work.project, work.run, work.state, work.busy, tuple(entry.shown for entry in self._queue))

    def events(self, project: Project, run: str, since: int = 0) -> list[Event]:
        """Return the events of a run from number `since` on, also of runs of earlier processes."""
        with self._lock:
            work = self._current
        if work is not None and work.run == run and work.project == project:
            return work.events[since:]
        return runs.read_events(runs.folder_of(project, run))[since:]

    def history(self, project: Project) -> tuple[runs.Summary, ...]:
        """Return a line per run of a project, newest first, the one in work included."""
        status = self.status()
        lines = (runs.summary(project, run) for run in runs.identifiers(project))
        if status is None or status.project != project:
            return tuple(lines)
        return tuple(replace(line, state=status.state) if line.run == status.run else line for line in lines)

    def wait(self, seconds: float | None = None) -> None:
        """Wait until nothing is in work, the queue included, at most `seconds`."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def _refuse_when_busy(self) -> None:
        if self._current is not None and self._current.busy:
            raise RunConflict(
                f"{self._current.config.name} of project {self._current.project.name} is training. "
                "Wait until it has ended, or pause or stop it first."
            )

    def _begin(self, work: Work) -> None:
        self._current = work
        self._thread = threading.Thread(target=self._work, args=(work,), name=f"lora-trainer {work.run}", daemon=True)
        self._thread.start()

    def _begin_next(self) -> None:
        work = self._next()
        if work is not None:
            self._begin(work)

    def _next(self) -> Work | None:
        """Return the next run of the queue that can begin, as a run with a folder; the caller holds the lock."""
        while self._queue:
            entry = self._queue.pop(0)
            try:
                run = runs.begin(entry.project, entry.waiting, datetime.now())
                if run is not None:  # else somebody else removed or began it
                    return Work(entry.host, entry.project, run, entry.config)
            except OSError as error:  # it stays on the project's list
                logger.warning("%s of %s cannot begin: %s", entry.waiting, entry.project.name, error)
        return None

    def _work(self, work: Work) -> None:
        current: Work | None = work
        while current is not None:
            try:
                current.do(self._train)
            except BaseException:
                with self._lock:
                    current.busy = False
                raise
            current = self._after(current)

    def _after(self, ended: Work) -> Work | None:
        """End a run and return the one that follows it, already in work; None when the queue is empty or held."""
        with self._lock:
            ended.busy = False
            following = None if ended.control.wish == "pause" else self._next()
            if following is not None:
                self._current = following
                if isinstance(ended.events[-1], Failed):
                    text = f"{ended.config.name}, the run before this one, failed: {ended.events[-1].error}"
                    following.told.append(Note("warning", text))
            return following
