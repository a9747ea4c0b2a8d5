"""Work within other work: what it tells is passed on, and the other goes on with the value it makes."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any, TypeVar

from lib_lora_trainer.base.events import Event

Value = TypeVar("Value")


def relay(events: Iterator[Any], kind: type[Value]) -> Generator[Event, None, Value | None]:
    """Pass on the events of work and return its value of this kind; None when it was stopped, which was told."""
    made: Value | None = None
    for event in events:
        if isinstance(event, kind):
            made = event
        else:
            yield event
    return made
