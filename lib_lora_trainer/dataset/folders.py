"""What lies in a source's folders: pictures, caption files and the repeats that the folders' names give."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.config.data import SourceConfig
from lib_lora_trainer.dataset.entries import absolute, is_file, is_folder, printable
from lib_lora_trainer.dataset.formats import FORMATS, OTHER_PICTURES, readable_extensions

MAXIMUM_REPEATS = 10_000  # as in SourceConfig.repeats
LIKELY_A_YEAR = 1000
_PREFIX = re.compile(r"([0-9]+)_")


@dataclass(frozen=True)
class Folder:
    """One folder with picture files directly in it.

    identity: its real path, equal for every way that leads to it; name: as shown, from the source's own name on.
    texts: the caption files directly in it.
    """

    path: Path
    identity: str
    name: str
    repeats: int
    pictures: tuple[Path, ...]
    texts: tuple[Path, ...]


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


def list_source(source: SourceConfig, where: str, texts: Sequence[str]) -> Listing:
    """Return the folders of one source that hold pictures; opens no file and never raises for what it finds.

    where: the source's setting, for problems; texts: extensions of caption files, with dot.
    Repeats: the source's own if set, else the number in front of the nearest folder's name from the source inwards,
    else 1. Hidden folders and macOS litter are passed over; a folder reached twice by links counts once.
    """
    notes = _Notes(where)
    if not source.path.strip():
        notes.add(Problem("error", where, "is empty.", "Choose the folder with your pictures."))
        return Listing(problems=tuple(notes.problems))
    root = absolute(source.path)
    if not is_folder(root):
        notes.add(_no_folder(source.path, root, where))
        return Listing(problems=tuple(notes.problems))
    folders = tuple(_walk(root, source, [text.lower() for text in texts], notes))
    if not any(folder.pictures for folder in folders) and not notes.explained and not notes.foreign:
        notes.add(_no_pictures(source, root, notes))
    if notes.litter:
        text = f"what macOS leaves in archives (._*, __MACOSX) is ignored, {notes.litter} in all."
        notes.add(Problem("note", where, text))
    if notes.foreign:
        kinds = ", ".join(sorted({path.suffix.lower() for path in notes.foreign}))
        text = f"pictures in formats not read here ({kinds}) are left out, {len(notes.foreign)} in all."
        notes.add(Problem("warning", where, text, "Convert them to PNG, JPEG or WebP."))
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


def _walk(root: Path, source: SourceConfig, texts: Sequence[str], notes: _Notes) -> Iterator[Folder]:
    seen: set[str] = set()
    waiting: list[tuple[Path, int]] = [(root, 1)]
    while waiting:
        folder, inherited = waiting.pop()
        identity = os.path.realpath(folder)
        if identity in seen:
            text = "leads to a folder that is counted already and is not followed."
            notes.add(Problem("note", printable(folder), text))
            continue
        seen.add(identity)
        repeats = source.repeats or _repeats(folder, inherited, notes)
        try:
            with os.scandir(folder) as found:
                # Links last, so that a folder counts where it really is.
                entries = sorted(found, key=lambda entry: (entry.is_symlink(), entry.name))
        except OSError as error:
            text = f"cannot be read: {error.strerror or error}."
            notes.explained = True
            notes.add(Problem("error", printable(folder), text, "Grant access to the folder, or move it elsewhere."))
            continue
        subfolders, pictures, captions = _sorted_out(folder, entries, texts, notes)
        if source.recursive:
            waiting += [(subfolder, repeats) for subfolder in reversed(subfolders)]
        if repeats == 0:
            if pictures:
                notes.explained = True
                text = f"its pictures ({len(pictures)}) are not used: the folder's name says 0 repeats."
                notes.add(Problem("warning", printable(folder), text, "Rename the folder to use them."))
            continue
        shown = "/".join([root.name or str(root), *folder.relative_to(root).parts])
        if pictures or captions:
            yield Folder(folder, identity, shown, repeats, pictures, captions)


def _repeats(folder: Path, inherited: int, notes: _Notes) -> int:
    match = _PREFIX.match(folder.name)
    if not match:
        return inherited
    number = int(match.group(1))
    if number > MAXIMUM_REPEATS:
        text = f"{number} is too large for repeats; it is taken as part of the name, and repeats are {inherited}."
        notes.add(Problem("warning", printable(folder), text, f"Rename it to begin with 1_ to {MAXIMUM_REPEATS}_."))
        return inherited
    if number >= LIKELY_A_YEAR:
        text = f"the number in front of the name makes {number} repeats of every picture."
        notes.add(Problem("warning", printable(folder), text, "Rename the folder if it is a year."))
    return number


def _sorted_out(
    folder: Path, entries: Iterable[os.DirEntry[str]], texts: Sequence[str], notes: _Notes
) -> tuple[list[Path], tuple[Path, ...], tuple[Path, ...]]:
    """Return a folder's subfolders, pictures and caption files."""
    readable = readable_extensions()
    subfolders: list[Path] = []
    pictures: list[Path] = []
    captions: list[Path] = []
    for entry in entries:
        path, extension = folder / entry.name, Path(entry.name).suffix.lower()
        if entry.name.startswith("._") or entry.name == "__MACOSX":
            notes.litter += 1
        elif entry.name.startswith("."):
            continue
        elif is_folder(path):
            subfolders.append(path)
        elif extension in FORMATS or extension in OTHER_PICTURES:
            if _usable_name(path, entry, notes):
                (pictures if extension in readable else notes.foreign).append(path)
            else:
                notes.explained = True
        elif extension in texts and is_file(path):
            captions.append(path)
    return subfolders, tuple(pictures), tuple(captions)


def _usable_name(path: Path, entry: os.DirEntry[str], notes: _Notes) -> bool:
    if printable(path) != str(path):
        text = "its name is not valid Unicode; it is left out."
        notes.add(Problem("warning", printable(path), text, "Rename the file or folder."))
        return False
    if is_file(path):
        return True
    if entry.is_symlink():
        notes.add(Problem("warning", str(path), "links to nothing and is left out.", "Restore or remove it."))
        notes.skipped.append(path)
    return False
