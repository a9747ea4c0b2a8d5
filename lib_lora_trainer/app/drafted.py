"""The draft that work begins with: what it tells is passed on, and the work goes on with what it ends in."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any, TypeVar

from lib_lora_trainer.base.events import Event

Draft = TypeVar("Draft")


def drafted(events: Iterator[Any], kind: type[Draft]) -> Generator[Event, None, Draft | None]:
    """Pass on the events of a draft and return its value of this kind; None when it was stopped, which was told."""
    made: Draft | None = None
    for event in events:
        if isinstance(event, kind):
            made = event
        else:
            yield event
    return made
