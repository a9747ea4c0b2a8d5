"""The commands about datasets: each says what it would do, does it through the journal, and can be taken back."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_lora_trainer.base.errors import ConfigError, Problem
from lib_lora_trainer.base.events import Finished, Note, Phase, to_json
from lib_lora_trainer.base.setting import Setting
from lib_lora_trainer.cli import speech
from lib_lora_trainer.cli.speech import DONE, MISTAKES, STOPPED
from lib_lora_trainer.cli.training import interruptible
from lib_lora_trainer.dataset.tools.options import OPTIONS, Goal, boxes_in

if TYPE_CHECKING:
    from lib_lora_trainer.app.dataset_tools import Draft, Request

TOOLS = {
    "convert": "turn every format, and every frame of animations, into PNG",
    "flatten-alpha": "lay transparency over a colour",
    "trim": "cut off borders of a single colour",
    "pad": "pad pictures to squares",
    "crop": "crop large pictures of a person to full body, cowboy shot, upper body, portrait and close-up",
    "upscale": "enlarge what has too few pixels, by Lanczos",
    "flatten": "bring nested folders to one level of folders named N_words",
}
VERBS = {"write": "write", "replace": "replace", "move": "move", "remove": "to the holding", "drop": "drop if empty"}


def add(commands: Any) -> None:
    """Add the command `dataset`, with a command for each tool, to a parser's commands."""
    text = "look at a dataset, and change it so that everything can be undone"
    parts = commands.add_parser("dataset", help=text, description=text).add_subparsers(required=True, metavar="TOOL")
    _command(parts, "scan", _scan, "list the concepts and everything that is wrong")
    for name, about in TOOLS.items():
        command = _command(parts, name, _tool, about)
        command.set_defaults(tool=name, kind=OPTIONS[name])
        _add_fields(command, OPTIONS[name])
    parts.choices["crop"].add_argument(
        "--box", action="append", default=[], metavar="FILE=LEFT,TOP,RIGHT,BOTTOM", help="where a picture's subject is"
    )
    _add_resolution(parts.choices["upscale"])
    buckets = _command(parts, "buckets", _buckets, "say where training puts every picture, and what must be upscaled")
    buckets.add_argument("--sort", action="store_true", help="sort the pictures into folders named after their buckets")
    _add_resolution(buckets)
    masks = _command(parts, "mask", _masks, "find bad masks, or take masks over from another folder")
    masks.add_argument(
        "--import", dest="taken_from", metavar="DIR", default="", help="take masks over from this folder"
    )
    masks.add_argument("--replace", action="store_true", help="... also for pictures that have one")
    _add_fields(masks, OPTIONS["mask"])
    # `duplicates` belongs here.
    balance = _command(parts, "balance", _balance, "rename folders so that every concept is shown equally often")
    balance.add_argument("--grade", action="append", default=[], metavar="CONCEPT=A…E", help="a folder's quality")
    balance.add_argument("--trigger", action="append", default=[], help="one that folders may share; else the config's")
    _add_fields(balance, Goal)
    files = _command(parts, "files", _files, "exclude, include, move, copy, remove or restore chosen pictures")
    files.add_argument("action", choices=("exclude", "include", "move", "copy", "remove", "restore"))
    files.add_argument("files", nargs="+", metavar="FILE", help="from the dataset's folder on, or absolute")
    files.add_argument("--to", default="", metavar="DIR", help="where they are moved or copied to")
    _command(parts, "undo", _back, "take the latest change back").set_defaults(direction="undo")
    _command(parts, "redo", _back, "do again what was taken back last").set_defaults(direction="redo")
    holding = _command(parts, "holding", _holding, "list the originals that tools replaced")
    holding.add_argument("--empty", action="store_true", help="delete them for good; nothing can be undone then")


