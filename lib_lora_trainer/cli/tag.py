"""The command `tag`: taggers look at pictures, and captions are written that can be taken back."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.base.setting import Setting
from lib_lora_trainer.cli.dataset_speech import apply, ended, follow, heard
from lib_lora_trainer.cli.speech import DONE, STOPPED
from lib_lora_trainer.cli.training import interruptible
from lib_lora_trainer.tagging.options import TagOptions

if TYPE_CHECKING:
    from lib_lora_trainer.app.dataset_tools import Draft, Request
    from lib_lora_trainer.app.tag_jobs import Place

NAMES = {"taggers": "--model", "general_threshold": "--threshold"}
"""Options that are called otherwise than their setting, as other taggers call them."""


def add(commands: Any) -> None:
    """Add the command `tag` to a parser's commands."""
    text = "have WD14 taggers write captions, which `dataset undo` takes back"
    command: argparse.ArgumentParser = commands.add_parser("tag", help=text, description=text)
    command.add_argument("folder", type=Path, nargs="?", metavar="FOLDER", help="the dataset's folder")
    command.add_argument("--config", type=Path, metavar="CONFIG.toml", help="settings of which FOLDER is a source")
    for name, about in _settings():
        _add_field(command, name, about)
    command.add_argument("--models", type=Path, metavar="DIR", help=f"where taggers are kept; else {_home()}")
    command.add_argument(
        "--look-in", type=Path, action="append", default=[], metavar="DIR", help="another folder with taggers"
    )
    command.add_argument("--download", action="store_true", help="get the models that are not there from the hub")
    command.add_argument("--list", action="store_true", help="list the known models and where they lie, and do no more")
    command.add_argument("--dry-run", action="store_true", help="say what would be written; only scores are kept")
    command.add_argument("--json", action="store_true", help="one JSON object a line")
    command.set_defaults(run=_tag)


def _home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sd-webui-lora-trainer" / "taggers"


def _settings() -> Iterator[tuple[str, Setting]]:
    for field in dataclasses.fields(TagOptions):
        yield field.name, field.metadata["setting"]


def _add_field(command: argparse.ArgumentParser, name: str, about: Setting) -> None:
    """Add the option of a setting; an absent one keeps its default."""
    default = getattr(TagOptions(), name)
    option, text = NAMES.get(name, f"--{name.replace('_', '-')}"), about.help.replace("%", "%%")
    if isinstance(default, bool):
        command.add_argument(option, dest=name, action=argparse.BooleanOptionalAction, default=None, help=text)
    elif isinstance(default, tuple):
        word = "NAME|DIR" if name == "taggers" else option.removeprefix("--").upper()
        command.add_argument(option, dest=name, action="append", default=None, metavar=word, help=text)
    elif about.choices:
        command.add_argument(option, dest=name, choices=about.choices, default=None, help=text)
    else:
        word = option.removeprefix("--").upper()
        command.add_argument(option, dest=name, type=type(default), default=None, metavar=word, help=text)


def _tag(options: argparse.Namespace) -> int:
    from lib_lora_trainer.app import tag_jobs

    place = tag_jobs.Place(options.models or _home(), tuple(options.look_in))
    if options.list:
        return _list(place, options)
    if options.folder is None:
        raise ConfigError("FOLDER: is missing. Name the dataset's folder, or use --list.")
    wish = _chosen(options)
    with interruptible() as control:
        for name in wish.taggers if options.download else ():
            if tag_jobs.is_absent(name, place):
                status = follow(tag_jobs.download(name, place, control), options)
                if status != DONE:
                    return status
        made: Draft | None = heard(tag_jobs.draft(_request(options, wish), place, control), options)
        return STOPPED if made is None else apply(made, control, options)


def _chosen(options: argparse.Namespace) -> TagOptions:
    values: dict[str, Any] = {}
    for name, _ in _settings():
        given = getattr(options, name)
        if given is not None:
            values[name] = tuple(given) if isinstance(given, list) else given
    return TagOptions(**values)


def _request(options: argparse.Namespace, wish: TagOptions) -> Request:
    """Return what is asked: about a source of the config, or about the folder with plain settings."""
    from lib_lora_trainer.app.dataset_tools import Request
    from lib_lora_trainer.config import run
    from lib_lora_trainer.config.data import DataConfig, SourceConfig
    from lib_lora_trainer.dataset.entries import absolute, real

    folder = absolute(str(options.folder))
    if options.config is None:
        return Request(DataConfig(sources=(SourceConfig(str(folder)),)), wish)
    data = run.read(options.config).data
    places = [number for number, each in enumerate(data.sources) if real(absolute(each.path)) == real(folder)]
    if not places:
        known = ", ".join(source.path for source in data.sources) or "none"
        raise ConfigError(f"{folder}: is no source of {options.config}. Its sources: {known}.")
    return Request(data, wish, places[0])


def _list(place: Place, options: argparse.Namespace) -> int:
    from lib_lora_trainer.app import tag_jobs

    listed = tag_jobs.catalogue(place)
    content = [
        {**dataclasses.asdict(model), "repository": model.repository, "path": str(found.model) if found else None}
        for model, found in listed
    ]
    lines = [
        f"{model.name}: {found.model if found else f'not here, about {model.megabytes} MB'} "
        f"(thresholds {model.general:g} and {model.character:g})"
        for model, found in listed
    ]
    return ended({"taggers": content}, lines, (), options)
