"""What lies in a source's folders: pictures, caption files and the repeats that names and `multiply.txt` give."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter, methodcaller
from pathlib import Path

from lib_lora_trainer.base.errors import DataError, Problem
from lib_lora_trainer.config.data import SourceConfig
from lib_lora_trainer.dataset.entries import absolute, entry_is_file, entry_is_folder, is_folder, printable, real
from lib_lora_trainer.dataset.formats import FORMATS, OTHER_PICTURES, readable_extensions
from lib_lora_trainer.dataset.items import whole
from lib_lora_trainer.dataset.repeats import MULTIPLY_FILE, factor_in_file, from_name


@dataclass(frozen=True)
class Folder:
    """One folder with picture files directly in it.

    repeats: of its pictures, the factor in its `multiply.txt` included; at most three decimals.
    identity: its real path, equal for every way that leads to it; name: as shown, from the source's own name on.
    texts: the caption files directly in it, by their names.
    """

    path: Path
    identity: str
    name: str
    repeats: float
    pictures: tuple[Path, ...]
    texts: Mapping[str, Path] = field(hash=False)


@dataclass(frozen=True)
class Listing:
    """One source's folders in order, pictures that cannot be used for their name alone, and what is wrong."""

    folders: tuple[Folder, ...] = ()
    skipped: tuple[Path, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass
class _Notes:
    """What the walk meets on its way; turned into problems at its end."""

    where: str
    skipped: list[Path] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    explained: bool = False  # something else already says why a source has no picture
    litter: int = 0
    foreign: list[Path] = field(default_factory=list)

    def add(self, problem: Problem) -> None:
        """Keep a problem."""
        self.problems.append(problem)


def list_source(source: SourceConfig, where: str, texts: Sequence[str], masks: Collection[Path] = ()) -> Listing:
    """Return the folders of one source that hold pictures; opens no picture and never raises for what it finds.

    where: the source's setting, for problems; texts: extensions of caption files, with dot; masks: folders that hold
    masks and no pictures to train on.
    Repeats: the source's own if set, else the number in front of the nearest folder's name from the source inwards,
    else 1; times the factor in the folder's own `multiply.txt`, which folders inside it do not inherit.
    Hidden folders and macOS litter are passed over; a folder reached twice by links counts once.
    """
    notes = _Notes(where)
    if not source.path.strip():
        notes.add(Problem("error", where, "is empty.", "Choose the folder with your pictures."))
        return Listing(problems=tuple(notes.problems))
    root = absolute(source.path)
    if not is_folder(root):
        notes.add(_no_folder(source.path, root, where))
        return Listing(problems=tuple(notes.problems))
    passed_over = {real(folder) for folder in masks}
    folders = tuple(_walk(root, source, [text.lower() for text in texts], passed_over, notes))
    if not any(folder.pictures for folder in folders) and not notes.explained and not notes.foreign:
        notes.add(_no_pictures(source, root, notes))
    if notes.litter:
        text = f"what macOS leaves in archives (._*, __MACOSX) is ignored, {notes.litter} in all."
        notes.add(Problem("note", where, text))
    if notes.foreign:
        kinds = ", ".join(sorted({path.suffix.lower() for path in notes.foreign}))
        text = f"pictures in formats not read here ({kinds}) are left out, {len(notes.foreign)} in all."
        names = ", ".join(path.name for path in notes.foreign)
        notes.add(Problem("warning", where, text, f"Convert them to PNG, JPEG or WebP: {names}."))
        notes.skipped += notes.foreign
    return Listing(folders, tuple(notes.skipped), tuple(notes.problems))


def _no_folder(text: str, root: Path, where: str) -> Problem:
    if text.strip()[0] in "\"'":
        return Problem("error", where, f"{text} is no folder's path.", "Remove the quotation marks.")
    try:
        root.stat()
    except (FileNotFoundError, NotADirectoryError):
        return Problem("error", where, f"{printable(root)} does not exist.", "Choose an existing folder.")
    except (OSError, ValueError) as error:
        text = f"{printable(root)} cannot be read: {getattr(error, 'strerror', None) or error}."
        return Problem("error", where, text, "Grant access to the folder, or choose another.")
    fix = f"Choose {printable(root.parent)}."
    return Problem("error", where, f"{printable(root)} is a file, not a folder.", fix)


def _no_pictures(source: SourceConfig, root: Path, notes: _Notes) -> Problem:
    kinds = ", ".join(sorted(extension[1:] for extension in readable_extensions()))
    fix = f"Choose a folder with pictures ({kinds})."
    if not source.recursive:
        fix = f"{fix[:-1]}, or switch subfolders on."
    return Problem("error", notes.where, f"{printable(root)} contains no pictures.", fix)


def _walk(
    root: Path, source: SourceConfig, texts: Sequence[str], passed_over: Collection[str], notes: _Notes
) -> Iterator[Folder]:
    seen: set[str] = set()
    waiting: list[tuple[Path, int]] = [(root, 1)]
    while waiting:
        folder, inherited = waiting.pop()
        identity = os.path.realpath(folder)
        if identity in passed_over:
            continue
        if identity in seen:
            text = "leads to a folder that is counted already and is not followed."
            notes.add(Problem("note", printable(folder), text))
            continue
        seen.add(identity)
        repeats = source.repeats or _named(folder, inherited, notes)
        try:
            with os.scandir(folder) as found:
                # Links last, so that a folder counts where it really is.
                entries = sorted(sorted(found, key=attrgetter("name")), key=methodcaller("is_symlink"))
        except OSError as error:
            text = f"cannot be read: {error.strerror or error}."
            notes.explained = True
            notes.add(Problem("error", printable(folder), text, "Grant access to the folder, or move it elsewhere."))
            continue
        subfolders, pictures, captions = _sorted_out(folder, entries, texts, notes)
        if source.recursive:
            waiting += [(subfolder, repeats) for subfolder in reversed(subfolders)]
        factor = _factor(folder, pictures, entries, notes)
        if repeats * factor == 0:
            if pictures:
                notes.explained = True
                said, fix = ("the folder's name says 0 repeats", "Rename the folder to use them.")
                if factor == 0:
                    said, fix = (f"its {MULTIPLY_FILE} says 0", f"Change or remove {MULTIPLY_FILE} to use them.")
                text = f"its pictures ({len(pictures)}) are not used: {said}."
                notes.add(Problem("warning", printable(folder), text, fix))
                notes.skipped += pictures
            continue
        shown = "/".join([root.name or str(root), *folder.relative_to(root).parts])
        if pictures or captions:
            yield Folder(folder, identity, shown, whole(repeats * factor), pictures, captions)


def _named(folder: Path, inherited: int, notes: _Notes) -> int:
    repeats, problems = from_name(folder, inherited)
    notes.problems += problems
    return repeats


def _factor(folder: Path, pictures: Sequence[Path], entries: Iterable[os.DirEntry[str]], notes: _Notes) -> float:
    """Return the factor in a folder's `multiply.txt`, 1 without one or when it is unusable, which is then an error."""
    for entry in [entry for entry in entries if entry.name.lower() == MULTIPLY_FILE]:
        if _multiplies(entry.name, pictures) and entry_is_file(entry):
            try:
                return factor_in_file(folder / entry.name)
            except DataError as error:
                where = printable(folder / entry.name)
                text, _, fix = str(error).removeprefix(f"{where}: ").partition(". ")
                notes.add(Problem("error", where, f"{text}.", fix))
    return 1


def _multiplies(name: str, pictures: Sequence[Path]) -> bool:
    """Tell whether a file is EveryDream's `multiply.txt`, and not the caption of a picture called multiply."""
    stem = MULTIPLY_FILE.partition(".")[0]
    return name.lower() == MULTIPLY_FILE and not any(path.stem.lower() == stem for path in pictures)


def _sorted_out(
    folder: Path, entries: Iterable[os.DirEntry[str]], texts: Sequence[str], notes: _Notes
) -> tuple[list[Path], tuple[Path, ...], dict[str, Path]]:
    """Return a folder's subfolders, pictures and caption files."""
    readable = readable_extensions()
    subfolders: list[Path] = []
    pictures: list[Path] = []
    captions: dict[str, Path] = {}
    for entry in entries:
        name = entry.name
        _, dot, end = name.rpartition(".")
        extension, file = dot + end.lower(), entry_is_file(entry)
        if name.startswith(".") or name == "__MACOSX":
            notes.litter += not name.startswith(".") or name.startswith("._")
        elif not file and entry_is_folder(entry):
            subfolders.append(folder / name)
        elif dot and (extension in FORMATS or extension in OTHER_PICTURES):
            path = folder / name
            if _usable_name(path, file, entry, notes):
                (pictures if extension in readable else notes.foreign).append(path)
            else:
                notes.explained = True
        elif file and dot and extension in texts:
            captions[name] = folder / name
    for name in [name for name in captions if name.lower() == MULTIPLY_FILE]:
        if _multiplies(name, pictures):
            del captions[name]
    return subfolders, tuple(pictures), captions


def _usable_name(path: Path, file: bool, entry: os.DirEntry[str], notes: _Notes) -> bool:
    """Tell whether what the listing has under a name can be opened as a picture; otherwise it is left out and said.

    file: whether it leads to a regular file.
    """
    name = str(path)
    where = name if name.isascii() else printable(name)
    if where != name:
        text, fix = "its name is not valid Unicode; it is left out.", "Rename the file or folder."
    elif file:
        return True
    elif entry.is_symlink():
        text, fix = "links to nothing and is left out.", "Restore or remove it."
    else:
        text, fix = "is no regular file and is left out.", "Remove it from the folder."
    notes.add(Problem("warning", where, text, fix))
    notes.skipped.append(Path(where))  # as it is shown: no page or log can take the other spelling
    return False
