"""The commands about datasets: each says what it would do, does it through the journal, and can be taken back."""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.base.events import Note
from lib_lora_trainer.base.setting import Setting
from lib_lora_trainer.cli.arguments import folder_command
from lib_lora_trainer.cli.dataset_speech import apply, ended, follow, heard
from lib_lora_trainer.cli.speech import DONE, STOPPED
from lib_lora_trainer.cli.training import interruptible
from lib_lora_trainer.dataset.tools.options import MASK_MODELS, OPTIONS, Goal, boxes_in, windows_in

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
    parts.choices["crop"].add_argument(
        "--window", action="append", default=[], metavar="FILE=FRAMING:LEFT,TOP,RIGHT,BOTTOM",
        help="a crop itself; of a picture that has one, exactly those given are made",
    )  # fmt: skip
    _add_resolution(parts.choices["upscale"])
    buckets = _command(parts, "buckets", _buckets, "say where training puts every picture, and what must be upscaled")
    buckets.add_argument("--sort", action="store_true", help="sort the pictures into folders named after their buckets")
    _add_resolution(buckets)
    masks = _command(parts, "mask", _masks, "find bad masks, take masks over from another folder, or make some")
    masks.add_argument(
        "--import", dest="taken_from", metavar="DIR", default="", help="take masks over from this folder"
    )
    masks.add_argument("--generate", action="store_true", help="make masks with a background-removal model")
    masks.add_argument("--model", choices=tuple(MASK_MODELS), default="isnet-anime", help="... with this one")
    masks.add_argument("--install", action="store_true", help="... and install it first, with rembg, if it is missing")
    masks.add_argument("--replace", action="store_true", help="import or make masks also for pictures that have one")
    _add_fields(masks, OPTIONS["mask"])
    text = "find near-duplicates, and put all but the best of each picture and each variant aside"
    _command(parts, "duplicates", _duplicates, text)
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
    command = folder_command(parts, name, run, text)
    command.add_argument("--masks", default="", metavar="DIR", help="the masks' folder, where there is no config")
    command.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    command.set_defaults(training_resolution=None, trigger=[])
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
    more: dict[str, Any] = {}
    if options.tool == "crop":
        boxes, windows = boxes_in(options.box, options.folder), windows_in(options.window, options.folder)
        more = {"boxes": boxes, "windows": windows}
    return _carry_out(options.tool, _chosen(options, options.kind, more), options)


def _files(options: argparse.Namespace) -> int:
    wish = OPTIONS["files"](options.action, tuple(options.files), options.to)
    if options.action in ("move", "copy") and not options.to:
        raise ConfigError(f"--to: is missing. Name the folder to {options.action} to.")
    return _carry_out("files", wish, options)


def _masks(options: argparse.Namespace) -> int:
    if options.generate or options.install:
        return _masks_made(options)
    if not options.taken_from:
        return _carry_out("mask", _chosen(options, OPTIONS["mask"], {}), options)
    more = {"folder": options.taken_from, "replace": options.replace}
    return _carry_out("mask-import", _chosen(options, OPTIONS["mask-import"], more), options)


def _masks_made(options: argparse.Namespace) -> int:
    from lib_lora_trainer.app import masking

    if options.install:
        absent = masking.missing(options.model)
        follow([Note("note", f"Needs {absent}." if absent else "All is installed.")], options)
        with interruptible() as control:
            status = (
                follow(masking.install(options.model, control), options) if absent and not options.dry_run else DONE
            )
        if status != DONE or not options.generate:
            return status
    with tempfile.TemporaryDirectory(prefix="lora-trainer-") as folder:
        made = masking.remover(options.model, Path(folder))
        more = {"model": options.model, "replace": options.replace, "remover": made}
        if options.holes is not None:
            more["holes"] = options.holes
        return _carry_out("mask-generate", OPTIONS["mask-generate"](**more), options)


