"""What is in each picture, read in threads; what was read once is known until the file changes."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.dataset import threads
from lib_lora_trainer.dataset.entries import identity
from lib_lora_trainer.dataset.formats import DECODER_ERRORS, Depth, Facts, explain, inspect

Progress = Callable[[int, int], None]

KEPT = 100_000
"""Pictures remembered at once, about 40 MB."""

SAMPLE, WAITING = 32, 0.001
"""Pictures whose headers are read before it is decided about threads, and seconds that most of them waited if so."""


class Readings:
    """Facts about pictures that were read, while their files stay as they are; problems are looked into each time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, Facts] = {}

    def of(self, path: Path, depth: Depth) -> Facts | Problem:
        """Return what is in a picture, or why it is left out."""
        name = str(path)
        try:
            known = self._known.get(name)
            if known is not None and (known.decoded or depth == "headers") and known.identity == _identity(name):
                return known
            facts = inspect(path, depth)
        except DECODER_ERRORS as error:
            problem = explain(path, error)
            return Problem("warning", problem.where, f"{problem.message} It is left out.", problem.fix)
        if facts.animated:
            fix = "Save the frame you want as a picture of its own."
            return Problem("warning", name, "is animated and is left out.", fix)
        if facts.settled:
            self._keep(name, facts)
        return facts

    def _keep(self, name: str, facts: Facts) -> None:
        with self._lock:
            self._known.pop(name, None)
            self._known[name] = facts
            while len(self._known) > KEPT:
                del self._known[next(iter(self._known))]


def _identity(name: str) -> int:
    return identity(os.stat(name))  # noqa: PTH116 the method of Path costs half as much again


_readings = Readings()


def read_all(paths: Sequence[Path], depth: Depth, progress: Progress | None) -> dict[Path, Facts | Problem]:
    """Return what is in each picture, or why it is left out; progress: as in `read_each`."""
    return dict(zip(paths, read_each(paths, depth, progress), strict=True))


def read_each(paths: Sequence[Path], depth: Depth, progress: Progress | None) -> list[Facts | Problem]:
    """Return what is in each picture, or why it is left out, in the order of the paths.

    progress: called in this thread with (pictures read, pictures in all) after each; what it raises ends the reading.
    """
    read = partial(_readings.of, depth=depth)
    results: list[Facts | Problem] = []
    with closing(_in_order(read, paths, depth)) as found:
        for done, result in enumerate(found, start=1):
            results.append(result)
            if progress is not None:
                progress(done, len(paths))
    return results


def _in_order(
    read: Callable[[Path], Facts | Problem], paths: Sequence[Path], depth: Depth
) -> Generator[Facts | Problem, None, None]:
    """Yield what is in each picture, in threads where that is faster.

    Decoding lets other threads run. Headers are read by Python itself, which does not: threads help only while a disk
    or a network folder is waited for, and cost as much again where the system has the files in memory. So the first
    pictures are read in this thread, and how long each of them was waited for decides about the others. The median of
    them: on a busy machine a few wait for the processor, and long.
    """
    if depth == "whole":
        yield from threads.in_order(read, paths, together=4)
        return
    waits = []
    for path in paths[:SAMPLE]:
        begun, worked = time.perf_counter(), time.thread_time()
        result = read(path)
        waits.append((time.perf_counter() - begun) - (time.thread_time() - worked))
        yield result
    if waits and statistics.median(waits) > WAITING:
        yield from threads.in_order(read, paths[SAMPLE:], together=32)
    else:
        yield from map(read, paths[SAMPLE:])
