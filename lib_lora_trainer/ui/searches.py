"""The search for a learning rate: one at a time, in a thread of its own, watched by any number of browsers."""

from __future__ import annotations

import functools
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from lib_lora_trainer.app import jobs
from lib_lora_trainer.app.projects import Project
from lib_lora_trainer.app.queue import failure
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import RunConflict
from lib_lora_trainer.base.events import Event
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.hosts.api import Host

Find = Callable[[Host, RunConfig, jobs.RunPaths, Control], Iterator[Event]]


class Searches:
    """Remembers the last search of each project while the program runs; nothing of it is kept on disk."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._lock = threading.Lock()
        self._control: Control | None = None
        self._busy = ""
        self._thread: threading.Thread | None = None
        self._events: dict[str, list[Event]] = {}
        self._configs: dict[str, RunConfig] = {}

    def start(self, host: Host, project: Project, config: RunConfig) -> None:
        """Begin a search with these settings. Raises RunConflict while another one is under way."""
        with self._lock:
            self._refuse()
            self._control, self._busy = Control(), project.name
            self._events[project.name], self._configs[project.name] = [], config
            self._thread = threading.Thread(
                target=self._work, args=(host, project, config, self._control), name="lora-trainer rate", daemon=True
            )
            self._thread.start()

    def refuse_when_busy(self) -> None:
        """Raise RunConflict while a search uses the model."""
        with self._lock:
            self._refuse()

    def cancel(self) -> None:
        """Ask the search under way to end."""
        with self._lock:
            if self._control is not None:
                self._control.ask("stop")

    def busy(self, project: str = "") -> bool:
        """Return whether a search is under way, in that project if one is named."""
        with self._lock:
            return bool(self._busy) and project in ("", self._busy)

    def events(self, project: str) -> tuple[Event, ...]:
        """Return what the project's last search has reported."""
        with self._lock:
            return tuple(self._events.get(project, ()))

    def config(self, project: str) -> RunConfig | None:
        """Return the settings of the project's last search; None when there was none."""
        with self._lock:
            return self._configs.get(project)

    def wait(self, seconds: float | None = None) -> None:
        """Wait until the search under way has ended, at most `seconds`."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def _refuse(self) -> None:
        if self._busy:
            raise RunConflict(
                f"The search for a learning rate in project {self._busy} uses the model. Wait until it has ended, or "
                "cancel it in the Train step."
            )

    def _work(self, host: Host, project: Project, config: RunConfig, control: Control) -> None:
        events = self._events[project.name]
        try:
            # The run's folder holds nothing worth keeping; the cache serves the training that follows.
            with tempfile.TemporaryDirectory(prefix="lora-trainer-") as folder, ExitStack() as leaving:
                paths = jobs.RunPaths(Path(folder), Path(host.adapter_folder()), project.cache)
                stream = self._find(host, config, paths, control)
                leaving.callback(getattr(stream, "close", _nothing))  # its lease ends here, whatever happens
                for event in stream:
                    with self._lock:
                        events.append(event)
        except Exception as error:  # noqa: BLE001 - whatever it is, the person who watches has to see it
            with self._lock:
                events.append(failure(error))
        finally:
            with self._lock:
                self._busy, self._control = "", None


@functools.cache
def shared() -> Searches:
    """Return the process's one: "Reload UI" builds the tab anew while a search may be under way."""
    return Searches(jobs.find_rate)


def _nothing() -> None:
    """Close a stream that has no end of its own."""
