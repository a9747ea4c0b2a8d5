"""What the grid's buttons do: draft one, make one, go on with one; in a thread, as generators of events."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib_lora_trainer.app import grid_jobs, grid_saves, grid_store, runs
from lib_lora_trainer.app.grid_attached import AttachedStudio
from lib_lora_trainer.app.grid_jobs import Request
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError, ProblemsFound
from lib_lora_trainer.base.events import Event, Finished, Note, Phase, Planned
from lib_lora_trainer.evaluate import grid_ready
from lib_lora_trainer.evaluate.grid import GridConfig
from lib_lora_trainer.evaluate.grid_studio import Studio
from lib_lora_trainer.hosts.api import Host
from lib_lora_trainer.ui.evaluate_grid_form import Entered, read
from lib_lora_trainer.ui.evaluate_work import Evaluator, Made, Maker
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.session import Session, project_of

OWN = "own"
"""The name of a grid that was given none."""
_OFFERED = 500  # other files in the list


@dataclass(frozen=True)
class Prepared:
    """A grid that could be made. missing: how many images of it are to be made."""

    run: str
    name: str
    config: GridConfig
    lines: tuple[str, ...]
    missing: int


@dataclass(frozen=True)
class Written:
    """A grid that was made, or a part of it."""

    session: Session
    run: str
    name: str


def studio_of(place: Place) -> Studio:
    """Return where grids are made."""
    return place.studio or AttachedStudio(lambda checkpoint: _host(place, checkpoint))


def _host(place: Place, checkpoint: str) -> Host:
    """Return what opens a checkpoint: the host that is there, or another of its kind on a file."""
    if not checkpoint:
        return place.host
    if place.host.info().host != "standalone":
        raise ConfigError(f"{checkpoint}: this host cannot change the checkpoint.")
    from lib_lora_trainer.hosts.standalone import StandaloneHost

    return StandaloneHost(Path(checkpoint), Path(place.host.adapter_folder()), place.host.info().device)


def folder_of(place: Place, session: Session, run: str | None) -> Path:
    """Return a run's folder. Raises ConfigError when none is chosen or it is none of the project."""
    if not run:
        raise ConfigError("run: none is chosen. Choose one in the list, or train first.")
    return runs.folder_of(project_of(place.projects, session), run)


def settings(folder: Path, entered: Entered) -> GridConfig:
    """Return what was entered for a run, with what is left open taken from it: its newest file, its sample prompt.

    folder: the run's. Raises ConfigError naming the field.
    """
    config = entered.config()
    saves = grid_saves.find(folder)
    if not config.prompt.strip():
        config = replace(config, prompt=grid_saves.prompt_for(folder, saves))
    return replace(config, adapter=_file(saves, entered.adapter))


def _file(saves: Sequence[str], name: str) -> str:
    found = [save for save in saves if Path(save).stem == name] if name else [saves[-1]]
    if not found:
        raise ConfigError(f"adapter: {name!r} is no file of this run. Choose one in the list.")
    return found[0]


def offered(place: Place) -> list[str]:
    """Return the files in the adapters' folder, without the ending, relative to it."""
    root = Path(place.host.adapter_folder())
    found = sorted(root.rglob("*.safetensors"))[:_OFFERED] if root.is_dir() else []
    return [path.relative_to(root).with_suffix("").as_posix() for path in found]


def _offered(place: Place, text: str) -> str:
    """Return the file that was chosen in the list of `offered`, or whose path was entered."""
    if not text:
        raise ConfigError("other adapter: none is chosen. Choose one in the list, or enter its path.")
    listed = Path(place.host.adapter_folder()) / f"{text}.safetensors"
    return str(listed) if listed.is_file() else text


