"""What the dataset tools do takes a while: one job of a project at a time, in a thread, watched from any browser."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import RunConflict
from lib_lora_trainer.base.events import Finished, Note, Phase

Job = Callable[[Control], Iterator[Any]]
"""Yields events, and at last a value or Finished."""


class Work:
    """One job, written by the thread that does it and read by whoever watches.

    phase: how far it is; notes: what it said; value: what it yielded that is no event; finished: its last event; error:
    what it raised; ended: set when it is over.
    """

    def __init__(self, title: str, can_stop: bool) -> None:
        self.title, self.can_stop = title, can_stop
        self.control = Control()
        self.phase: Phase | None = None
        self.notes: list[Note] = []
        self.value: Any = None
        self.finished: Finished | None = None
        self.error: Exception | None = None
        self.ended = threading.Event()

    @property
    def stopped(self) -> bool:
        """Whether it ended because somebody called it off."""
        return self.finished is not None and self.finished.reason == "stopped"

    def run(self, job: Job) -> None:
        """Do the job to its end, keeping what it tells."""
        try:
            with closing(_generator(job(self.control))) as events:
                for event in events:
                    self._hear(event)
        except Exception as error:  # noqa: BLE001 - whatever it is, the person who watches has to see it
            self.error = error
        finally:
            self.ended.set()

    def _hear(self, event: Any) -> None:
        if isinstance(event, Phase):
            self.phase = event
        elif isinstance(event, Note):
            self.notes.append(event)
        elif isinstance(event, Finished):
            self.finished = event
        else:
            self.value = event


class Works:
    """The jobs under way, by project."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, Work] = {}

    def start(self, project: str, title: str, job: Job, *, can_stop: bool = True) -> Work:
        """Begin a job of a project. Raises RunConflict while another one of it is under way."""
        with self._lock:
            running = self._running.get(project)
            if running is not None and not running.ended.is_set():
                raise RunConflict(f"“{running.title}” is still at work in this project. Wait for it, or cancel it.")
            work = self._running[project] = Work(title, can_stop)
        threading.Thread(target=work.run, args=(job,), name="lora-trainer tools", daemon=True).start()
        return work

    def cancel(self, project: str) -> None:
        """Ask the job of a project to end, if one is under way and can be called off."""
        with self._lock:
            running = self._running.get(project)
        if running is not None and running.can_stop:
            running.control.ask("stop")

    def running(self, project: str) -> Work | None:
        """Return the job of a project that is under way."""
        with self._lock:
            running = self._running.get(project)
        return None if running is None or running.ended.is_set() else running


@functools.cache
def shared() -> Works:
    """Return the process's one: "Reload UI" builds the tab anew while a job may be under way."""
    return Works()


def _generator(events: Iterator[Any]) -> Any:
    """Return events as something that can be closed."""
    return events if hasattr(events, "close") else (event for event in events)