def _command(parts: Any, name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = parts.add_parser(name, help=text, description=text)
    command.add_argument("folder", type=Path, metavar="FOLDER", help="the dataset's folder")
    command.add_argument("--config", type=Path, metavar="CONFIG.toml", help="settings of which FOLDER is a source")
    command.add_argument("--masks", default="", metavar="DIR", help="the masks' folder, where there is no config")
    command.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    command.add_argument("--json", action="store_true", help="one JSON object a line")
    command.set_defaults(run=run, training_resolution=None, trigger=[])
    return command


def _add_resolution(command: argparse.ArgumentParser) -> None:
    text = "training resolution; else the config's, or 512"
    command.add_argument("--resolution", dest="training_resolution", type=int, metavar="PX", help=text)


def _settings(kind: type) -> Iterator[tuple[str, Any, Setting]]:
    fields = [field for field in dataclasses.fields(kind) if "setting" in field.metadata]
    hints = {"bool": bool, "int": int, "float": float, "str": str}
    for field in fields:
        yield field.name, hints.get(str(field.type), tuple), field.metadata["setting"]


def _add_fields(command: argparse.ArgumentParser, kind: type) -> None:
    """Add an option for every setting that a tool declares; absent ones keep their defaults."""
    for name, hint, about in _settings(kind):
        option, text = f"--{name.replace('_', '-')}", about.help.replace("%", "%%")
        if hint is bool:
            command.add_argument(option, action=argparse.BooleanOptionalAction, default=None, help=text)
        elif hint is tuple:
            command.add_argument(option, action="append", default=None, metavar=name.upper()[:-1], help=text)
        else:
            command.add_argument(option, type=hint, default=None, metavar=(about.unit or name).upper(), help=text)


def _chosen(options: argparse.Namespace, kind: type, more: dict[str, Any]) -> Any:
    given = {name: getattr(options, name) for name, _, _ in _settings(kind) if name not in more}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return kind(**more, **{name: value for name, value in values.items() if value is not None})


def _request(options: argparse.Namespace, wish: object) -> Request:
    """Return what a tool is asked: the settings of the config, or plain ones for the folder alone."""
    from lib_lora_trainer.app.dataset_tools import Request
    from lib_lora_trainer.config import run
    from lib_lora_trainer.config.data import DataConfig, SourceConfig
    from lib_lora_trainer.dataset.entries import absolute, real

    folder = absolute(str(options.folder))
    data, index = DataConfig(sources=(SourceConfig(str(folder), masks=options.masks),)), 0
    triggers = tuple(options.trigger)
    if options.config is not None:
        config = run.read(options.config)
        data, triggers = config.data, triggers or config.triggers
        places = [number for number, each in enumerate(data.sources) if real(absolute(each.path)) == real(folder)]
        if not places:
            known = ", ".join(source.path for source in data.sources) or "none"
            raise ConfigError(f"{folder}: is no source of {options.config}. Its sources: {known}.")
        index = places[0]
    size = options.training_resolution
    if size is not None:
        data = dataclasses.replace(data, resolution=size, bucket_maximum=max(data.bucket_maximum, 2 * size))
    return Request(data, wish, index, triggers)


def _tool(options: argparse.Namespace) -> int:
    more = {"boxes": boxes_in(options.box, options.folder)} if options.tool == "crop" else {}
    return _carry_out(options.tool, _chosen(options, options.kind, more), options)


def _files(options: argparse.Namespace) -> int:
    wish = OPTIONS["files"](options.action, tuple(options.files), options.to)
    if options.action in ("move", "copy") and not options.to:
        raise ConfigError(f"--to: is missing. Name the folder to {options.action} to.")
    return _carry_out("files", wish, options)


def _masks(options: argparse.Namespace) -> int:
    if not options.taken_from:
        return _carry_out("mask", _chosen(options, OPTIONS["mask"], {}), options)
    more = {"folder": options.taken_from, "replace": options.replace}
    return _carry_out("mask-import", _chosen(options, OPTIONS["mask-import"], more), options)


def _carry_out(tool: str, wish: object, options: argparse.Namespace) -> int:
    """Say what a tool would do, and do it unless that is all that was asked for."""
    from lib_lora_trainer.app import dataset_tools

    with interruptible() as control:
        made: Draft | None = _heard(dataset_tools.draft(tool, _request(options, wish), control), options)
        return STOPPED if made is None else _apply(made, control, options)


def _apply(made: Draft, control: Any, options: argparse.Namespace) -> int:
    from lib_lora_trainer.app import dataset_tools
    from lib_lora_trainer.dataset.tools.operations import described, shown

    for proposal in made.proposals:
        if options.json:
            speech.say(json.dumps({"event": "proposal", **described(proposal, made.root)}, ensure_ascii=False))
            continue
        for operation in proposal.operations:
            to = f" → {shown(operation.to, made.root)}" if operation.to else ""
            speech.say(f"{VERBS[operation.kind]} {shown(operation.path, made.root)}{to}")
    if not options.json:
        _tell_problems(made.problems)
    faulty = any(problem.severity == "error" for problem in made.problems)
    if options.dry_run:
        _follow([Note("note", f"{made.text}. Nothing was changed.")], options)
        return MISTAKES if faulty else DONE
    status = _follow(dataset_tools.apply(made, control), options)
    return MISTAKES if faulty and status == DONE else status


def _heard(events: Iterable[Any], options: argparse.Namespace) -> Any:
    """Tell events, and return the value that comes last; None when the user stopped it."""
    for event in events:
        if isinstance(event, (Note, Phase)):
            speech.say(to_json(event)) if options.json else speech.tell(event)
        elif isinstance(event, Finished):
            _follow([event], options)
            return None
        else:
            return event
    return None


def _follow(events: Iterable[Any], options: argparse.Namespace) -> int:
    """Tell the events of something that is done, and return the exit status."""
    status = DONE
    for event in events:
        if options.json:
            speech.say(to_json(event))
        elif isinstance(event, Finished):
            speech.say(f"{event.reason}: {event.step} changes, {event.seconds:.1f} s")
        else:
            speech.tell(event)
        if isinstance(event, Finished) and event.reason != "done":
            status = STOPPED
    return status


def _tell_problems(problems: Iterable[Problem]) -> None:
    for problem in problems:
        speech.say(f"{problem.severity}: {problem}")


def _ended(content: dict[str, Any], lines: Iterable[str], problems: Iterable[Problem], options: Any) -> int:
    """Tell a report, as one JSON object or in words, and return the exit status."""
    found = list(problems)
    if options.json:
        content = {**content, "problems": [asdict(problem) for problem in found]}
        speech.say(json.dumps(content, ensure_ascii=False, default=str))
    else:
        for line in lines:
            speech.say(line)
        _tell_problems(found)
    return MISTAKES if any(problem.severity == "error" for problem in found) else DONE


def _scan(options: argparse.Namespace) -> int:
    from lib_lora_trainer.app import dataset_tools

    with interruptible() as control:
        found = _heard(dataset_tools.look(_request(options, None), control), options)
    if found is None:
        return STOPPED
    concepts = [{**asdict(each), "folder": str(each.folder), "exposures": each.exposures} for each in found.concepts]
    content = {"pictures": len(found.items), "skipped": len(found.skipped), "concepts": concepts}
    lines = [f"{each.name}: {each.images} × {each.repeats:g} = {each.exposures:g}" for each in found.concepts]
    lines.append(f"{len(found.items)} pictures, {len(found.skipped)} left out")
    return _ended(content, lines, found.problems, options)


def _buckets(options: argparse.Namespace) -> int:
    if options.sort:
        return _carry_out("sort", OPTIONS["sort"](), options)
    from lib_lora_trainer.app import dataset_tools

    with interruptible() as control:
        made = _heard(dataset_tools.buckets(_request(options, None), control), options)
    if made is None:
        return STOPPED
    content = made.facts(options.folder.absolute())
    lines = [f"{name}: {count}" for name, count in content["buckets"].items()]
    lines += [f"must be upscaled: {name}" for name in content["must_be_upscaled"]]
    return _ended(content, lines, made.problems, options)


def _balance(options: argparse.Namespace) -> int:
    from lib_lora_trainer.app import dataset_tools

    grades = {name: grade for name, _, grade in (text.rpartition("=") for text in options.grade)}
    request = _request(options, _chosen(options, Goal, {"grades": grades}))
    with interruptible() as control:
        made = _heard(dataset_tools.balance(request, control), options)
        if made is None:
            return STOPPED
        _ended(made.facts(), map(str, made.rows), made.problems, options)
        return _apply(dataset_tools.draft_balance(made, request.data, request.index), control, options)


def _back(options: argparse.Namespace) -> int:
    from lib_lora_trainer.app import dataset_tools

    if not options.dry_run:
        return _follow(getattr(dataset_tools, options.direction)(options.folder), options)
    entry = dataset_tools.next_to(options.direction, options.folder)
    text = f"{options.direction}: {entry.text} ({entry.time})" if entry else f"There is nothing to {options.direction}."
    return _follow([Note("note", text)], options)


def _holding(options: argparse.Namespace) -> int:
    from lib_lora_trainer.app import dataset_tools

    if options.empty and not options.dry_run:
        return _follow(dataset_tools.empty_holding(options.folder), options)
    held = [
        {**asdict(each), "path": str(each.path), "file": str(each.file)} for each in dataset_tools.held(options.folder)
    ]
    return _ended(
        {"held": held}, [f"{each['path']}: {each['file']}, {each['bytes']} bytes" for each in held], (), options
    )
