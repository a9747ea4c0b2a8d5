"""What is known about runs from their folders alone: state, files, history, and which runs wait to begin."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from lib_lora_trainer.app import projects
from lib_lora_trainer.app.projects import Difference, Project
from lib_lora_trainer.base import codec, events, files
from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.base.events import Event, Failed, Finished, Note, Progress, SampleMade, Saved
from lib_lora_trainer.config import run as run_config
from lib_lora_trainer.config.run import RunConfig

JOURNAL = "events.jsonl"
CONFIG = "config.toml"
WAITING = "waiting"
"""Folder in a project with the configurations of runs that have not begun."""
_NUMBERED = re.compile(r"[0-9]+-")
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


def enlist(project: Project, config: RunConfig) -> str:
    """Keep the configuration of a run that is to begin later, and return its id among the waiting ones.

    The id is a number, by which they are in order, and the adapter's name. Raises ConfigError for an impossible name.
    """
    name = files.check_name(config.name, "name")
    taken = [int(other.partition("-")[0]) for other in enlisted(project)]
    waiting = f"{max(taken, default=0) + 1:06d}-{name}"
    files.write_text(_waiting_file(project, waiting), codec.to_toml(config))
    return waiting


def enlisted(project: Project) -> tuple[str, ...]:
    """Return the ids of a project's waiting runs, the next one first."""
    folder = project.folder / WAITING
    found = folder.glob("[0-9]*-*.toml") if folder.is_dir() else ()
    return tuple(sorted(path.name.removesuffix(".toml") for path in found if _NUMBERED.match(path.name)))


def enlisted_configuration(project: Project, waiting: str) -> RunConfig:
    """Return the configuration of a waiting run.

    Raises ConfigError when none of that id waits, ConfigError or ProblemsFound naming the file when it cannot be read.
    """
    if waiting not in enlisted(project):
        raise ConfigError(f"run: {waiting!r} does not wait in {project.name!r}. Look at the list again.")
    return run_config.read(_waiting_file(project, waiting))


def strike(project: Project, waiting: str) -> None:
    """Take a run off the list of the waiting ones, if it is still there."""
    if waiting in enlisted(project):
        _waiting_file(project, waiting).unlink(missing_ok=True)


def begin(project: Project, waiting: str, now: datetime) -> str | None:
    """Make a waiting run a run, with a folder of its own, and return its id; None when it waits no longer.

    The configuration's file is moved, so that of several processes only one begins the run.
    """
    folder = files.unused(project.runs / f"{now:%Y%m%d-%H%M%S}-{waiting.partition('-')[2]}")
    folder.mkdir(parents=True)
    try:
        _waiting_file(project, waiting).replace(folder / CONFIG)
    except FileNotFoundError:
        folder.rmdir()
        return None
    return folder.name


def _waiting_file(project: Project, waiting: str) -> Path:
    return project.folder / WAITING / f"{waiting}.toml"


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


def points(project: Project, run: str) -> list[Progress]:
    """Return a run's curve from its journal: step, loss, loss_average and learning_rates of each point."""
    return curve(read_events(folder_of(project, run)))


def samples_of(known: Sequence[Event]) -> tuple[SampleMade, ...]:
    """Return the sample images that a run made, in the order of their making; one made again after a resume once."""
    return tuple({event.path: event for event in known if isinstance(event, SampleMade)}.values())


def samples(project: Project, run: str) -> tuple[SampleMade, ...]:
    """Return a run's sample images from its journal, those whose files still exist."""
    made = samples_of(read_events(folder_of(project, run)))
    return tuple(event for event in made if Path(event.path).is_file())


def adapters(project: Project, run: str) -> tuple[str, ...]:
    """Return the adapter files that a run wrote, newest last, those that still exist."""
    written = adapters_of(read_events(folder_of(project, run)))
    return tuple(path for path in written if Path(path).is_file())


def compare(project: Project, first: str, second: str) -> tuple[Difference, ...]:
    """Return every setting in which two runs of a project differ, with both values, in the order of declaration.

    Raises ConfigError for an unknown run, or as `configuration` for one whose file is broken.
    """
    return projects.differences(configuration(project, first), configuration(project, second))


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
