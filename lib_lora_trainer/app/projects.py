"""Projects: one folder each, with `project.toml` and the runs; two editors never lose each other's changes silently."""

from __future__ import annotations

import functools
import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_lora_trainer.base import codec, files
from lib_lora_trainer.base.errors import ConfigError, RunConflict
from lib_lora_trainer.config import run as run_config
from lib_lora_trainer.config.paths import flat, put
from lib_lora_trainer.config.run import RunConfig

FILE = "project.toml"


@dataclass(frozen=True)
class Project:
    """A project's name and its folder, which holds `project.toml`, `runs/` and `cache/`."""

    name: str
    folder: Path

    @property
    def file(self) -> Path:
        """The settings."""
        return self.folder / FILE

    @property
    def runs(self) -> Path:
        """One folder per run."""
        return self.folder / "runs"

    @property
    def cache(self) -> Path:
        """What can be computed again: thumbnails."""
        return self.folder / "cache"


@dataclass(frozen=True)
class Snapshot:
    """The settings as they were in the file, with the version of that file's content."""

    config: RunConfig
    version: str


@dataclass(frozen=True)
class Difference:
    """One setting that two configurations have differently; path is dotted."""

    path: str
    first: Any
    second: Any


@dataclass(frozen=True)
class Merged:
    """Two editors' changes together.

    arrived: what the other editor changed; refused: own changes that lost, because the other editor changed the same
    setting (first = own value, second = the other's, which is kept).
    """

    config: RunConfig
    arrived: tuple[Difference, ...]
    refused: tuple[Difference, ...]


def names(root: Path) -> tuple[str, ...]:
    """Return the names of all projects under `root`, the one changed last first."""
    if not root.is_dir():
        return ()
    found = [folder for folder in root.iterdir() if (folder / FILE).is_file()]
    return tuple(folder.name for folder in sorted(found, key=lambda f: (f / FILE).stat().st_mtime, reverse=True))


def create(root: Path, name: str) -> Project:
    """Make a project with default settings. Raises ConfigError for an impossible name or one that is taken."""
    name = files.check_name(name.strip(), "project name")
    taken = {other.casefold(): other for other in names(root)}
    if name.casefold() in taken:
        raise ConfigError(
            f"project name: {taken[name.casefold()]!r} exists already. Choose it in the list or use another name."
        )
    project = Project(name, root / name)
    save(project, RunConfig(name=name), "")
    return project


def find(root: Path, name: str) -> Project:
    """Return the project of that name. Raises ConfigError when there is none."""
    project = Project(files.check_name(name, "project name"), root / name)
    if not project.file.is_file():
        known = ", ".join(names(root)) or "none yet"
        raise ConfigError(f"project name: {name!r} does not exist. Projects: {known}.")
    return project


def load(project: Project) -> Snapshot:
    """Return the settings in the project's file. Raises ConfigError or ProblemsFound when the file is broken."""
    data = _content(project)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{project.file}: is not UTF-8 text: {error}. Restore it from a backup.") from error
    config = codec.from_toml(RunConfig, text, str(project.file), run_config.MIGRATIONS)
    return Snapshot(run_config.with_absolute_sources(config, project.folder), _version(data))


def version(project: Project) -> str:
    """Return the version of the file's content; "" when there is no file."""
    return _version(_content(project)) if project.file.is_file() else ""


def save(project: Project, config: RunConfig, base: str) -> str:
    """Write the settings atomically and return their new version.

    base: the version the editor started from ("" for a new project). Raises RunConflict, and writes nothing, when the
    file holds other content by now; writing what is already there is never a conflict.
    """
    text = codec.to_toml(config)
    with _lock(str(project.file.resolve())):
        now = version(project)
        new = _version(text.encode())
        if now == new:
            return new
        if now != base:
            raise RunConflict(f"{project.name}: the settings were changed elsewhere meanwhile. Load them again.")
        files.write_text(project.file, text)
    return new


def differences(first: RunConfig, second: RunConfig) -> tuple[Difference, ...]:
    """Return every setting that differs, in the order of declaration."""
    left, right = dict(flat(first)), dict(flat(second))
    return tuple(Difference(path, left[path], right[path]) for path in left if left[path] != right[path])


def merge(base: RunConfig, mine: RunConfig, theirs: RunConfig) -> Merged:
    """Return `theirs` with what `mine` changed since `base`; where both changed one setting, theirs stays."""
    arrived = differences(base, theirs)
    foreign = {difference.path for difference in arrived}
    refused = tuple(d for d in differences(mine, theirs) if d.path in foreign and dict(flat(base))[d.path] != d.first)
    config = theirs
    for difference in differences(base, mine):
        if difference.path not in foreign:
            config = put(config, difference.path, difference.second)
    return Merged(config, arrived, refused)


def _content(project: Project) -> bytes:
    try:
        return project.file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{project.file}: cannot be read: {error}. Check the folder.") from error


def _version(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


@functools.cache
def _lock(_file: str) -> threading.Lock:
    # One lock per project file, so that two browsers cannot both pass the version check before either writes.
    return threading.Lock()
