"""Work that reports its progress by a callback, made a generator of events that can be stopped."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.events import Event, Phase

Result = TypeVar("Result")
Report = Callable[[str, int, int], None]
"""Called with what is done, how many are done, and how many there are; raises Stopped when nobody wants more."""


class Stopped(Exception):
    """Ends work that the user called off."""


def reported(work: Callable[[Report], Result], control: Control, name: str) -> Generator[Event, None, Result]:
    """Do `work` in a thread, yield what it reports as Phases, and return its result; name: of the thread.

    Raises what the work raises, and Stopped after the user's wish to stop, at the work's next report. Closing the
    generator ends the work there too.
    """
    told: queue.SimpleQueue[Phase | None] = queue.SimpleQueue()
    unwanted = threading.Event()

    def report(what: str, done: int, whole: int) -> None:
        if control.wish != "go" or unwanted.is_set():
            raise Stopped
        told.put(Phase(what, done, whole))

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix=name) as pool:
        working = pool.submit(work, report)
        working.add_done_callback(lambda _: told.put(None))
        try:
            while (phase := told.get()) is not None:
                yield phase
        finally:
            unwanted.set()  # whoever watched went away; else the work is over anyway
        return working.result()
