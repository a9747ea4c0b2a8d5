"""Chosen pictures go elsewhere with their captions and masks: excluded, taken in again, moved, copied, removed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from lib_lora_trainer.base.errors import DataError, Problem, ProblemsFound
from lib_lora_trainer.dataset.caption_files import find_caption
from lib_lora_trainer.dataset.entries import absolute, printable
from lib_lora_trainer.dataset.formats import FORMATS, OTHER_PICTURES
from lib_lora_trainer.dataset.journal import Held
from lib_lora_trainer.dataset.tools.companions import copied_path, copies, following, leaving, moved_path
from lib_lora_trainer.dataset.tools.disk import copied
from lib_lora_trainer.dataset.tools.members import EXCLUDED, Dataset, Member
from lib_lora_trainer.dataset.tools.names import Names
from lib_lora_trainer.dataset.tools.operations import Operation, Proposal, emptied, move, replace, shown, write


def exclude(dataset: Dataset, paths: Iterable[Path]) -> Iterator[Proposal]:
    """Yield the move of each picture into the hidden folder `.excluded`, under the same subfolder; scans pass it over.

    Raises ProblemsFound naming every path that is no picture of the dataset; so do all of these functions.
    """
    return _each(dataset, paths, lambda member, names: _elsewhere(dataset, member, _inside(dataset, member), names))


def move_to(dataset: Dataset, paths: Iterable[Path], folder: Path) -> Iterator[Proposal]:
    """Yield the move of each picture into a folder of the dataset. Raises DataError for a folder outside of it."""
    target = _own(dataset, folder)
    return _each(dataset, paths, lambda member, names: _elsewhere(dataset, member, target, names))


def copy_to(dataset: Dataset, paths: Iterable[Path], folder: Path) -> Iterator[Proposal]:
    """Yield a copy of each picture in a folder of the dataset. Raises DataError for a folder outside of it."""
    target = _own(dataset, folder)

    def copy(member: Member, names: Names) -> tuple[list[Operation], Path]:
        path = copied_path(dataset, member, target, names)
        return [write(path, partial(copied, member.path)), *copies(dataset, member, path)], path

    return _each(dataset, paths, copy)


def remove_all(dataset: Dataset, paths: Iterable[Path]) -> Iterator[Proposal]:
    """Yield the removal of each picture into the holding, with the captions and the mask that no other picture has."""
    return _each(dataset, paths, lambda member, _: (leaving(member), None))


def excluded(dataset: Dataset) -> tuple[Path, ...]:
    """Return the pictures that are excluded, in order."""
    hidden = dataset.root / EXCLUDED
    kinds = FORMATS.keys() | OTHER_PICTURES
    return tuple(sorted(path for path in hidden.rglob("*") if path.suffix.lower() in kinds and path.is_file()))


def include(dataset: Dataset, paths: Iterable[Path]) -> Iterator[Proposal]:
    """Yield the way back of each excluded picture to where it was; a taken name gets a number."""
    known = frozenset(excluded(dataset))
    hidden = [_hidden_member(dataset, absolute(str(path)), known) for path in paths]
    names = Names()
    for member in hidden:
        back = dataset.root / member.path.parent.relative_to(dataset.root / EXCLUDED)
        operations, target = _elsewhere(dataset, member, back, names)
        operations += emptied(member.path.parent, dataset.root)
        if dataset.masks is not None:
            operations += emptied(dataset.masks / member.path.parent.relative_to(dataset.root), dataset.masks)
        yield Proposal(member.path, tuple(operations), {}, {"file": shown(target, dataset.root)})


def restore(held: Iterable[Held]) -> Iterator[Proposal]:
    """Yield the return of originals from the holding to where they were, as copies: the holding keeps them.

    What lies there now goes to the holding in its turn.
    """
    for item in held:
        act = replace if os.path.lexists(item.path) else write
        yield Proposal(item.path, (act(item.path, partial(copied, item.file)),), {}, {"bytes": item.bytes})


def _hidden_member(dataset: Dataset, path: Path, known: frozenset[Path]) -> Member:
    if path not in known:
        raise DataError(f"{printable(path)}: is no excluded picture of this dataset. Choose one in {EXCLUDED}.")
    captions = tuple(filter(None, (find_caption(path, (extension,)) for extension in dataset.extensions)))
    mask = None
    if dataset.masks is not None:
        places = [dataset.masks / path.parent.relative_to(dataset.root)]
        if all(member.path.stem != path.stem for member in dataset.everyone):
            places.append(dataset.masks)
        found = (place / f"{path.stem}{suffix}" for place in places for suffix in sorted(FORMATS))
        mask = next((file for file in found if file.is_file()), None)
    return Member(path, captions, mask)


def _inside(dataset: Dataset, member: Member) -> Path:
    return dataset.root / EXCLUDED / member.path.parent.relative_to(dataset.root)


def _own(dataset: Dataset, folder: Path) -> Path:
    target = absolute(str(dataset.root / folder))
    if not target.is_relative_to(dataset.root):
        raise DataError(
            f"{printable(target)}: is not in the dataset {printable(dataset.root)}, whose journal could not undo it. "
            "Choose a folder inside."
        )
    return target


def _elsewhere(dataset: Dataset, member: Member, folder: Path, names: Names) -> tuple[list[Operation], Path]:
    if folder == member.path.parent:
        return [], member.path
    target = moved_path(dataset, member, folder, names)
    return [move(member.path, target), *following(dataset, member, [target])], target


def _each(
    dataset: Dataset, paths: Iterable[Path], act: Callable[[Member, Names], tuple[list[Operation], Path | None]]
) -> Iterator[Proposal]:
    members, problems = [], []
    for path in dict.fromkeys(absolute(str(dataset.root / path)) for path in paths):
        member = dataset.member(path)
        if member is None:
            text = "is no picture of this dataset."
            problems.append(Problem("error", printable(path), text, "Choose one that a scan of the folder finds."))
        else:
            members.append(member)
    if problems:
        raise ProblemsFound(tuple(problems))
    names = Names()
    for member in members:
        operations, target = act(member, names)
        after = {"file": shown(target, dataset.root)} if target else {}
        yield Proposal(member.path, tuple(operations), {"file": shown(member.path, dataset.root)}, after)
