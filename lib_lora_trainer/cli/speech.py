"""What is written to the console: by one process only, as words or as one JSON object a line."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from lib_lora_trainer.base import launch
from lib_lora_trainer.base.events import (
    Event,
    Failed,
    Finished,
    Note,
    Phase,
    Planned,
    Progress,
    RateFound,
    RateTried,
    SampleMade,
    Saved,
    to_json,
)

DONE, MISTAKES, STOPPED = 0, 1, 130


def speaks() -> bool:
    """Return whether this process writes to the console: of several that were launched together only the first."""
    return launch.rank() == 0


def say(text: str) -> None:
    """Write a line to standard output."""
    if speaks():
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def whisper(text: str) -> None:
    """Write to standard error, as it is: progress, and what is wrong."""
    if speaks():
        sys.stderr.write(text)
        sys.stderr.flush()


def follow(events: Iterator[Event], *, as_json: bool) -> int:
    """Write a job's events and return the exit status."""
    status = DONE
    for event in events:
        if as_json:
            say(to_json(event))
        else:
            tell(event)
        if isinstance(event, Finished) and event.reason != "done":
            status = STOPPED
    return status


def mistakes(problems: Sequence[dict[str, str]], text: str, *, as_json: bool) -> int:
    """Write what the user has to correct and return the exit status."""
    if as_json:
        say(to_json(Failed(text, tuple(problems))))
    else:
        whisper(text + "\n")
    return MISTAKES


def tell(event: Event) -> None:
    """Write an event in words; progress overwrites its own line on standard error."""
    if isinstance(event, Progress):
        share = event.images_seen / event.total_images
        whisper(
            f"\r[{'#' * int(share * 30):<30}] {share:4.0%} step {event.step}/{event.total_steps} "
            f"loss {event.loss_average:.4f} {event.seconds_per_step:.2f} s/step, {event.eta_seconds:.0f} s left "
            + ("\n" if event.step == event.total_steps else "")
        )
    elif isinstance(event, RateTried):
        whisper(
            f"\rstep {event.step}/{event.steps} learning rate {event.learning_rate:.1e} loss {event.loss_average:.4f} "
        )
    elif isinstance(event, Phase):
        whisper(f"\r{event.name}: {event.done}/{event.total}" + ("\n" if event.done == event.total else ""))
    else:
        say(words(event))


def words(event: Event) -> str:
    """Return an event that is told once in words. Raises TypeError for one that is progress."""
    if isinstance(event, Planned):
        return "\n".join(event.lines)
    if isinstance(event, Saved):
        return f"wrote {event.path}"
    if isinstance(event, SampleMade):
        return f"sample {event.path}"
    if isinstance(event, Note):
        return f"{event.severity}: {event.text}"
    if isinstance(event, RateFound):
        found = f"learning rate {event.learning_rate:.1e}\n" if event.learning_rate else ""
        return f"\n{found}{event.text}"
    if isinstance(event, Finished):
        return f"{event.reason} after step {event.step}, {event.seconds:.0f} s"
    if isinstance(event, Failed):
        return f"failed: {event.error}"
    raise TypeError(f"no words for {event!r}")
