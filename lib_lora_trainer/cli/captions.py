"""The command `captions`: numbers, edits and clean-up of captions, each shown first, done through the journal, undoable."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.base.events import Note
from lib_lora_trainer.base.setting import Setting
from lib_lora_trainer.captions.cleaning.propose import RULES
from lib_lora_trainer.captions.cleaning.values import CleanOptions, CleanProposal
from lib_lora_trainer.captions.edits import EDITS
from lib_lora_trainer.cli import captions_triggers, speech
from lib_lora_trainer.cli.arguments import folder_command
from lib_lora_trainer.cli.dataset_speech import apply, ended, follow
from lib_lora_trainer.cli.training import interruptible

if TYPE_CHECKING:
    from lib_lora_trainer.app.caption_jobs import Loaded, Selection
    from lib_lora_trainer.app.dataset_tools import Draft

SHOWN = 20
"""Tags that are listed at most, in words; with --json all are."""


def add(commands: Any) -> None:
    """Add the command `captions`, with a command for each thing to do, to a parser's commands."""
    text = "look at a dataset's captions, and change them so that everything can be undone"
    parts = commands.add_parser("captions", help=text, description=text).add_subparsers(required=True, metavar="ACTION")
    stats = folder_command(parts, "stats", _stats, "say how often each tag occurs, and with which others")
    stats.add_argument("--with", dest="beside", metavar="TAG", default="", help="only what occurs together with this")
    _add_selection(stats)
    text = "change captions: add, remove, replace, move or sort tags, and more"
    kinds = parts.add_parser("edit", help=text, description=text).add_subparsers(required=True, metavar="EDIT")
    for name, edit in EDITS.items():
        command = folder_command(kinds, name, _edit, edit.title)
        command.set_defaults(edit=name)
        _add_fields(command, edit.options)
        _add_changing(command)
    clean = folder_command(parts, "clean", _clean, f"propose and do clean-up: {', '.join(RULES.values()).lower()}")
    _add_fields(clean, CleanOptions)
    clean.add_argument("--on", action="append", default=[], metavar="TEXT", help="switch a proposal on, as it is told")
    clean.add_argument("--off", action="append", default=[], metavar="TEXT", help="switch a proposal off")
    _add_changing(clean)
    for name, about in (("undo", "take the latest change back"), ("redo", "do again what was taken back last")):
        back = folder_command(parts, name, _back, about)
        back.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
        back.set_defaults(direction=name)
    captions_triggers.add(parts)


def _add_selection(command: argparse.ArgumentParser) -> None:
    text = "only captions that a filter fits, such as 'tag:smile AND NOT *_hair' or 'folder:hats count>5'"
    command.add_argument("--where", metavar="FILTER", default="", help=text)
    command.add_argument(
        "--only", type=Path, action="append", default=[], metavar="FILE", help="only this picture; repeated for several"
    )


def _add_changing(command: argparse.ArgumentParser) -> None:
    _add_selection(command)
    command.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")


def _settings(kind: type) -> Iterator[tuple[str, Any, Setting]]:
    default = kind()
    for field in dataclasses.fields(kind):
        yield field.name, getattr(default, field.name), field.metadata["setting"]


def _add_fields(command: argparse.ArgumentParser, kind: type) -> None:
    """Add an option for every setting; absent ones keep their defaults."""
    for name, default, about in _settings(kind):
        option, text = f"--{name.replace('_', '-')}", about.help.replace("%", "%%")
        if isinstance(default, bool):
            command.add_argument(option, action=argparse.BooleanOptionalAction, default=None, help=text)
        elif isinstance(default, tuple):
            command.add_argument(option, action="append", default=None, metavar="TEXT", help=text)
        elif about.choices:
            command.add_argument(option, choices=about.choices, default=None, help=text)
        else:
            command.add_argument(option, type=type(default), default=None, metavar=name.upper(), help=text)


def _chosen(options: argparse.Namespace, kind: type) -> Any:
    given = {name: getattr(options, name) for name, _, _ in _settings(kind)}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return kind(**{name: value for name, value in values.items() if value is not None})


def _loaded(options: argparse.Namespace) -> Loaded:
    """Return the captions of the folder, with the settings of the config or plain ones."""
    from lib_lora_trainer.app import caption_jobs
    from lib_lora_trainer.config import run
    from lib_lora_trainer.config.data import DataConfig, SourceConfig
    from lib_lora_trainer.dataset.entries import absolute, real

    folder = absolute(str(options.folder))
    if options.config is None:
        return caption_jobs.load(DataConfig(sources=(SourceConfig(str(folder)),)))
    data = run.read(options.config).data
    for number, source in enumerate(data.sources):
        if real(absolute(source.path)) == real(folder):
            return caption_jobs.load(data, number)
    known = ", ".join(source.path for source in data.sources) or "none"
    raise ConfigError(f"{folder}: is no source of {options.config}. Its sources: {known}.")


