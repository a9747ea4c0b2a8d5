"""The command `grid`: images of an adapter side by side, and ready-made grids of runs."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.base.events import Finished, to_json
from lib_lora_trainer.cli import speech
from lib_lora_trainer.cli.speech import DONE, STOPPED
from lib_lora_trainer.cli.training import interruptible
from lib_lora_trainer.evaluate import grid, grid_ready
from lib_lora_trainer.evaluate.grid import GridConfig

if TYPE_CHECKING:
    from lib_lora_trainer.app.grid_jobs import Draft, Request
    from lib_lora_trainer.hosts.api import Host

PRESETS = {
    "last-epochs": "RUNDIR: its last saves by weights",
    "presets": "RUN: block weights by weights",
    "transfer": "RUN CHECKPOINT…: other checkpoints by weights",
    "progress": "RUN RUN: two runs by epochs or steps",
    "combination": "RUN ADAPTER: with another adapter",
    "with-and-without": "RUN: the adapter and the model alone",
}


def add(commands: Any) -> None:
    """Add the command `grid` to a parser's commands."""
    text = "make a grid of images, as sheets and as a page to compare them; an unfinished one in DIR is continued"
    command: argparse.ArgumentParser = commands.add_parser("grid", help=text, description=text)
    command.add_argument("config", type=Path, nargs="?", metavar="GRID.toml", help="settings and axes")
    command.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="a .safetensors checkpoint")
    command.add_argument("--device", default="auto", help="cuda, cpu, mps or auto")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="where images, sheets and page go")
    told = "; ".join(f"{name} {about}" for name, about in PRESETS.items())
    command.add_argument("--preset", nargs="+", metavar=("NAME", "PATH"), help=f"a ready-made grid. {told}")
    command.add_argument("--prompt", help="prompt of every image, without the adapter's tag")
    command.add_argument("--dry-run", action="store_true", help="say what would be made, and make nothing")
    command.add_argument("--json", action="store_true", help="one JSON object a line")
    command.set_defaults(run=make)


def make(options: argparse.Namespace) -> int:
    """Say what is to be made and, unless that is all that was asked for, make it."""
    from lib_lora_trainer.app import grid_jobs
    from lib_lora_trainer.app.grid_attached import AttachedStudio

    if options.out.exists() and not options.out.is_dir():
        raise ConfigError(f"--out: {options.out} is a file. Choose a folder for the grid.")
    request = _request(options)
    studio = AttachedStudio(_opener(options))
    if options.dry_run:
        return _tell(grid_jobs.draft(studio, request), options)
    with interruptible() as control:
        status = DONE
        for event in grid_jobs.run(studio, request, control):
            if options.json:
                speech.say(to_json(event))
            elif isinstance(event, Finished):
                files = "".join(f"\nwrote {file}" for file in event.files)
                speech.say(f"{event.reason}: {event.step} images, {event.seconds:.1f} s{files}")
            else:
                speech.tell(event)
            if isinstance(event, Finished) and event.reason != "done":
                status = STOPPED
        return status


def _opener(options: argparse.Namespace) -> Callable[[str], Host]:
    """Return what opens a checkpoint by its path, that of --checkpoint for ""; the weights are read when it is used."""
    from lib_lora_trainer.hosts.standalone import StandaloneHost

    def open_host(checkpoint: str) -> Host:
        return StandaloneHost(Path(checkpoint) if checkpoint else options.checkpoint, options.out, options.device)

    return open_host


def _request(options: argparse.Namespace) -> Request:
    from lib_lora_trainer.app.grid_jobs import Request

    if options.config is None and not options.preset:
        raise ConfigError("nothing says what the grid is of. Name a GRID.toml, or a ready-made grid with --preset.")
    config = grid.read(options.config) if options.config else GridConfig()
    if options.prompt is not None:
        config = dataclasses.replace(config, prompt=options.prompt)
    if options.preset:
        config = _preset(config, *options.preset)
    return Request(config, options.out.absolute())


def _preset(config: GridConfig, name: str, *paths: str) -> GridConfig:
    from lib_lora_trainer.app import grid_saves

    if name not in PRESETS:
        raise ConfigError(f"--preset: {name!r} is no ready-made grid. Choose one of: {', '.join(PRESETS)}.")
    _count(name, paths)
    places = [Path(path).resolve() for path in paths]
    saves = grid_saves.find(places[0])
    adapter = str(places[0]) if places[0].is_file() else saves[-1]
    if not config.prompt:
        config = dataclasses.replace(config, prompt=grid_saves.prompt_for(places[0], saves))
    if name == "last-epochs":
        return grid_ready.last_epochs(config, saves)
    if name == "presets":
        return grid_ready.presets(config, adapter)
    if name == "transfer":
        return grid_ready.transfer(config, adapter, [str(place) for place in places[1:]])
    if name == "progress":
        return grid_ready.progress(config, saves, grid_saves.find(places[1]))
    if name == "combination":
        return grid_ready.combination(config, adapter, grid_saves.find(places[1])[-1])
    return grid_ready.with_and_without(config, adapter)


def _count(name: str, paths: Sequence[str]) -> None:
    wanted = {"transfer": "a run and one checkpoint at least", "progress": "two runs", "combination": "two adapters"}
    right = len(paths) > 1 if name == "transfer" else len(paths) == (2 if name in wanted else 1)
    if not right:
        raise ConfigError(f"--preset {name}: needs {wanted.get(name, 'a run')}, {len(paths)} paths were given.")


def _tell(made: Draft, options: argparse.Namespace) -> int:
    """Tell a draft: every image that would be made, in that order."""
    from lib_lora_trainer.evaluate import grid_cells

    for scene in made.missing:
        if options.json:
            content = {"event": "image", **made.facts[scene], "file": str(made.path(scene))}
            speech.say(json.dumps(content, ensure_ascii=False))
        else:
            speech.say(f"make seed {scene.seed}: {grid_cells.prompt_of(scene)}")
    if options.json:
        facts = {"cells": len(made.grid.scenes), "images": len(made.grid.todo), "make": len(made.missing)}
        speech.say(json.dumps({"event": "draft", "lines": made.lines(), **facts}, ensure_ascii=False))
    else:
        speech.say("\n".join((*made.lines(), "Nothing was made.")))
    return DONE