def preparing(evaluator: Evaluator, ready: str = "") -> Maker:
    """Return the work that says what a grid would be. ready: one of READY; "" for the axes as they were entered.

    What is entered for a ready-made grid comes first: other checkpoints, a second run, another adapter.
    """

    def make(session: Session, raw: Sequence[Any], _: Control) -> Iterator[Any]:
        run, *rest = raw
        more, entered = rest[:3], Entered.of(rest[3:])
        folder = folder_of(evaluator.place, session, run)
        config, name = settings(folder, entered), entered.name or OWN
        if ready:
            plain = replace(config, axes=(), second="")  # of a ready-made grid before
            config, name = _ready(evaluator.place, session, folder, ready, plain, more), ready
            entered = replace(entered, kinds=tuple(axis.kind for axis in config.axes) + ("",) * (3 - len(config.axes)))
        with _at_their_sides(entered):
            request = Request(config, grid_store.place(folder, name), evaluator.place.presets)
            draft = grid_jobs.draft(studio_of(evaluator.place), request)
        yield Made(Prepared(run, name, config, draft.lines(), len(draft.missing)))

    return make


def _ready(
    place: Place, session: Session, folder: Path, kind: str, config: GridConfig, more: Sequence[Any]
) -> GridConfig:
    """Return a ready-made grid of a run."""
    checkpoints, second_run, other = more
    if kind == "last-epochs":
        return grid_ready.last_epochs(config, grid_saves.find(folder))
    if kind == "presets":
        return grid_ready.presets(config, config.adapter)
    if kind == "transfer":
        return grid_ready.transfer(config, config.adapter, read("checkpoint", checkpoints or ""))
    if kind == "progress":
        if not second_run:
            raise ConfigError("second run: none is chosen. Choose one in the list.")
        second = grid_saves.find(folder_of(place, session, second_run))
        return grid_ready.progress(config, grid_saves.find(folder), second)
    if kind == "combination":
        return grid_ready.combination(config, config.adapter, _offered(place, (other or "").strip()))
    return grid_ready.with_and_without(config, config.adapter)


def making(evaluator: Evaluator) -> Maker:
    """Return the work that makes the grid which was entered."""

    def make(session: Session, raw: Sequence[Any], control: Control) -> Iterator[Any]:
        run, *rest = raw
        entered = Entered.of(rest)
        folder = folder_of(evaluator.place, session, run)
        config, name = settings(folder, entered), entered.name or OWN
        request = Request(config, grid_store.place(folder, name), evaluator.place.presets)
        with _at_their_sides(entered):
            yield from _made(evaluator, Written(session, run, name), request, control)

    return make


def continuing(evaluator: Evaluator) -> Maker:
    """Return the work that makes what is missing of a grid that was begun."""

    def make(session: Session, raw: Sequence[Any], control: Control) -> Iterator[Any]:
        run, name = raw
        place = grid_store.place(folder_of(evaluator.place, session, run), name or "")
        request = Request(grid_store.settings(place), place, evaluator.place.presets)
        yield from _made(evaluator, Written(session, run, name), request, control)

    return make


def _made(evaluator: Evaluator, written: Written, request: Request, control: Control) -> Iterator[Any]:
    began, first = 0.0, 0.0
    for event in grid_jobs.run(studio_of(evaluator.place), request, control):
        if isinstance(event, Planned):  # until here a mistake leaves nothing behind
            grid_store.begin(request.folder, request.config)
        elif isinstance(event, Phase):
            now = time.monotonic()
            began, first = began or now, first or (now if event.done else 0.0)
            yield timed(event, now - began, now - first)
        elif isinstance(event, Finished):
            yield Made(written)
            yield event
        elif isinstance(event, Note) and not event.text.startswith(grid_jobs.ESTIMATE):  # beside the progress
            yield event


def timed(phase: Phase, since_begin: float, since_first: float) -> Event:
    """Return how far a grid is with the time that the rest will take.

    since_begin, since_first: seconds since the begin, and since the first image, which also loads and compiles.
    """
    done, left = phase.done, phase.total - phase.done
    if not done or not left:
        return phase
    seconds = (since_first / (done - 1) if done > 1 else since_begin) * left
    span = f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
    return Phase(f"About {span} left · images:", done, phase.total)


@contextmanager
def _at_their_sides(entered: Entered) -> Iterator[None]:
    """Have problems of axes name the sides at which they were entered."""
    try:
        yield
    except ProblemsFound as error:
        raise ProblemsFound(tuple(map(entered.placed, error.problems))) from error
