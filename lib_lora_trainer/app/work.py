"""One run in work: its events, kept in memory and in its journal, whatever happens to it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from lib_lora_trainer.app import runs
from lib_lora_trainer.app.jobs import RunPaths
from lib_lora_trainer.app.projects import Project
from lib_lora_trainer.app.runs import RunState
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ProblemsFound, TrainerError
from lib_lora_trainer.base.events import Event, Failed, Finished, Note, to_json
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.hosts.api import Host

Train = Callable[[Host, RunConfig, RunPaths, Control], Iterator[Event]]


class Work:
    """One run from its start or its resumption until its last event.

    events: of the whole run, those of earlier processes included. busy: True until whoever runs it sets it to False.
    told: notes that the journal begins with this time.
    """

    def __init__(self, host: Host, project: Project, run: str, config: RunConfig) -> None:
        self.host = host
        self.project = project
        self.run = run
        self.config = config
        self.folder = runs.folder_of(project, run)
        self.control = Control()
        self.events = runs.read_events(self.folder)
        self.told: list[Note] = []
        self.busy = True

    @property
    def state(self) -> RunState:
        """The run's state as people see it."""
        if not self.busy:
            return runs.state_of(self.events)
        waiting: dict[str, RunState] = {"go": "running", "pause": "pausing", "stop": "stopping"}
        return waiting[self.control.wish]

    def do(self, train: Train) -> None:
        """Train until the run ends; every exception becomes its last event."""
        try:
            with _journal(self.folder) as journal:
                for note in self.told:
                    self._record(journal, note)
                self._follow(train, journal)
        except OSError as error:  # the journal itself cannot be written; memory is all that is left to tell it
            self.events.append(failure(error))

    def _follow(self, train: Train, journal: TextIO) -> None:
        try:
            paths = RunPaths(self.folder, Path(self.host.adapter_folder()), self.project.cache)
            stream = train(self.host, self.config, paths, self.control)
            with ExitStack() as leaving:
                leaving.callback(getattr(stream, "close", _nothing))  # its lease ends here, whatever happens
                for event in stream:
                    self._record(journal, event)
            if not self.events or not isinstance(self.events[-1], Finished):
                raise TrainerError("The training ended without saying how. Look at the last messages.")
        except Exception as error:  # noqa: BLE001 - whatever it is, the person who watches has to see it
            self._record(journal, failure(error))

    def _record(self, journal: TextIO, event: Event) -> None:
        self.events.append(event)  # first, so that a full disk cannot hide it from whoever watches
        journal.write(to_json(event) + "\n")


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
