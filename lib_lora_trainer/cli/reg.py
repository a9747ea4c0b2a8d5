"""The command `reg`: regularization images for a run, listed, made, and made again."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.base.events import Note
from lib_lora_trainer.base.setting import Setting
from lib_lora_trainer.cli import speech
from lib_lora_trainer.cli.dataset_speech import follow, heard, tell_problems
from lib_lora_trainer.cli.speech import DONE, MISTAKES, STOPPED
from lib_lora_trainer.cli.training import host_of, interruptible
from lib_lora_trainer.config import regularization
from lib_lora_trainer.config.regularization import RegularizationConfig

if TYPE_CHECKING:
    from lib_lora_trainer.app.reg_jobs import Draft, Request

_LISTS = ("remove", "texts", "templates")
_IN_FILE = ("sources",)  # what only a settings file can say


def add(commands: Any) -> None:
    """Add the command `reg` to a parser's commands."""
    text = "make regularization images with the base model; an unfinished run in DIR is continued"
    command: argparse.ArgumentParser = commands.add_parser("reg", help=text, description=text)
    command.add_argument("config", type=Path, metavar="CONFIG.toml", help="the run that they are for")
    command.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="a .safetensors checkpoint")
    command.add_argument("--device", default="auto", help="cuda, cpu, mps or auto")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the images go")
    command.add_argument("--settings", type=Path, metavar="REG.toml", help="what the options below do not say")
    command.add_argument("--only", action="append", default=[], metavar="NAME", help="make no others; * and ? are read")
    command.add_argument("--reroll", action="append", default=[], metavar="NAME", help="make these with another seed")
    command.add_argument("--dry-run", action="store_true", help="list captions and sizes, and make nothing")
    command.add_argument("--json", action="store_true", help="one JSON object a line")
    for name, about in _settings():
        _add_option(command, name, about)
    command.set_defaults(run=make)


def _settings() -> Iterator[tuple[str, Setting]]:
    for field in dataclasses.fields(RegularizationConfig):
        if field.name not in _IN_FILE:
            yield field.name, field.metadata["setting"]


def _add_option(command: argparse.ArgumentParser, name: str, about: Setting) -> None:
    option, text = f"--{name.replace('_', '-')}", about.help.replace("%", "%%")
    if name in _LISTS:
        command.add_argument(option, action="append", metavar="TEXT", help=text)
    elif about.choices:
        command.add_argument(option, choices=about.choices, help=text)
    else:
        kind = type(getattr(RegularizationConfig(), name))
        command.add_argument(option, type=kind, metavar=name.upper(), help=text)


def make(options: argparse.Namespace) -> int:
    """Say what is to be made and, unless that is all that was asked for, make it."""
    from lib_lora_trainer.app import reg_jobs

    request = _request(options)
    with interruptible() as control:
        if not options.dry_run:
            return follow(reg_jobs.generate(host_of(options), request, control), options)
        made: Draft | None = heard(reg_jobs.draft(host_of(options), request, control), options)
        return STOPPED if made is None else _tell(made, options)


def _request(options: argparse.Namespace) -> Request:
    from lib_lora_trainer.app.reg_jobs import Request
    from lib_lora_trainer.config import run

    wanted = regularization.read(options.settings) if options.settings else RegularizationConfig()
    given: dict[str, Any] = {
        name: tuple(value) if name in _LISTS else value
        for name, _ in _settings()
        if (value := getattr(options, name)) is not None
    }
    wanted = dataclasses.replace(wanted, **given)
    if options.out.exists() and not options.out.is_dir():
        raise ConfigError(f"--out: {options.out} is a file. Choose a folder for the images.")
    return Request(run.read(options.config), wanted, options.out.absolute(), tuple(options.only), tuple(options.reroll))


def _tell(made: Draft, options: argparse.Namespace) -> int:
    """Tell a draft: every caption beside its picture, and what would be done."""
    if options.json:
        for each in (*made.left_out, *(standing.image for standing in made.standing)):
            content = {"event": "image", **asdict(each), "make": each.name in made.todo}
            speech.say(json.dumps(content, ensure_ascii=False, default=str))
        facts = {"make": len(made.todo), "images": len(made.standing), "bytes": made.bytes}
        content = {"event": "draft", "lines": made.lines(), **facts, "shown": made.numbers}
        content["problems"] = [asdict(problem) for problem in made.problems]
        speech.say(json.dumps(content, ensure_ascii=False))
    else:
        for each in made.left_out:
            speech.say(f"{each.name}: none, from {each.picture.name}: {each.trained}")
        for standing in made.standing:
            width, height = standing.image.size
            say = "make" if standing.image.name in made.todo else standing.state
            speech.say(f"{standing.image.name}: {say}, {width}×{height}: {standing.image.caption}")
        for line in made.lines():
            speech.say(line)
        tell_problems(made.problems)
        follow([Note("note", "Nothing was made.")], options)
    return MISTAKES if made.errors else DONE
