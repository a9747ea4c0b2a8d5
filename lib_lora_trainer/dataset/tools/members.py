"""The pictures of one source with what belongs to each: its captions and its mask."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from lib_lora_trainer.base.errors import ProblemsFound
from lib_lora_trainer.config.data import DataConfig
from lib_lora_trainer.dataset.caption_files import find_caption
from lib_lora_trainer.dataset.entries import absolute, is_file, is_folder, real
from lib_lora_trainer.dataset.folders import Folder, list_source
from lib_lora_trainer.dataset.formats import FORMATS, OTHER_PICTURES, readable_extensions
from lib_lora_trainer.dataset.masks import find_masks, masks_folder

EXCLUDED = ".excluded"  # a hidden folder in the source's own, and in the masks': scans pass it over


@dataclass(frozen=True)
class Member:
    """One picture file. captions: its caption files, one for each extension that has one; mask: its mask's file.

    shared: those of its captions and masks that another picture has as well, as a.jpg and a.png have a.txt.
    """

    path: Path
    captions: tuple[Path, ...] = ()
    mask: Path | None = None
    shared: frozenset[Path] = frozenset()


@dataclass(frozen=True)
class Dataset:
    """One source as its tools see it.

    index: of the source in the settings; masks: the folder of its masks; extensions: of caption files, with dot.
    members: every picture file by path, also those in formats that are not read here; folders: with their repeats.
    Pictures in folders whose repeats are 0, and excluded ones, are not among them. others: pictures that a tool is not
    asked about; their names count all the same.
    """

    data: DataConfig
    index: int
    root: Path
    masks: Path | None
    extensions: tuple[str, ...]
    folders: tuple[Folder, ...]
    members: tuple[Member, ...]
    others: tuple[Member, ...] = ()

    @property
    def everyone(self) -> tuple[Member, ...]:
        """All pictures of the source, also those that a tool is not asked about."""
        return (*self.members, *self.others)

    def is_alone(self, stem: str) -> bool:
        """Tell whether at most one picture has a stem, so that a mask directly in the masks' folder is its own."""
        return self._stems[os.path.normcase(stem)] <= 1

    @functools.cached_property
    def _stems(self) -> Counter[str]:
        return Counter(os.path.normcase(member.path.stem) for member in self.everyone)

    def member(self, path: Path) -> Member | None:
        """Return the member with a path; None when it is none."""
        return self._by_path.get(path)

    @functools.cached_property
    def _by_path(self) -> dict[Path, Member]:
        return {member.path: member for member in self.members}


def narrowed(dataset: Dataset, paths: Iterable[Path]) -> Dataset:
    """Return a dataset whose tools look at some of its pictures only; paths that are none of them do not count."""
    wanted = set(paths)
    chosen = tuple(member for member in dataset.members if member.path in wanted)
    rest = tuple(member for member in dataset.members if member.path not in wanted)
    return replace(dataset, members=chosen, others=(*dataset.others, *rest))


def gather(data: DataConfig, index: int = 0) -> Dataset:
    """Return a source's pictures with their captions and masks; opens masks, but no picture.

    Raises ProblemsFound when the folder, or one inside it, cannot be read.
    """
    source = data.sources[index]
    root, masks = absolute(source.path), masks_folder(source)
    extensions = caption_extensions(data.caption.extensions)
    roots = {real(absolute(each.path)) for each in data.sources if each.path.strip()}
    folders_of_masks = [folder for folder in filter(None, map(masks_folder, data.sources)) if real(folder) not in roots]
    where = f"data.sources[{index}].path"
    listing = list_source(source, where, extensions, folders_of_masks)
    # A folder without pictures may still have excluded ones.
    harmless = where if is_folder(root) and source.path.strip() else None
    errors = tuple(each for each in listing.problems if each.severity == "error" and each.where != harmless)
    if errors:
        raise ProblemsFound(errors)
    pictures = [path for folder in listing.folders for path in folder.pictures]
    pictures += [path for path in listing.skipped if _is_foreign(path)]
    found = _with_companions(sorted(pictures), data, index, extensions)
    return Dataset(data, index, root, masks, extensions, listing.folders, tuple(found))


def _is_foreign(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in (FORMATS.keys() | OTHER_PICTURES) - readable_extensions() and is_file(path)


def caption_extensions(extensions: Iterable[str]) -> tuple[str, ...]:
    """Return the extensions of caption files with their leading dot, each once."""
    bare = (extension.strip().removeprefix(".") for extension in extensions)
    return tuple(dict.fromkeys(f".{extension}" for extension in bare if extension))


def _with_companions(
    pictures: list[Path], data: DataConfig, index: int, extensions: tuple[str, ...]
) -> Iterable[Member]:
    captions = {
        path: tuple(filter(None, (find_caption(path, (extension,)) for extension in extensions))) for path in pictures
    }
    # Their sizes matter only to problems, which are not asked for here.
    masks, _ = find_masks(data.sources[index], [(path, 1, 1) for path in pictures], "")
    users = Counter(file for path in pictures for file in {*captions[path], *filter(None, (masks.get(path),))})
    for path in pictures:
        own = (*captions[path], *filter(None, (masks.get(path),)))
        yield Member(path, captions[path], masks.get(path), frozenset(file for file in own if users[file] > 1))
