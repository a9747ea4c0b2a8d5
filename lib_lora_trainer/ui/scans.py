"""Scans of the projects' folders: the latest of each project, and a way to call one off."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lib_lora_trainer.base.errors import UserError
from lib_lora_trainer.config.data import DataConfig
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.dataset.items import Scan
from lib_lora_trainer.dataset.scan import scan
from lib_lora_trainer.dataset.tools import monochrome
from lib_lora_trainer.ui import gallery_index
from lib_lora_trainer.ui.gallery_index import Picture

Result = TypeVar("Result")


@dataclass
class _Reading:
    done: int = 0
    whole: int = 0
    cancelled: bool = False

    def report(self, done: int, whole: int) -> None:
        self.done, self.whole = done, whole
        if self.cancelled:
            raise UserError(f"The scan was called off after {done} of {whole} pictures. Scan again when you like.")


@dataclass(frozen=True)
class Known:
    """A scan with the settings it was made with. mark: no other scan of this or another process has it."""

    data: DataConfig
    triggers: tuple[str, ...]
    scan: Scan
    mark: str

    @functools.cached_property
    def pictures(self) -> dict[Path, Picture]:
        """What the gallery shows, by path."""
        return {picture.path: picture for picture in gallery_index.build(self.scan, self.data, self.triggers)}


class Scans:
    """Remembers scans while the program runs, so that a reloaded page need not read every picture again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[str, Known] = {}
        self._running: dict[str, _Reading] = {}
        self._begun = time.time_ns()
        self._count = 0
        self._grey: dict[tuple[int, ...], bool] = {}

    def begin(self, project: str) -> None:
        """Announce a scan, so that whoever watches knows of it before the first picture is read."""
        self._announce(project)

    def _announce(self, project: str) -> _Reading:
        reading = _Reading()
        with self._lock:
            self._running[project] = reading
        return reading

    def scan(self, project: str, config: RunConfig) -> Scan:
        """Read the headers of all pictures in a configuration's folders, and name copies; the training's plan decodes.

        Raises UserError when `cancel` is called meanwhile.
        """
        found = self.watched(
            project,
            lambda report: scan(config.data, config.triggers, report, depth="headers", name_copies=True),
        )
        self.remember(project, config, found)
        return found

    def watched(self, project: str, work: Callable[[Callable[[int, int], None]], Result]) -> Result:
        """Do work that reports (done, in all), as a scan that can be followed and called off with UserError."""
        reading = self._announce(project)
        try:
            return work(reading.report)
        finally:
            self.end(project)

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
            self._count += 1
            self._last[project] = Known(config.data, config.triggers, found, f"{self._begun}-{self._count}")

    def known(self, project: str) -> Known | None:
        """Return the latest scan of a project with its settings; None when it has not been scanned since the start."""
        with self._lock:
            return self._last.get(project)

    def last(self, project: str) -> Scan | None:
        """Return the latest scan of a project; None when it has not been scanned since the program started."""
        known = self.known(project)
        return known.scan if known else None

    def mark(self, project: str) -> str:
        """Return what tells one scan of a project from the next; "" without a scan."""
        known = self.known(project)
        return known.mark if known else ""

    def look_for_monochrome(self, project: str, found: Scan) -> None:
        """Look at every picture that has not been looked at yet. Raises UserError when `cancel` is called meanwhile."""

        def look(report: Callable[[int, int], None]) -> None:
            for done, (path, grey) in enumerate(monochrome.looked_at(found), start=1):
                with self._lock:
                    self._grey[_identity(path)] = grey
                report(done, len(found.items))

        self.watched(project, look)

    def monochrome(self, found: Scan) -> dict[str, float]:
        """Return the share of monochrome pictures of the concepts whose pictures have all been looked at."""
        if not self._grey:
            return {}
        flags = {item.path: self._grey.get(_identity(item.path)) for item in found.items if not item.regularization}
        unknown = {item.concept for item in found.items if flags.get(item.path) is None}
        shares = monochrome.shares(found, {path: bool(grey) for path, grey in flags.items()})
        return {concept: share for concept, share in shares.items() if concept not in unknown}

    def current(self, project: str, config: RunConfig) -> bool:
        """Return whether the latest scan was made with these very settings."""
        known = self.known(project)
        return known is not None and (known.data, known.triggers) == (config.data, config.triggers)


def _identity(path: Path) -> tuple[int, ...]:
    """Return what a picture keeps when it is renamed or moved, and loses when it is changed; () when it is gone."""
    try:
        about = path.stat()
    except OSError:
        return ()
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns
