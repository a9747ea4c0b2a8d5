"""Reading a settings file that somebody hands in, ours or another trainer's, and what it makes of a project."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from lib_lora_trainer.app.projects import Project
from lib_lora_trainer.base import files
from lib_lora_trainer.base.errors import ConfigError, ProblemsFound, UserError
from lib_lora_trainer.config import importing
from lib_lora_trainer.config import run as run_config
from lib_lora_trainer.config.importing import Imported, documents
from lib_lora_trainer.config.paths import flat, put
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.ui import fields, file_form

_OURS = ("version", "data", "adapter", "optimizer", "training", "save", "samples", "name", "triggers")
_OF_THE_PROJECT = ("base_model", "name", "triggers", "comment", "data.sources", "samples.prompts")
"""What a project keeps where another trainer's file does not say it."""

_SHOWN = 120  # characters of a value


@dataclass(frozen=True)
class Read:
    """A settings file. foreign: what another trainer's says; None for ours."""

    config: RunConfig
    foreign: Imported | None = None


def from_text(text: str, name: str, project: Project, gate: Callable[[], None]) -> Read:
    """Return what a file's text says; relative paths in it are taken from the project's folder.

    name: of the file, for messages. gate: called before a file of another trainer is read, which may name others on
    this machine. Raises ConfigError or ProblemsFound.
    """
    if not text.strip():
        raise ConfigError("settings file: it is empty. Open a file, or paste one.")
    called = PurePath(name.replace("\\", "/")).name or "settings file"
    path = project.folder / f".import-{secrets.token_hex(4)}"  # there, because of the relative paths in it
    try:
        files.write_text(path, text)
        return _read(path, gate)
    except ProblemsFound as error:
        shown = (replace(problem, where=problem.where.replace(str(path), called)) for problem in error.problems)
        raise ProblemsFound(tuple(shown)) from error
    except UserError as error:
        raise ConfigError(str(error).replace(str(path), called)) from error
    finally:
        path.unlink(missing_ok=True)


def from_path(path: str) -> Read:
    """Return what a file on this machine says; relative paths in it are taken from its folder."""
    wanted = path.strip().strip('"')
    if not wanted:
        raise ConfigError("settings file: no path is entered. Enter where the file is.")
    return _read(Path(wanted).expanduser(), _open)


def onto(config: RunConfig, read: Read) -> RunConfig:
    """Return a project's settings as the file has them.

    Ours replaces everything. Another trainer's does, too, but what such files do not say of a project stays: its name,
    triggers, folders and sample prompts where it has none. A file about datasets alone changes nothing else.
    """
    if read.foreign is None:
        return read.config
    settings = [setting for _, setting in read.foreign.mapped] + [path for path, _ in read.foreign.assumed]
    said = {setting.partition("[")[0] for setting in settings}
    known = dict(flat(read.config))
    if read.foreign.kind == "sd-scripts dataset":
        for path in said & set(known):
            config = put(config, path, known[path])
        return config
    merged, before = read.config, dict(flat(config))
    for path in _OF_THE_PROJECT:
        if path not in said:
            merged = put(merged, path, before[path])
    return merged


def html(read: Read) -> str:
    """Return what became of another trainer's file; "" for ours, where nothing is left out."""
    found = read.foreign
    if found is None:
        return ""
    taken = [(key, fields.label_of(setting), _value(found.config, setting)) for key, setting in found.mapped]
    left = [(entry.key, _short(entry.value), entry.reason) for entry in found.unmapped]
    assumed = [(fields.label_of(path), _short(fields.shown(value))) for path, value in found.assumed]
    return file_form.result_html(found.kind, file_form.Result(taken, left, assumed, found.silent))


def _read(path: Path, gate: Callable[[], None]) -> Read:
    try:
        return Read(run_config.read(path))
    except UserError as error:
        ours = error
    gate()
    try:
        found = importing.read(path)
    except ConfigError:
        if _looks_like_ours(path):
            raise ours from None
        raise
    return Read(found.config, found)


def _open() -> None:
    """Let a file that was named here be read; whoever calls has asked before."""


def _looks_like_ours(path: Path) -> bool:
    """Return whether mistakes in a file should be told as mistakes in a file of ours."""
    try:
        content = documents.table(path)
    except ConfigError:
        return False
    return any(key in _OURS for key in content)


def _value(config: RunConfig, setting: str) -> str:
    known, folder = dict(flat(config)), fields.folder_of(setting)
    if setting in known:
        return _short(fields.shown(known[setting]))
    if folder is None or folder >= len(config.data.sources):
        return ""
    return _short(fields.shown(getattr(config.data.sources[folder], setting.rpartition(".")[2], "")))


def _short(value: object) -> str:
    text = value if isinstance(value, str) else fields.shown(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
