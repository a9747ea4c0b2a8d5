"""The program: its commands and options, and how it ends."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lib_lora_trainer.base.errors import ProblemsFound, TrainerError
from lib_lora_trainer.cli import (
    baking,
    blocks,
    captions,
    dataset,
    grid,
    pick,
    reg,
    serving,
    settings,
    speech,
    tag,
    training,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0 done, 1 a list of mistakes, 130 stopped by the user."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a Windows console may lack the characters of a path
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except ProblemsFound as error:
        return speech.mistakes([asdict(problem) for problem in error.problems], str(error), as_json=options.json)
    except TrainerError as error:
        return speech.mistakes([], str(error), as_json=options.json)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lib_lora_trainer", description="Train Stable Diffusion adapters.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_training(commands)
    dataset.add(commands)
    tag.add(commands)
    captions.add(commands)
    reg.add(commands)
    baking.add(commands)
    grid.add(commands)
    pick.add(commands)
    blocks.add(commands)
    _add_settings(commands)
    _add_demo(commands)
    return parser


def _add_training(commands: Any) -> None:
    plan = _command(commands, "plan", training.plan, "say what a run would do, and every mistake in it")
    train = _command(commands, "train", training.train, "train; an unfinished run in DIR is continued")
    rate = _command(commands, "find-rate", training.find_rate, "search a learning rate by a short run")
    for command in (plan, train, rate):
        command.add_argument("config", type=Path, metavar="CONFIG.toml")
        command.add_argument("--host", choices=("standalone",), default="standalone", help="where the model is loaded")
        _add_model(command)
        command.add_argument("--json", action="store_true", help="one JSON object a line")
    for command in (plan, train):
        command.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the adapters go")
    rate.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="begins the path of the default cache")
    for command in (train, rate):
        command.add_argument(
            "--cache", type=Path, metavar="DIR", help="what can be computed again, shared by runs; OUT/.cache if absent"
        )
    train.add_argument(
        "--sweep", action="append", default=[], metavar="'SETTING: A, B'",
        help="one run per value, e.g. 'adapter.rank: 8, 16'; repeated: one run per combination",
    )  # fmt: skip


def _add_settings(commands: Any) -> None:
    recipes = _command(commands, "recipes", settings.recipes, "list the recipes, with what each sets")
    recipes.add_argument("--json", action="store_true", help="one JSON object a line")
    listed = _command(commands, "settings", settings.reference, "describe every setting: the page docs/settings.md")
    listed.set_defaults(json=False)
    reading = _command(
        commands, "import", settings.take_in, "read the settings of sd-scripts, kohya_ss or LoRA_Easy_Training_Scripts"
    )
    reading.add_argument("file", type=Path, metavar="FILE")
    reading.add_argument("--json", action="store_true", help="what was taken over and what not, as one JSON object")
    reading.add_argument("-o", "--output", type=Path, metavar="CONFIG.toml", help="where to write; else to the output")


def _add_demo(commands: Any) -> None:
    demo = _command(commands, "demo", serving.demo, "run the main job on the bundled toy world, then serve the tab")
    demo.add_argument("--out", type=Path, default=Path("demo-out"), metavar="DIR", help="where the results go")
    demo.add_argument("--no-ui", action="store_true", help="stop after the report")
    demo.add_argument("--port", type=int, default=7861, help="where the tab is served")
    demo.set_defaults(json=False)
    parts = demo.add_subparsers(metavar="PART")
    install = _command(parts, "install", serving.install, "put the toy checkpoint into a WebUI")
    install.add_argument("--webui", type=Path, required=True, metavar="PATH", help="the WebUI's folder")
    install.set_defaults(json=False)
    serve = _command(commands, "serve", serving.serve, "serve the tab in a browser, without a WebUI")
    _add_model(serve)
    serve.add_argument("--out", type=Path, required=True, metavar="DIR", help="where projects and adapters go")
    serve.add_argument("--port", type=int, default=7861, help="where the tab is served")
    serve.set_defaults(json=False)


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="a .safetensors checkpoint")
    command.add_argument("--device", default="auto", help="cuda, cpu, mps or auto")


def _command(commands: Any, name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    command.set_defaults(run=run)
    return command
