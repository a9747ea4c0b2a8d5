"""Scans of the projects' folders: the latest of each project, and a way to call one off."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from lib_lora_trainer.base.errors import UserError
from lib_lora_trainer.config.data import DataConfig
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.dataset.items import Scan
from lib_lora_trainer.dataset.scan import scan


@dataclass
class _Reading:
    done: int = 0
    whole: int = 0
    cancelled: bool = False


class Scans:
    """Remembers scans while the program runs, so that a reloaded page need not read every picture again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[str, tuple[DataConfig, tuple[str, ...], Scan]] = {}
        self._running: dict[str, _Reading] = {}

    def begin(self, project: str) -> None:
        """Announce a scan, so that whoever watches knows of it before the first picture is read."""
        self._announce(project)

    def _announce(self, project: str) -> _Reading:
        reading = _Reading()
        with self._lock:
            self._running[project] = reading
        return reading

    def scan(self, project: str, config: RunConfig) -> Scan:
        """Read the folders of a configuration. Raises UserError when `cancel` is called meanwhile."""
        reading = self._announce(project)

        def report(done: int, whole: int) -> None:
            reading.done, reading.whole = done, whole
            if reading.cancelled:
                raise UserError(f"The scan was called off after {done} of {whole} pictures. Scan again when you like.")

        try:
            found = scan(config.data, config.triggers, report)
        finally:
            self.end(project)
        self.remember(project, config, found)
        return found

    def end(self, project: str) -> None:
        """Take back what `begin` announced."""
        with self._lock:
            self._running.pop(project, None)

    def progress(self, project: str) -> tuple[int, int] | None:
        """Return (pictures read, pictures in all) of the scan under way, else None; (0, 0) before it has counted."""
        with self._lock:
            reading = self._running.get(project)
        return None if reading is None else (reading.done, reading.whole)

    def cancel(self, project: str) -> None:
        """Call off the scan of a project that is under way, if one is."""
        with self._lock:
            if project in self._running:
                self._running[project].cancelled = True

    def remember(self, project: str, config: RunConfig, found: Scan) -> None:
        """Keep a scan that was made on another occasion."""
        with self._lock:
            self._last[project] = (config.data, config.triggers, found)

    def last(self, project: str) -> Scan | None:
        """Return the latest scan of a project; None when it has not been scanned since the program started."""
        with self._lock:
            known = self._last.get(project)
        return known[2] if known else None

    def current(self, project: str, config: RunConfig) -> bool:
        """Return whether the latest scan was made with these very settings."""
        with self._lock:
            known = self._last.get(project)
        return known is not None and known[:2] == (config.data, config.triggers)
