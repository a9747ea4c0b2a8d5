"""What a job reports: frozen records that the tab, the command line and the tests read alike."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from lib_lora_trainer.base.errors import Severity


@dataclass(frozen=True)
class Planned:
    """The plan is settled and work begins. `lines` is the plan in words, `total_images` the length of the run."""

    run: str
    lines: tuple[str, ...]
    total_images: int
    total_steps: int
    epochs: int


@dataclass(frozen=True)
class Phase:
    """Work other than training: caching latents, making samples, saving. `done` of `total` pieces."""

    name: str
    done: int
    total: int


@dataclass(frozen=True)
class Progress:
    """One optimizer step is finished.

    images_seen: the unit of progress; total_images is where the run ends.
    loss: of this step; loss_average: exponential average; both dimensionless (mean squared error).
    learning_rates: by parameter group, as used in this step.
    seconds_per_step: average over the recent steps; eta_seconds: until the end of the run.
    """

    images_seen: int
    total_images: int
    step: int
    total_steps: int
    epoch: int
    epochs: int
    loss: float
    loss_average: float
    learning_rates: dict[str, float]
    seconds_per_step: float
    eta_seconds: float


@dataclass(frozen=True)
class SampleMade:
    """A sample image of the adapter in training was written."""

    path: str
    prompt: str
    seed: int
    step: int
    epoch: int


@dataclass(frozen=True)
class Saved:
    """A file was written: an adapter (`adapter`) or what is needed to continue (`state`)."""

    path: str
    kind: Literal["adapter", "state"]
    step: int
    epoch: int


@dataclass(frozen=True)
class Note:
    """Something the user should know that stops nothing."""

    severity: Severity
    text: str


@dataclass(frozen=True)
class Finished:
    """The last event of a job that ended in order.

    reason: `done` (all steps), `stopped` or `paused` by the user; files: the adapters written, newest last.
    """

    reason: Literal["done", "stopped", "paused"]
    step: int
    files: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Failed:
    """A job ended by an exception; written by whoever runs it. `problems` holds the user's mistakes, if it was that."""

    error: str
    problems: tuple[dict[str, str], ...] = field(default=())
    detail: str = ""


@dataclass(frozen=True)
class RateTried:
    """One step of the search for a learning rate. loss_average: exponential average without its bias at the start."""

    step: int
    steps: int
    learning_rate: float
    loss: float
    loss_average: float


@dataclass(frozen=True)
class RateFound:
    """The end of the search. lowest, highest: the range in which the loss falls; text: how the curve was read."""

    learning_rate: float
    lowest: float
    highest: float
    text: str


Event = Planned | Phase | Progress | SampleMade | Saved | Note | RateTried | RateFound | Finished | Failed

_TYPES = {
    kind.__name__.lower(): kind
    for kind in (Planned, Phase, Progress, SampleMade, Saved, Note, RateTried, RateFound, Finished, Failed)
}


def to_json(event: Event) -> str:
    """Return the event as one line of JSON whose `event` key names its type in lower case."""
    return json.dumps({"event": type(event).__name__.lower(), **asdict(event)}, ensure_ascii=False)


def from_json(line: str) -> Event:
    """Return the event that `to_json` wrote. Raises ValueError for anything else."""
    values: dict[str, Any] = json.loads(line)
    kind = _TYPES.get(values.pop("event", ""))
    if kind is None:
        raise ValueError(f"not an event: {line[:120]!r}")
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    event: Event = kind(**{**values, **lists})
    return event
