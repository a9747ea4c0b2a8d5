"""What is in each picture, read in threads; what was read once is known until the file changes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.dataset import threads
from lib_lora_trainer.dataset.formats import DECODER_ERRORS, Depth, Facts, explain, inspect

Progress = Callable[[int, int], None]

KEPT = 100_000
"""Pictures remembered at once, about 50 MB."""
SETTLED = 2.0
"""Seconds for which a file must have been left alone: within the clock's steps (2 s on FAT) a change may not show."""

SAMPLE, WAITING = 32, 0.001
"""Pictures whose headers are read before it is decided about threads, and seconds of waiting for each that want them."""

_Identity = tuple[int, ...]


class Readings:
    """Facts about pictures that were read, while their files stay as they are; problems are looked into each time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, tuple[_Identity, bool, Facts]] = {}

    def of(self, path: Path, depth: Depth) -> Facts | Problem:
        """Return what is in a picture, or why it is left out."""
        name = str(path)
        try:
            about = path.stat()
            identity = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
            known = self._known.get(name)
            if known is not None and known[0] == identity and (known[1] or depth == "headers"):
                return known[2]
            facts = inspect(path, depth)
        except DECODER_ERRORS as error:
            problem = explain(path, error)
            return Problem("warning", problem.where, f"{problem.message} It is left out.", problem.fix)
        if facts.animated:
            fix = "Save the frame you want as a picture of its own."
            return Problem("warning", name, "is animated and is left out.", fix)
        if time.time() - max(about.st_mtime, about.st_ctime) > SETTLED:
            self._keep(name, (identity, depth == "whole", facts))
        return facts

    def _keep(self, name: str, reading: tuple[_Identity, bool, Facts]) -> None:
        with self._lock:
            self._known.pop(name, None)
            self._known[name] = reading
            while len(self._known) > KEPT:
                del self._known[next(iter(self._known))]


_readings = Readings()


def read_all(paths: Sequence[Path], depth: Depth, progress: Progress | None) -> dict[Path, Facts | Problem]:
    """Return what is in each picture, or why it is left out.

    progress: called in this thread with (pictures read, pictures in all) after each; what it raises ends the reading.
    """

    def read(path: Path) -> Facts | Problem:
        return _readings.of(path, depth)

    results: dict[Path, Facts | Problem] = {}
    with closing(_read_each(read, paths, depth)) as found:
        for done, (path, result) in enumerate(zip(paths, found, strict=True), start=1):
            results[path] = result
            if progress is not None:
                progress(done, len(paths))
    return results


def _read_each(
    read: Callable[[Path], Facts | Problem], paths: Sequence[Path], depth: Depth
) -> Generator[Facts | Problem, None, None]:
    """Yield what is in each picture, in threads where that is faster.

    Decoding lets other threads run. Headers are read by Python itself, which does not: threads help only while a disk
    or a network folder is waited for, and cost as much again where the system has the files in memory. So the first
    pictures are read in this thread, and how long each of them was waited for decides about the others.
    """
    if depth == "whole":
        yield from threads.in_order(read, paths, together=4)
        return
    begun, worked = time.perf_counter(), time.thread_time()
    for path in paths[:SAMPLE]:
        yield read(path)
    waited = (time.perf_counter() - begun) - (time.thread_time() - worked)
    if waited > WAITING * len(paths[:SAMPLE]):
        yield from threads.in_order(read, paths[SAMPLE:], together=32)
    else:
        yield from map(read, paths[SAMPLE:])
