"""What is known about runs from their folders alone: state, files, history."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from lib_lora_trainer.app.projects import Project
from lib_lora_trainer.base import codec, events, files
from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.base.events import Event, Failed, Finished, Note, Progress, Saved
from lib_lora_trainer.config import run as run_config
from lib_lora_trainer.config.run import RunConfig

JOURNAL = "events.jsonl"
CONFIG = "config.toml"
_TAIL = 1 << 17  # bytes of a journal that the history reads: the last few hundred events

RunState = Literal["running", "pausing", "stopping", "paused", "done", "stopped", "failed", "interrupted"]


@dataclass(frozen=True)
class Summary:
    """A line of the history. loss: the last average, or None before the first step; files: adapters, newest last."""

    run: str
    name: str
    started: datetime
    state: RunState
    step: int
    total_steps: int
    loss: float | None
    files: tuple[str, ...]


def create(project: Project, config: RunConfig, now: datetime) -> str:
    """Make the folder of a new run with its configuration and return its id."""
    name = files.check_name(config.name, "name")
    folder = files.unused(project.runs / f"{now:%Y%m%d-%H%M%S}-{name}")
    files.write_text(folder / CONFIG, codec.to_toml(config))
    return folder.name


def identifiers(project: Project) -> tuple[str, ...]:
    """Return the ids of a project's runs, newest first."""
    if not project.runs.is_dir():
        return ()
    return tuple(sorted((f.name for f in project.runs.iterdir() if (f / CONFIG).is_file()), reverse=True))


def folder_of(project: Project, run: str) -> Path:
    """Return the folder of a run. Raises ConfigError when the project has no such run."""
    if run not in identifiers(project):
        raise ConfigError(f"run: {run!r} is not a run of {project.name!r}. Choose one from its history.")
    return project.runs / run


def configuration(project: Project, run: str) -> RunConfig:
    """Return the configuration a run was started with."""
    return run_config.read(folder_of(project, run) / CONFIG)


def read_events(folder: Path) -> list[Event]:
    """Return the events in a run's journal; a line cut off by a crash becomes a Note that says so."""
    journal = folder / JOURNAL
    return _parse(journal.read_bytes().splitlines(), 1) if journal.is_file() else []


def _parse(lines: Sequence[bytes], first: int) -> list[Event]:
    found: list[Event] = []
    for number, line in enumerate(lines, first):
        if not line.strip():
            continue
        try:
            found.append(events.from_json(line.decode("utf-8")))
        except (ValueError, TypeError):
            found.append(Note("note", f"Line {number} of {JOURNAL} is incomplete: the program was cut off there."))
    return found


def state_of(known: Sequence[Event]) -> RunState:
    """Return the state of a run that nothing is working on, from its events."""
    for event in reversed(known):
        if isinstance(event, Finished):
            return event.reason
        if isinstance(event, Failed):
            return "failed"
        if not isinstance(event, Note):
            break
    return "interrupted"


def adapters_of(known: Sequence[Event]) -> tuple[str, ...]:
    """Return the adapter files that a run wrote, newest last, each once."""
    paths = [event.path for event in known if isinstance(event, Saved) and event.kind == "adapter"]
    paths += [path for event in known if isinstance(event, Finished) for path in event.files]
    return tuple(dict.fromkeys(paths))


def curve(known: Sequence[Event]) -> list[Progress]:
    """Return the progress of a run step by step; steps repeated after a resume replace the earlier ones."""
    points: list[Progress] = []
    for event in known:
        if isinstance(event, Progress):
            while points and points[-1].step >= event.step:
                points.pop()
            points.append(event)
    return points


def summary(project: Project, run: str) -> Summary:
    """Return the history's line of a run that nothing is working on."""
    folder = folder_of(project, run)
    known = _tail(folder / JOURNAL)
    if not isinstance(known[-1] if known else None, Finished):  # only that one names all files
        known = read_events(folder)
    last = next((event for event in reversed(known) if isinstance(event, Progress)), None)
    return Summary(
        run=run,
        name=name_of(run),
        started=_started(folder),
        state=state_of(known),
        step=last.step if last else 0,
        total_steps=last.total_steps if last else 0,
        loss=last.loss_average if last else None,
        files=adapters_of(known),
    )


def name_of(run: str) -> str:
    """Return the adapter's name as it was when the run began, from the run's id."""
    return run[16:] or run


def _tail(journal: Path) -> list[Event]:
    if not journal.is_file():
        return []
    with journal.open("rb") as stream:
        length = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, length - _TAIL))
        lines = stream.read().splitlines()
    return _parse(lines[1:] if length > _TAIL else lines, 1)


def _started(folder: Path) -> datetime:
    try:
        return datetime.strptime(folder.name[:15], "%Y%m%d-%H%M%S")
    except ValueError:
        return datetime.fromtimestamp((folder / CONFIG).stat().st_mtime)
