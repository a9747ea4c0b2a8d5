"""The smallest changes to a dataset: each is done or not done, can be told apart by looking, and has an inverse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from stat import S_IMODE
from typing import Any, Literal, get_args

from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.tools.disk import Files, Identities

Kind = Literal["put", "take", "swap", "move", "make", "drop"]
Condition = Literal["ready", "done", "blocked"]
_KINDS = frozenset(get_args(Kind))
LENIENT = ("make", "drop")  # what they want may be so already, and a folder with something in it stays


@dataclass(frozen=True)
class Step:
    """One change.

    put: the file in `slot` goes to `path`. take: the file at `path` goes to `slot`. swap: the file in `slot` takes the
    place of the one at `path`, which goes to `held`. move: the file or folder at `path` goes to `to`. make, drop: the
    folder `path` comes to be, or goes if it is empty.
    path, to: relative to the dataset with forward slashes, or absolute; slot, held: relative to the entry's holding.
    digest: the identity of what goes to or from `path`; former: of what a swap replaces.
    """

    kind: Kind
    path: str
    to: str = ""
    slot: str = ""
    held: str = ""
    digest: str = ""
    former: str = ""


@dataclass(frozen=True)
class Site:
    """Where steps happen. root: the dataset; slots: the entry's part of the holding."""

    root: Path
    slots: Path
    files: Files
    identities: Identities

    def at(self, path: str) -> Path:
        """Return the place of a step's path."""
        return self.root / path

    def slot(self, name: str) -> Path:
        """Return the place of a slot."""
        return self.slots / name

    def identity(self, path: str) -> str:
        """Return what lies at a step's path."""
        return self.identities.of(self.at(path))

    def content(self, name: str) -> str:
        """Return what lies in a slot."""
        return self.identities.of(self.slot(name))


def to_mapping(step: Step) -> dict[str, str]:
    """Return a step's fields that are not empty."""
    return {name: value for name, value in vars(step).items() if value}


def from_mapping(values: Mapping[str, Any]) -> Step:
    """Return the step that `to_mapping` described. Raises ValueError or TypeError for anything else."""
    if values.get("kind") not in _KINDS or not values.get("path") or not all(map(_is_text, values.values())):
        raise ValueError(f"not a step: {values!r}")
    return Step(**values)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def inverse(step: Step) -> Step:
    """Return the step that takes a step back."""
    if step.kind == "swap":
        return replace(step, slot=step.held, held=step.slot, digest=step.former, former=step.digest)
    if step.kind == "move":
        return replace(step, path=step.to, to=step.path)
    opposite: dict[Kind, Kind] = {"put": "take", "take": "put", "make": "drop", "drop": "make"}
    return replace(step, kind=opposite[step.kind])


def inverses(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return the steps that take a sequence of steps back."""
    return tuple(inverse(step) for step in reversed(steps))


def condition(step: Step, site: Site) -> Condition:
    """Tell whether a step can be done, is done, or neither, which is somebody else's doing. Raises OSError."""
    if step.kind in LENIENT:
        return _of_folder(step, site)
    here = site.identity(step.path)
    if step.kind == "swap":
        if here == step.digest and site.content(step.held) == step.former:
            return "done"
        return "ready" if here == step.former and site.content(step.slot) == step.digest else "blocked"
    there = site.identity(step.to) if step.kind == "move" else site.content(step.slot)
    if step.kind == "put":
        here, there = there, here
    if here == step.digest and not there:
        return "ready"
    return "done" if there == step.digest and not here else "blocked"


def _of_folder(step: Step, site: Site) -> Condition:
    place = site.at(step.path)
    if place.is_dir():
        return "done" if step.kind == "make" else "ready"
    if site.identity(step.path):
        return "blocked"
    return "ready" if step.kind == "make" else "done"


def perform(step: Step, site: Site) -> None:
    """Do a step unless it is done. Raises DataError that names the file in its way, OSError from the file system."""
    now = condition(step, site)
    if now == "blocked":
        raise DataError(reason(step, site))
    if now == "done":
        return
    path, files = site.at(step.path), site.files
    if step.kind == "put":
        files.rename(site.slot(step.slot), path)
    elif step.kind == "take":
        files.rename(path, site.slot(step.slot))
    elif step.kind == "move":
        files.rename(path, site.at(step.to))
    elif step.kind == "make":
        files.make_folder(path)
    elif step.kind == "swap":
        _swap(step, site)
    elif not any(path.iterdir()):
        files.drop_folder(path)


def _swap(step: Step, site: Site) -> None:
    """Keep the old content under a second name first, so that neither path is ever without a whole file."""
    path, held, files = site.at(step.path), site.slot(step.held), site.files
    if site.content(step.held) != step.former:
        part = held.with_name(f"{held.name}.part")
        for leftover in (held, part):
            if site.identities.of(leftover):
                files.discard(leftover)
        if not _linked(path, held, files):
            files.copy(path, part)
            files.rename(part, held)
    mode = S_IMODE(path.lstat().st_mode)
    files.replace(site.slot(step.slot), path)
    if not held.is_symlink() and S_IMODE(held.lstat().st_mode) != mode:
        files.set_mode(held, mode)


def _linked(path: Path, held: Path, files: Files) -> bool:
    if path.is_symlink():  # whether a second name would be the link's or the file's depends on the system
        return False
    try:
        files.link(path, held)
    except OSError:  # file systems without second names, such as exFAT
        return False
    return True


def remaining(steps: Sequence[Step], site: Site) -> Sequence[Step]:
    """Return the steps still to be done of a sequence that was cut off: those behind the last one that is done.

    Steps are done in order, so whatever stands before one that is done was done as well, even where later ones have
    renamed the folder around it.
    """
    for index in range(len(steps) - 1, -1, -1):
        if steps[index].kind not in LENIENT and condition(steps[index], site) == "done":
            return steps[index + 1 :]
    return steps


def reason(step: Step, site: Site) -> str:
    """Return in words why a step is not ready."""
    path = printable(site.at(step.path))
    if step.kind in LENIENT:
        return f"{path}: is a file where a folder has to be. Move it away."
    here = site.identity(step.path)
    if step.kind == "put":
        if here:
            return f"{path}: exists already, with other content. Move it away, or give it another name."
        return f"{path}: its content is missing in {printable(site.slots)}. Nothing was put in its place."
    expected = step.former if step.kind == "swap" else step.digest
    if not here:
        return f"{path}: does not exist any more. Put it back, or leave this step as it is."
    if here != expected:
        return f"{path}: was changed meanwhile. Put its earlier content back, or leave this step as it is."
    if step.kind == "move":
        return f"{printable(site.at(step.to))}: exists already. Move it away, or give it another name."
    return f"{path}: its other content in {printable(site.slots)} is missing or damaged. Nothing was changed."