def _carry_out(tool: str, wish: object, options: argparse.Namespace) -> int:
    """Say what a tool would do, and do it unless that is all that was asked for."""
    from lib_lora_trainer.app import dataset_tools

    with interruptible() as control:
        made: Draft | None = heard(dataset_tools.draft(tool, _request(options, wish), control), options)
        return STOPPED if made is None else apply(made, control, options)


def _scan(options: argparse.Namespace) -> int:
    from lib_lora_trainer.app import dataset_tools

    with interruptible() as control:
        found = heard(dataset_tools.look(_request(options, None), control), options)
    if found is None:
        return STOPPED
    concepts = [{**asdict(each), "folder": str(each.folder), "exposures": each.exposures} for each in found.concepts]
    content = {"pictures": len(found.items), "skipped": len(found.skipped), "concepts": concepts}
    lines = [f"{each.name}: {each.images} × {each.repeats:g} = {each.exposures:g}" for each in found.concepts]
    lines.append(f"{len(found.items)} pictures, {len(found.skipped)} left out")
    return ended(content, lines, found.problems, options)


def _buckets(options: argparse.Namespace) -> int:
    if options.sort:
        return _carry_out("sort", OPTIONS["sort"](), options)
    from lib_lora_trainer.app import dataset_tools

    with interruptible() as control:
        made = heard(dataset_tools.buckets(_request(options, None), control), options)
    if made is None:
        return STOPPED
    content = made.facts(options.folder.absolute())
    lines = [f"{name}: {count}" for name, count in content["buckets"].items()]
    lines += [f"must be upscaled: {name}" for name in content["must_be_upscaled"]]
    return ended(content, lines, made.problems, options)


def _duplicates(options: argparse.Namespace) -> int:
    from lib_lora_trainer.app import duplicate_jobs

    request = _request(options, None)
    with interruptible() as control:
        found = heard(duplicate_jobs.look(request, control), options)
        if found is None:
            return STOPPED
        root = options.folder.absolute()
        clusters = duplicate_jobs.facts(found, root)
        lines = [
            f"{each['keep']}: kept, {each['reason']}" if each["spare"] else f"{each['keep']}: kept, a variant"
            for cluster in clusters
            for each in cluster["copies"]
        ]
        lines.append(f"{len(clusters)} pictures in several files or variants, {len(duplicate_jobs.spare(found))} spare")
        status = ended({"clusters": clusters}, lines, found.problems, options)
        return max(status, apply(duplicate_jobs.draft(request, duplicate_jobs.spare(found)), control, options))


def _balance(options: argparse.Namespace) -> int:
    from lib_lora_trainer.app import dataset_tools

    grades = {name: grade for name, _, grade in (text.rpartition("=") for text in options.grade)}
    request = _request(options, _chosen(options, Goal, {"grades": grades}))
    with interruptible() as control:
        made = heard(dataset_tools.balance(request, control), options)
        if made is None:
            return STOPPED
        ended(made.facts(), map(str, made.rows), made.problems, options)
        return apply(dataset_tools.draft_balance(made, request.data, request.index), control, options)


def _back(options: argparse.Namespace) -> int:
    from lib_lora_trainer.app import dataset_tools

    if not options.dry_run:
        return follow(getattr(dataset_tools, options.direction)(options.folder), options)
    entry = dataset_tools.next_to(options.direction, options.folder)
    text = f"{options.direction}: {entry.text} ({entry.time})" if entry else f"There is nothing to {options.direction}."
    return follow([Note("note", text)], options)


def _holding(options: argparse.Namespace) -> int:
    from lib_lora_trainer.app import dataset_tools

    if options.empty and not options.dry_run:
        return follow(dataset_tools.empty_holding(options.folder), options)
    held = [
        {**asdict(each), "path": str(each.path), "file": str(each.file)} for each in dataset_tools.held(options.folder)
    ]
    return ended(
        {"held": held}, [f"{each['path']}: {each['file']}, {each['bytes']} bytes" for each in held], (), options
    )