def _selection(options: argparse.Namespace, loaded: Loaded) -> Selection:
    from lib_lora_trainer.app import caption_jobs

    pictures = tuple(path if path.is_absolute() else loaded.root / path for path in options.only)
    for picture in pictures:
        if picture not in loaded.by_picture:
            raise ConfigError(f"{picture}: is no picture of {loaded.root}. Name it from the dataset's folder on.")
    return caption_jobs.Selection(pictures or None, options.where, caption_jobs.scores_of(loaded.root))


def _edit(options: argparse.Namespace) -> int:
    from lib_lora_trainer.app import caption_jobs

    loaded = _loaded(options)
    chosen = _chosen(options, EDITS[options.edit].options)
    return _carry_out(caption_jobs.draft(chosen, loaded, _selection(options, loaded)), loaded, options)


def _clean(options: argparse.Namespace) -> int:
    from lib_lora_trainer.app import caption_jobs

    loaded = _loaded(options)
    selection = _selection(options, loaded)
    found = caption_jobs.clean(
        _chosen(options, CleanOptions), loaded, selection, caption_jobs.tagger_facts(loaded.root)
    )
    unknown = {*options.on, *options.off} - {each.what for each in found}
    if unknown:
        known = "; ".join(each.what for each in found) or "none"
        raise ConfigError(f"{min(unknown)!r}: nothing like that is proposed. Proposed: {known}.")
    switched = [
        dataclasses.replace(each, on=(each.on or each.what in options.on) and each.what not in options.off)
        for each in found
    ]
    content = {"event": "clean", "proposals": [_described(each, loaded) for each in switched]}
    ended(content, _lines(switched), (), options)
    return _carry_out(caption_jobs.draft_clean(switched, loaded, selection), loaded, options)


def _lines(found: list[CleanProposal]) -> Iterator[str]:
    for each in found:
        yield f"[{'x' if each.on else ' '}] {RULES[each.rule]}: {each.what} ({len(each.files)} captions). {each.why}"


def _described(each: CleanProposal, loaded: Loaded) -> dict[str, Any]:
    from lib_lora_trainer.dataset.tools.operations import shown

    files = [shown(path, loaded.root) for path in each.files]
    return {"rule": each.rule, "what": each.what, "why": each.why, "on": each.on, "files": files}


def _carry_out(made: Draft, loaded: Loaded, options: argparse.Namespace) -> int:
    """Show a draft, do it unless that is all that was asked for, and return the exit status."""
    from lib_lora_trainer.app import caption_jobs

    _tell_unread(loaded, options)
    if not options.json:
        for change in caption_jobs.changes(made) if options.dry_run else ():
            speech.say(f"- {change.before}\n+ {change.after}")
        for count in caption_jobs.tag_counts(made, loaded)[:SHOWN]:
            speech.say(f"{count.tag}: {count.removed} captions lose it, {count.added} get it")
    with interruptible() as control:
        return apply(made, control, options)


def _tell_unread(loaded: Loaded, options: argparse.Namespace) -> None:
    """Say which caption files cannot be read: nothing touches them."""
    if loaded.problems:
        follow([Note(each.severity, str(each)) for each in loaded.problems], options)


def _stats(options: argparse.Namespace) -> int:
    from lib_lora_trainer.app import caption_jobs
    from lib_lora_trainer.captions import frequency

    loaded = _loaded(options)
    files = caption_jobs.selected(loaded, _selection(options, loaded))
    captions = {file.path: loaded.parsed[file.path] for file in files}
    if options.beside:
        pairs = frequency.together(captions.values(), options.beside)
        lines = [f"{tag}: {count}" for tag, count in pairs[:SHOWN]]
        return ended({"with": options.beside, "tags": dict(pairs)}, lines, loaded.problems, options)
    summary, rows = frequency.summary(captions.values()), frequency.table(captions, loaded.root)
    content = {"summary": dataclasses.asdict(summary), "tags": [dataclasses.asdict(row) for row in rows]}
    first = (
        f"{summary.captions} captions ({summary.empty} empty, {summary.prose} with sentences), {summary.distinct} tags, "
        f"{summary.tags:.1f} per caption, at most {summary.most}; {summary.once} tags occur once"
    )
    return ended(content, [first, *(f"{row.tag}: {row.captions}" for row in rows[:SHOWN])], loaded.problems, options)


def _back(options: argparse.Namespace) -> int:
    from lib_lora_trainer.app import dataset_tools

    if not options.dry_run:
        return follow(getattr(dataset_tools, options.direction)(options.folder), options)
    entry = dataset_tools.next_to(options.direction, options.folder)
    text = f"{options.direction}: {entry.text} ({entry.time})" if entry else f"There is nothing to {options.direction}."
    return follow([Note("note", text)], options)
