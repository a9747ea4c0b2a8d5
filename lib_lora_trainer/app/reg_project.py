"""What a project keeps about its regularization images: their settings, where they are, how fast they were made."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

from lib_lora_trainer.app.projects import Project
from lib_lora_trainer.base import codec, files
from lib_lora_trainer.base.errors import ConfigError, ProblemsFound
from lib_lora_trainer.base.setting import range_problems
from lib_lora_trainer.config import regularization
from lib_lora_trainer.config.regularization import RegularizationConfig
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.dataset.entries import absolute, real

FILE, FOLDER, SPEEDS = "reg.toml", "reg", "reg-speeds.json"


@dataclass(frozen=True)
class Kept:
    """The settings as a project has them; version: of the file's content, "" where there is none yet."""

    options: RegularizationConfig = field(default_factory=RegularizationConfig)
    version: str = ""


def folder(project: Project) -> Path:
    """Return where a project's regularization images are."""
    return project.folder.absolute() / FOLDER


def load(project: Project) -> Kept:
    """Return a project's settings, the usual ones where none were saved.

    The file is what the command `reg` takes as its settings. Raises as `regularization.read`.
    """
    path = project.folder / FILE
    try:
        version = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except FileNotFoundError:
        return Kept()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}. Check the folder.") from error
    return Kept(regularization.read(path), version)


def save(project: Project, options: RegularizationConfig, before: RegularizationConfig) -> Kept:
    """Write a project's settings and return them; what another browser has changed since `before` is kept.

    Where both changed the same setting, this one stays. Raises ProblemsFound when a value is out of its range; then
    nothing is written.
    """
    problems = range_problems(options)
    if problems:
        raise ProblemsFound(tuple(problems))
    path = project.folder / FILE
    with _lock(str(path.absolute())):
        now = load(project)
        mine = {
            each.name: getattr(options, each.name)
            for each in dataclasses.fields(RegularizationConfig)
            if getattr(options, each.name) != getattr(before, each.name)
        }
        merged = replace(now.options, **mine)
        if merged != now.options:
            files.write_text(path, codec.to_toml(merged))
        return load(project)


def is_source(project: Project, config: RunConfig) -> bool:
    """Tell whether a run trains on the project's folder of regularization images."""
    place = real(folder(project))
    return any(
        source.regularization and source.path.strip() and real(absolute(source.path)) == place
        for source in config.data.sources
    )


def remember_speed(project: Project, model: str, seconds: float, work: float) -> None:
    """Keep how long images took. model: the checkpoint's name; work: pixels × steps of all of them."""
    path = project.cache / SPEEDS
    with _lock(str(path.absolute())):
        files.write_text(
            path, json.dumps({**_speeds(path), model: seconds / work}, ensure_ascii=False, indent=1) + "\n"
        )


def seconds_for(project: Project, model: str, work: float) -> float | None:
    """Return how long images would take, as `remember_speed` learned it; None where this model has made none yet."""
    speed = _speeds(project.cache / SPEEDS).get(model)
    return None if speed is None else speed * work


def _speeds(path: Path) -> dict[str, float]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a cache: what cannot be read is learned again
        return {}
    found = known.items() if isinstance(known, dict) else ()
    return {name: float(value) for name, value in found if isinstance(value, (int, float)) and math.isfinite(value)}


@functools.cache
def _lock(_file: str) -> threading.Lock:
    # One for each file, so that two browsers cannot both read it before either writes.
    return threading.Lock()
