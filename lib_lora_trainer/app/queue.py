"""The runner: trains in a thread of its own, keeps what happened, and lets any number of browsers watch."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TextIO

from lib_lora_trainer.app import runs
from lib_lora_trainer.app.jobs import RunPaths
from lib_lora_trainer.app.projects import Project
from lib_lora_trainer.app.runs import RunState
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ProblemsFound, RunConflict, TrainerError
from lib_lora_trainer.base.events import Event, Failed, Finished, to_json
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.hosts.api import Host

Train = Callable[[Host, RunConfig, RunPaths, Control], Iterator[Event]]


@dataclass(frozen=True)
class Status:
    """What the runner is doing, or did last. busy: a thread is working on the run now."""

    project: Project
    run: str
    state: RunState
    busy: bool


class _Job:
    """One run in work, from its start or its resumption until its last event."""

    def __init__(self, host: Host, project: Project, run: str, config: RunConfig) -> None:
        self.host = host
        self.project = project
        self.run = run
        self.config = config
        self.folder = runs.folder_of(project, run)
        self.control = Control()
        self.events = runs.read_events(self.folder)
        self.busy = True


class Runner:
    """At most one run at a time, in a daemon thread; its journal is on disk, so it outlives the process."""

    def __init__(self, train: Train) -> None:
        self._train = train
        self._lock = threading.Lock()
        self._job: _Job | None = None
        self._thread: threading.Thread | None = None

    def start(self, host: Host, project: Project, config: RunConfig) -> str:
        """Begin a new run and return its id. Raises RunConflict while another run is in work."""
        with self._lock:
            self._refuse_when_busy()
            run = runs.create(project, config, datetime.now())
            self._begin(_Job(host, project, run, config))
        return run

    def resume(self, host: Host, project: Project, run: str) -> None:
        """Continue a run that was paused, stopped, interrupted or failed, from its last saved state.

        Raises RunConflict while another run is in work, ConfigError for an unknown run.
        """
        with self._lock:
            self._refuse_when_busy()
            self._begin(_Job(host, project, run, runs.configuration(project, run)))

    def pause(self) -> None:
        """Ask the run in work to save its state and give the model back."""
        with self._lock:
            if self._job is not None and self._job.busy:
                self._job.control.ask("pause")

    def stop(self) -> None:
        """Ask the run to save its files and end; a paused one is taken up once more for that."""
        with self._lock:
            job = self._job
            if job is None:
                return
            if not job.busy and _state(job) == "paused":
                job = _Job(job.host, job.project, job.run, job.config)
                job.control.ask("stop")
                self._begin(job)
            job.control.ask("stop")

    def status(self) -> Status | None:
        """Return what is in work, or the run that ended last in this process; None when there was none."""
        with self._lock:
            job = self._job
            return None if job is None else Status(job.project, job.run, _state(job), job.busy)

    def events(self, project: Project, run: str, since: int = 0) -> list[Event]:
        """Return the events of a run from number `since` on, also of runs of earlier processes."""
        with self._lock:
            job = self._job
        if job is not None and job.run == run and job.project == project:
            return job.events[since:]
        return runs.read_events(runs.folder_of(project, run))[since:]

    def history(self, project: Project) -> tuple[runs.Summary, ...]:
        """Return a line per run of a project, newest first, the one in work included."""
        status = self.status()
        lines = (runs.summary(project, run) for run in runs.identifiers(project))
        if status is None or status.project != project:
            return tuple(lines)
        return tuple(replace(line, state=status.state) if line.run == status.run else line for line in lines)

    def wait(self, seconds: float | None = None) -> None:
        """Wait until the run in work has ended, at most `seconds`."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def _refuse_when_busy(self) -> None:
        if self._job is not None and self._job.busy:
            raise RunConflict(
                f"{self._job.config.name} of project {self._job.project.name} is training. "
                "Wait until it has ended, or pause or stop it first."
            )

    def _begin(self, job: _Job) -> None:
        self._job = job
        self._thread = threading.Thread(target=self._work, args=(job,), name=f"lora-trainer {job.run}", daemon=True)
        self._thread.start()

    def _work(self, job: _Job) -> None:
        try:
            with _journal(job.folder) as journal:
                self._follow(job, journal)
        except OSError as error:  # the journal itself cannot be written; memory is all that is left to tell it
            job.events.append(failure(error))
        finally:
            job.busy = False

    def _follow(self, job: _Job, journal: TextIO) -> None:
        try:
            paths = RunPaths(job.folder, Path(job.host.adapter_folder()))
            stream = self._train(job.host, job.config, paths, job.control)
            with ExitStack() as leaving:
                leaving.callback(getattr(stream, "close", _nothing))  # its lease ends here, whatever happens
                for event in stream:
                    _record(job, journal, event)
            if not job.events or not isinstance(job.events[-1], Finished):
                raise TrainerError("The training ended without saying how. Look at the last messages.")
        except Exception as error:  # noqa: BLE001 - whatever it is, the person who watches has to see it
            _record(job, journal, failure(error))


def failure(error: Exception) -> Failed:
    """Return the event that tells of an exception; a traceback only when it was not the user's mistake."""
    problems = error.problems if isinstance(error, ProblemsFound) else ()
    detail = "" if isinstance(error, TrainerError) else "".join(traceback.format_exception(error))
    text = str(error) or type(error).__name__
    return Failed(
        error=text if isinstance(error, TrainerError) else f"{type(error).__name__}: {text}",
        problems=tuple({name: str(value) for name, value in asdict(problem).items()} for problem in problems),
        detail=detail,
    )


def _nothing() -> None:
    """Close a stream that has no end of its own."""


def _journal(folder: Path) -> TextIO:
    path = folder / runs.JOURNAL
    cut_off = path.is_file() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    journal = path.open("a", encoding="utf-8", buffering=1, newline="\n")
    if cut_off:  # the process died in the middle of a line; the next event starts on its own
        journal.write("\n")
    return journal


def _record(job: _Job, journal: TextIO, event: Event) -> None:
    job.events.append(event)  # first, so that a full disk cannot hide it from whoever watches
    journal.write(to_json(event) + "\n")


def _state(job: _Job) -> RunState:
    if not job.busy:
        return runs.state_of(job.events)
    waiting: dict[str, RunState] = {"go": "running", "pause": "pausing", "stop": "stopping"}
    return waiting[job.control.wish]
