"""What a project's concepts are balanced to, and what was balanced last: kept in `balance.json` of the project."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace

from lib_lora_trainer.app.projects import Project
from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.base.files import write_text
from lib_lora_trainer.dataset.items import Scan
from lib_lora_trainer.dataset.repeats import words_in_name
from lib_lora_trainer.dataset.tools.options import GRADES, Goal

FILE = "balance.json"


@dataclass(frozen=True)
class Repeats:
    """A source's repeats, which were set when its folder could not be renamed."""

    path: str
    before: int
    after: int


@dataclass(frozen=True)
class Balanced:
    """A balancing that was done. entries: (folder, number) of the journals' entries; time: ISO 8601."""

    text: str
    time: str
    entries: tuple[tuple[str, int], ...]
    repeats: tuple[Repeats, ...]
    undone: bool = False


@dataclass(frozen=True)
class Aim:
    """What concepts are balanced to. exposures, part, budget: as in `Goal`; grades: by `key_of` a folder."""

    exposures: int = Goal().exposures
    part: int = Goal().part
    budget: int = Goal().budget
    grades: dict[str, str] = field(default_factory=dict)
    balanced: Balanced | None = None

    def goal(self, scan: Scan, epochs: int) -> Goal:
        """Return the goal for the concepts of a scan."""
        keys = {concept.name: key_of(concept.name) for concept in scan.concepts}
        grades = {name: self.grades[key] for name, key in keys.items() if key in self.grades}
        return Goal(self.exposures, self.part, max(1, epochs), self.budget, grades)


def key_of(concept: str) -> str:
    """Return a concept's name without the numbers that balancing changes, so that a folder keeps its grade."""
    return "/".join(map(words_in_name, concept.split("/")))


def load(project: Project) -> Aim:
    """Return a project's aim, the usual one when none was set. Raises ConfigError for a broken file."""
    path = project.folder / FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        last = values.pop("balanced")
        if last is not None:
            entries = tuple((str(root), int(number)) for root, number in last.pop("entries"))
            repeats = tuple(Repeats(**each) for each in last.pop("repeats"))
            last = Balanced(**last, entries=entries, repeats=repeats)
        return Aim(**values, balanced=last)
    except FileNotFoundError:
        return Aim()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}. Delete it; grades and goal are then the usual.") from error


def _save(project: Project, change: Callable[[Aim], Aim]) -> Aim:
    """Write the aim with one change, whatever another browser has changed in it meanwhile."""
    path = project.folder / FILE
    with _lock(str(path.resolve())):
        aim = change(load(project))
        write_text(path, json.dumps(asdict(aim), ensure_ascii=False, indent=1) + "\n")
    return aim


def remember(project: Project, balanced: Balanced) -> None:
    """Keep what was balanced last."""
    _save(project, lambda aim: replace(aim, balanced=balanced))


def set_numbers(project: Project, exposures: int, part: int, budget: int) -> Aim:
    """Keep how often concepts are to be shown."""
    return _save(project, lambda aim: replace(aim, exposures=exposures, part=part, budget=budget))


def set_grade(project: Project, key: str, grade: str) -> Aim:
    """Keep a folder's grade. Raises ConfigError for a letter that is none."""
    if grade not in GRADES:
        raise ConfigError(f"grade: {grade!r} is no grade. Use one of {', '.join(GRADES)}.")
    return _save(project, lambda aim: replace(aim, grades={**aim.grades, key: grade}))


@functools.cache
def _lock(_file: str) -> threading.Lock:
    # One for each file, so that two browsers cannot both read it before either writes.
    return threading.Lock()
