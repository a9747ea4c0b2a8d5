"""Read the dataset's folders: which pictures can be used, with which captions, and what is wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lib_lora_trainer.base.errors import DataError, Problem
from lib_lora_trainer.config.data import DataConfig
from lib_lora_trainer.dataset import findings
from lib_lora_trainer.dataset.caption_files import UNICODE_ENCODINGS, find_caption, read_caption
from lib_lora_trainer.dataset.folders import Folder, Listing, list_source
from lib_lora_trainer.dataset.formats import DECODER_ERRORS, Facts, explain, inspect
from lib_lora_trainer.dataset.items import Concept, Item, Scan

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Captions:
    """How the captions of one source are found; where: its setting, for problems."""

    extensions: tuple[str, ...]
    fallback: str
    where: str


@dataclass
class _Found:
    """What is gathered while the pictures are read."""

    items: list[Item] = field(default_factory=list)
    concepts: list[Concept] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)


def scan(data: DataConfig, triggers: tuple[str, ...], progress: Progress | None = None) -> Scan:
    """Return every usable picture of the sources with its caption, and every problem found. Never raises for those.

    Each picture is decoded to its end, so that broken files show here and not in the middle of the training.
    triggers: joined, the caption of a picture without one, unless its source has a fallback of its own.
    progress: called with (pictures read, pictures in all) after each picture.
    A folder reached through several sources counts once, for the first of them, with a warning.
    """
    found = _Found()
    extensions = _caption_extensions(data.caption.extensions, found)
    if not data.sources:
        found.problems.append(Problem("error", "data.sources", "is empty.", "Choose the folder with your pictures."))
    listings = [list_source(source, _where(i), extensions) for i, source in enumerate(data.sources)]
    for listing in listings:
        found.problems += listing.problems
        found.skipped += listing.skipped
    chosen = _each_once(listings, found)
    results = _inspect_all([path for folders in chosen for folder in folders for path in folder.pictures], progress)
    for index, (source, folders) in enumerate(zip(data.sources, chosen, strict=True)):
        fallback = source.fallback_caption.strip() or ", ".join(triggers)
        captions = _Captions(extensions, fallback, _where(index))
        _add_source(folders, results, captions, found)
    found.problems += findings.about_sizes(found.items, data)
    if not found.items and not any(problem.severity == "error" for problem in found.problems):
        skipped = len(set(found.skipped))
        text = f"every picture found is left out, {skipped} in all." if skipped else "no picture is in use."
        found.problems.append(Problem("error", "data.sources", text, "See the warnings; choose another folder."))
    return Scan(
        items=tuple(sorted(found.items, key=lambda item: item.path.as_posix())),
        concepts=tuple(sorted(found.concepts, key=lambda concept: concept.folder.as_posix())),
        problems=tuple(found.problems),
        skipped=tuple(sorted(set(found.skipped), key=lambda path: path.as_posix())),
    )


def _where(index: int) -> str:
    return f"data.sources[{index}].path"


def _caption_extensions(extensions: Sequence[str], found: _Found) -> tuple[str, ...]:
    """Return the extensions with their leading dot; one that cannot be an extension becomes a problem."""
    usable = []
    for index, extension in enumerate(extensions):
        bare = extension.strip().removeprefix(".")
        if not bare or bare.endswith(".") or "/" in bare or "\\" in bare:
            where = f"data.caption.extensions[{index}]"
            found.problems.append(Problem("error", where, f"{extension!r} is no extension.", "Use .txt, or remove it."))
        else:
            usable.append(f".{bare}")
    return tuple(dict.fromkeys(usable))


def _each_once(listings: Sequence[Listing], found: _Found) -> list[list[Folder]]:
    """Return each listing's folders without those that an earlier one has."""
    owners: dict[str, int] = {}
    chosen = []
    for index, listing in enumerate(listings):
        again = [folder for folder in listing.folders if folder.identity in owners and folder.pictures]
        for owner in sorted({owners[folder.identity] for folder in again}):
            pictures = sum(len(folder.pictures) for folder in again if owners[folder.identity] == owner)
            text = f"pictures counted under {_where(owner)} already are not counted again, {pictures} in all."
            found.problems.append(Problem("warning", _where(index), text, "Raise the repeats to use them more often."))
        chosen.append([folder for folder in listing.folders if folder.identity not in owners])
        owners |= {folder.identity: index for folder in chosen[-1]}
    return chosen


def _inspect_all(paths: Sequence[Path], progress: Progress | None) -> dict[Path, Facts | Problem]:
    """Return what is in each picture, or why it is left out."""
    results: dict[Path, Facts | Problem] = {}
    for done, path in enumerate(paths, start=1):
        results[path] = _inspected(path)
        if progress is not None:
            progress(done, len(paths))
    return results


def _inspected(path: Path) -> Facts | Problem:
    try:
        facts = inspect(path)
    except DECODER_ERRORS as error:
        return explain(path, error)
    if facts.animated:
        fix = "Save the frame you want as a picture of its own."
        return Problem("warning", str(path), "is animated and is left out.", fix)
    return facts


def _add_source(
    folders: Sequence[Folder], results: Mapping[Path, Facts | Problem], captions: _Captions, found: _Found
) -> None:
    """Add the items, concepts and problems of one source to what was found."""
    usable: list[tuple[Path, Facts]] = []
    missing: list[Path] = []
    empty: list[Path] = []
    for folder in folders:
        name = _unused_name(folder.name, found.concepts)
        before = len(found.items)
        for path in folder.pictures:
            result = results[path]
            if isinstance(result, Problem):
                found.problems.append(result)
                found.skipped.append(path)
                continue
            usable.append((path, result))
            caption_file, text = _caption(path, captions, found)
            if caption_file is None:
                missing.append(path)
            elif text == "":
                empty.append(path)
            caption = text or captions.fallback
            item = Item(path, name, folder.repeats, result.width, result.height, caption, caption_file)
            found.items.append(item)
        if len(found.items) > before:
            found.concepts.append(Concept(name, folder.path, folder.repeats, len(found.items) - before))
    found.problems += findings.about_pictures(usable, captions.where)
    found.problems += findings.about_captions((missing, empty), captions.fallback, len(usable), captions.where)
    found.problems += findings.about_orphans(_orphans(folders), captions.where)


def _caption(path: Path, captions: _Captions, found: _Found) -> tuple[Path | None, str | None]:
    """Return a picture's caption file and text; the text is None when the file cannot be read."""
    file = find_caption(path, captions.extensions)
    if file is None:
        return None, None
    try:
        text, encoding = read_caption(file)
    except DataError as error:
        message = str(error).removeprefix(f"{file}: ")
        found.problems.append(Problem("error", str(file), message, "Correct or remove the caption file."))
        return file, None
    if encoding not in UNICODE_ENCODINGS:
        message = f"is not UTF-8 and was read as {encoding}: {text[:80]!r}."
        found.problems.append(Problem("warning", str(file), message, "Check the text and save it as UTF-8."))
    return file, text


def _unused_name(name: str, concepts: Sequence[Concept]) -> str:
    """Return a concept's name, numbered when another source has a folder of that name."""
    taken = {concept.name for concept in concepts}
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name} ({number})", number + 1
    return candidate


def _orphans(folders: Sequence[Folder]) -> list[Path]:
    orphans: list[Path] = []
    for folder in folders:
        taken = {os.path.normcase(path.stem) for path in folder.pictures}
        orphans += [text for text in folder.texts if os.path.normcase(text.stem) not in taken]
    return orphans
