"""Pictures change folders: sorted by bucket, or from nested folders into one level; their weights stay the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lib_lora_trainer.base.errors import ConfigError, Problem
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.folders import Folder
from lib_lora_trainer.dataset.items import Scan
from lib_lora_trainer.dataset.repeats import MULTIPLY_FILE, factor_in_file, number_in_name, words_in_name
from lib_lora_trainer.dataset.tools.bucket_report import Placed, placed
from lib_lora_trainer.dataset.tools.companions import following, moved_path
from lib_lora_trainer.dataset.tools.disk import copied
from lib_lora_trainer.dataset.tools.members import Dataset, Member
from lib_lora_trainer.dataset.tools.names import LIMIT, Names, fitted
from lib_lora_trainer.dataset.tools.operations import Operation, Proposal, emptied, move, shown, write

BETWEEN = "~"  # joins the names of nested folders, as in 17_characters~fanart~Name


def by_bucket(dataset: Dataset, scan: Scan) -> Iterator[Proposal]:
    """Yield for each picture of the scan its move into a folder named after its bucket, such as 512x768.

    The folders are made inside the pictures' own, so that the number in front of those still counts; a `multiply.txt`,
    which does not reach into folders, is copied. At several resolutions the first one's bucket counts. A picture that
    lies in the right folder stays. Raises ConfigError for a source without its subfolders.
    """
    if not dataset.data.sources[dataset.index].recursive:
        raise ConfigError("recursive: the source leaves out subfolders. Switch them on to sort into some.")
    names = Names()
    first: dict[Path, Placed] = {}
    for each in placed(scan, dataset.data):
        first.setdefault(each.path, each)
    made: set[Path] = set()
    for member in dataset.members:
        view = first.get(member.path)
        if view is None:
            continue
        own, folder = member.path.parent, member.path.parent / view.facts()["bucket"]
        if own.name == folder.name:
            yield Proposal(member.path, before=view.facts())
            continue
        operations = _moved(dataset, member, folder, names)
        factor = multiply_file(own)
        if factor is not None and folder not in made and not (folder / MULTIPLY_FILE).exists():
            operations.append(write(folder / MULTIPLY_FILE, partial(copied, factor)))
        told = () if folder in made else _about_captions(dataset, own)
        made.add(folder)
        yield _proposal(dataset, member, operations, view.facts(), told)


def flattened(dataset: Dataset) -> Iterator[Proposal]:
    """Yield for each picture in a nested folder its move to a folder named N_words directly in the dataset's own.

    N is the number that counted for it, the words are those of the folders it lay in, joined by ~; so every picture
    keeps its repeats. A `multiply.txt` goes along. Pictures directly in the dataset's folder, and those one level down in
    a numbered folder, stay. Emptied folders go.
    """
    names = Names()
    members: dict[Path, list[Member]] = {}
    for member in dataset.members:
        members.setdefault(member.path.parent, []).append(member)
    for folder in dataset.folders:
        inside = folder.path.relative_to(dataset.root).parts
        if (
            folder.path not in members
            or len(inside) == 0
            or (len(inside) == 1 and number_in_name(inside[0]) is not None)
        ):
            continue
        yield from _level(dataset, folder, members[folder.path], names)


def _level(dataset: Dataset, folder: Folder, members: Sequence[Member], names: Names) -> Iterator[Proposal]:
    file = multiply_file(folder.path)
    number = round(folder.repeats / factor_in_file(file)) if file else folder.repeats
    parts = [words_in_name(part) or part for part in folder.path.relative_to(dataset.root).parts]
    words = BETWEEN.join(part for part in parts if part)
    target = names.folder(dataset.root, fitted(f"{number:g}_{words}", LIMIT - len("-999")))
    for member in members:
        yield _proposal(dataset, member, _moved(dataset, member, target, names), {"repeats": folder.repeats})
    leavings: list[Operation] = [move(file, target / file.name)] if file else []
    leavings += emptied(folder.path, dataset.root)
    if dataset.masks is not None:
        leavings += emptied(dataset.masks / folder.path.relative_to(dataset.root), dataset.masks)
    after = {"folder": shown(target, dataset.root), "repeats": folder.repeats, "pictures": len(members)}
    yield Proposal(
        folder.path, tuple(leavings), {"repeats": folder.repeats}, after, _about_captions(dataset, folder.path)
    )


def _about_captions(dataset: Dataset, folder: Path) -> tuple[Problem, ...]:
    source = dataset.data.sources[dataset.index]
    if not source.regularization or source.fallback_caption.strip():
        return ()
    text = "regularization images without caption are trained with their folder's name, which becomes another one."
    return (Problem("note", printable(folder), text, "Set the source's caption when missing."),)


def _moved(dataset: Dataset, member: Member, folder: Path, names: Names) -> list[Operation]:
    target = moved_path(dataset, member, folder, names)
    return [move(member.path, target), *following(dataset, member, [target])]


def _proposal(
    dataset: Dataset,
    member: Member,
    operations: Sequence[Operation],
    before: Mapping[str, Any],
    problems: tuple[Problem, ...] = (),
) -> Proposal:
    to = next(operation.to for operation in operations if operation.path == member.path)
    assert to is not None
    return Proposal(member.path, tuple(operations), before, {**before, "file": shown(to, dataset.root)}, problems)


def multiply_file(folder: Path) -> Path | None:
    """Return the file whose number multiplies a folder, None if there is none; its case may differ."""
    files = sorted(path for path in folder.iterdir() if path.name.lower() == MULTIPLY_FILE)
    stem = MULTIPLY_FILE.partition(".")[0]
    taken = any(path.stem.lower() == stem and path not in files for path in folder.iterdir())
    return files[0] if files and not taken else None
