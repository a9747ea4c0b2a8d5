"""Captions and masks follow their pictures, wherever those go and however many come of one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from lib_lora_trainer.dataset.formats import FORMATS, OTHER_PICTURES
from lib_lora_trainer.dataset.tools.disk import copied
from lib_lora_trainer.dataset.tools.members import Dataset, Member
from lib_lora_trainer.dataset.tools.names import Names
from lib_lora_trainer.dataset.tools.operations import Operation, move, remove, write

PICTURES = tuple(sorted(FORMATS.keys() | OTHER_PICTURES))


def places(dataset: Dataset, folder: Path) -> list[tuple[Path, Sequence[str]]]:
    """Return where the stem of a new picture must be free, so that no other one's caption or mask becomes its own."""
    found: list[tuple[Path, Sequence[str]]] = [(folder, (*PICTURES, *dataset.extensions))]
    if dataset.masks is not None:
        inside = dataset.masks / folder.relative_to(dataset.root)
        found += [(place, tuple(sorted(FORMATS))) for place in dict.fromkeys((inside, dataset.masks))]
    return found


def new_path(dataset: Dataset, member: Member, ending: str, names: Names, folder: Path | None = None) -> Path:
    """Return the path of a new PNG made of a picture: its stem with an ending, in its own folder or another."""
    place = folder or member.path.parent
    return place / f"{names.stem(member.path.stem, ending, places(dataset, place))}.png"


def png_path(dataset: Dataset, member: Member, names: Names) -> Path:
    """Return the path of the PNG that takes a picture's place: the same name if it is free, else a new one."""
    same = member.path.with_name(f"{member.path.stem}.png")
    return same if names.take(same) else new_path(dataset, member, "", names)


def moved_path(dataset: Dataset, member: Member, folder: Path, names: Names) -> Path:
    """Return the path of a picture that goes to another folder: the same name if all that it brings has room there."""
    suffix = member.path.suffix
    own = [member.mask] if member.mask is not None and member.mask not in member.shared else []
    stem = names.stem(member.path.stem, "", [*places(dataset, folder), (folder, (suffix,))], own)
    return folder / f"{stem}{suffix}"


def copied_path(dataset: Dataset, member: Member, folder: Path, names: Names) -> Path:
    """Return the path of a copy of a picture: the same name if no other picture, caption or mask has its stem there."""
    suffix = member.path.suffix
    stem = names.stem(member.path.stem, "", [*places(dataset, folder), (folder, (suffix,))])
    return folder / f"{stem}{suffix}"


def following(dataset: Dataset, member: Member, targets: Sequence[Path]) -> list[Operation]:
    """Return the operations by which the captions and the mask of a picture that goes follow it to one or more others.

    What another picture has as well stays, and is copied. The targets' stems are free in all `places`, or the picture's
    own, and then nothing has to follow.
    """
    operations: list[Operation] = []
    for file in member.captions:
        wanted = [
            file if _same(target, member) else target.with_name(f"{target.stem}{file.suffix}") for target in targets
        ]
        operations += _follow(file, member, wanted)
    if member.mask is not None:
        mask = member.mask
        wanted = [mask if _same(target, member) else mask_path(dataset, target, mask) for target in targets]
        operations += _follow(mask, member, wanted)
    return operations


def copies(dataset: Dataset, member: Member, target: Path) -> list[Operation]:
    """Return the operations by which a second picture gets the captions and the mask of one that stays."""
    operations = [
        write(target.with_name(f"{target.stem}{file.suffix}"), partial(copied, file)) for file in member.captions
    ]
    if member.mask is not None:
        operations.append(write(mask_path(dataset, target, member.mask), partial(copied, member.mask)))
    return operations


def leaving(member: Member) -> list[Operation]:
    """Return the operations by which a picture goes to the holding with what nobody else has."""
    own = [file for file in (*member.captions, member.mask) if file is not None and file not in member.shared]
    return [remove(file) for file in (member.path, *own)]


def mask_path(dataset: Dataset, picture: Path, mask: Path) -> Path:
    """Return where the mask of a picture lies, of the kind of the file `mask`.

    In the folder that answers to the picture's own; a mask that lies directly in the masks' folder stays there while its
    picture keeps its name and no other one has it, since it is found there as well.
    """
    assert dataset.masks is not None
    name = f"{picture.stem}{mask.suffix}"
    if mask.parent == dataset.masks and mask.name == name and dataset.is_alone(picture.stem):
        return mask
    return dataset.masks / picture.parent.relative_to(dataset.root) / name


def _same(target: Path, member: Member) -> bool:
    return target.parent == member.path.parent and target.stem == member.path.stem


def _follow(file: Path, member: Member, wanted: Sequence[Path]) -> list[Operation]:
    """Return the operations that bring one file to every wanted path; it stays where it is wanted, or shared.

    A picture `a_10_20_5_5.png` with a caption `a.txt` (see `faces`) keeps it while it keeps its own stem.
    """
    new = [path for path in dict.fromkeys(wanted) if path != file]
    stays = file in member.shared or file in wanted
    first = [] if stays or not new else [move(file, new[0])]
    return [*first, *(write(path, partial(copied, file)) for path in (new if stays else new[1:]))]
