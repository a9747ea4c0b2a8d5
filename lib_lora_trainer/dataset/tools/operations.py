"""What a tool proposes: operations on files, with the facts before and after them, for a preview and for the journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.tools.disk import Content

OperationKind = Literal["write", "replace", "move", "remove", "drop"]


@dataclass(frozen=True)
class Operation:
    """One change that is proposed.

    write: a new file at `path`. replace: other content for the file at `path`. move: the file or folder at `path` goes
    to `to`. remove: the file at `path` goes to the holding. drop: the folder at `path` goes, if it is empty by then.
    content: writes the new content to the path it is given; only of write and replace. It reads the files as they are
    before any operation of the same run. Paths are absolute.
    """

    kind: OperationKind
    path: Path
    to: Path | None = None
    content: Content | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Proposal:
    """What a tool would do about one picture, mask or folder.

    operations: none when there is nothing to do; before, after: facts in JSON's types; problems: what stands against
    it, or has to be known.
    """

    about: Path
    operations: tuple[Operation, ...] = ()
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def write(path: Path, content: Content) -> Operation:
    """Propose a new file."""
    return Operation("write", path, content=content)


def replace(path: Path, content: Content) -> Operation:
    """Propose other content for a file."""
    return Operation("replace", path, content=content)


def move(path: Path, to: Path) -> Operation:
    """Propose another place, or another name, for a file or a folder."""
    return Operation("move", path, to)


def remove(path: Path) -> Operation:
    """Propose to put a file into the holding."""
    return Operation("remove", path)


def drop(path: Path) -> Operation:
    """Propose to remove a folder if it is empty once everything else is done."""
    return Operation("drop", path)


def emptied(folder: Path, root: Path) -> list[Operation]:
    """Propose to remove a folder, and those around it up to `root`, as far as they exist and are empty by then."""
    above = [folder, *folder.parents]
    return [drop(place) for place in above[: above.index(root)] if place.is_dir()]


def operations_of(proposals: Iterable[Proposal]) -> tuple[Operation, ...]:
    """Return all operations of several proposals, those that drop folders last and the inner ones of them first."""
    found = [operation for proposal in proposals for operation in proposal.operations]
    drops = {operation.path: operation for operation in found if operation.kind == "drop"}
    others = [operation for operation in found if operation.kind != "drop"]
    return (*others, *(drops[path] for path in sorted(drops, key=lambda path: len(path.parts), reverse=True)))


def shown(path: Path, root: Path) -> str:
    """Return a path as people read it: from the dataset's folder on with forward slashes, or absolute outside of it."""
    return printable(path.relative_to(root) if path.is_relative_to(root) else path).replace("\\", "/")


def described(proposal: Proposal, root: Path) -> dict[str, Any]:
    """Return a proposal in JSON's types, paths as `shown`."""
    return {
        "about": shown(proposal.about, root),
        "operations": [
            {"kind": operation.kind, "path": shown(operation.path, root)}
            | ({"to": shown(operation.to, root)} if operation.to else {})
            for operation in proposal.operations
        ],
        "before": dict(proposal.before),
        "after": dict(proposal.after),
        "problems": [asdict(problem) for problem in proposal.problems],
    }
