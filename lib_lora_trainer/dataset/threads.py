"""One function over many pictures in a few threads: results in order, and an end at once when nobody wants more."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def count() -> int:
    """Return how many threads read pictures: two for each core, at least 2 and at most 8.

    Decoders let other threads run, and so does waiting for a disk or a network folder: a second thread on each core
    fills the waiting. Threads and no processes, because a process would import the WebUI again; at most 8, because
    each holds a decoded picture in memory.
    """
    return max(2, min(8, 2 * (os.cpu_count() or 1)))


def in_order(work: Callable[[T], R], things: Sequence[T], together: int = 8) -> Generator[R, None, None]:
    """Yield `work` of each thing in order, worked out in threads.

    together: how many things a thread takes at once, which spares the cost of handing over for very short work.
    Closing the iterator, or an exception from `work`, ends the threads after the things they have begun.
    """
    parts = [things[start : start + together] for start in range(0, len(things), together)]
    if len(parts) <= 1:
        yield from map(work, things)
        return

    def some(part: Sequence[T]) -> list[R]:
        return [work(thing) for thing in part]

    waiting = iter(parts)
    threads = count()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="pictures")
    try:
        # A short queue: results that nobody has taken yet do not pile up.
        begun: deque[Future[list[R]]] = deque(pool.submit(some, part) for part in islice(waiting, 2 * threads))
        while begun:
            done = begun.popleft().result()
            begun.extend(pool.submit(some, part) for part in islice(waiting, 1))
            yield from done
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
