"""Read the dataset's folders: which pictures can be used, with which captions, and what is wrong."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from lib_lora_trainer.base.errors import DataError, Problem
from lib_lora_trainer.config.data import DataConfig, SourceConfig
from lib_lora_trainer.dataset import copies, findings
from lib_lora_trainer.dataset.caption_files import UNICODE_ENCODINGS, find_caption, read_caption
from lib_lora_trainer.dataset.entries import absolute, real
from lib_lora_trainer.dataset.faces import face_problems, without_face
from lib_lora_trainer.dataset.folders import Folder, Listing, list_source
from lib_lora_trainer.dataset.formats import Depth, Facts
from lib_lora_trainer.dataset.items import Concept, Item, Scan
from lib_lora_trainer.dataset.levels import about_level
from lib_lora_trainer.dataset.masks import find_masks, masks_folder
from lib_lora_trainer.dataset.readings import Progress, read_each
from lib_lora_trainer.dataset.repeats import words_in_name


@dataclass(frozen=True)
class _Source:
    """One source while it is read. index: in the settings; extensions: of caption files; triggers: joined.

    lines: what joins the lines of a caption file.
    """

    config: SourceConfig
    index: int
    extensions: tuple[str, ...]
    triggers: str
    lines: str

    @property
    def where(self) -> str:
        """The setting of its folder, for problems."""
        return _where(self.index)

    def fallback(self, folder: Folder) -> str:
        """Return the caption of a folder's pictures that have none."""
        own = self.config.fallback_caption.strip()
        if own or not self.config.regularization:
            return own or self.triggers
        return words_in_name(folder.path.name).strip()


@dataclass
class _Found:
    """What is gathered while the pictures are read."""

    items: list[Item] = field(default_factory=list)
    concepts: list[Concept] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    fingerprints: list[int] = field(default_factory=list)  # of the items, in their order


def scan(
    data: DataConfig,
    triggers: tuple[str, ...],
    progress: Progress | None = None,
    depth: Depth = "whole",
    name_copies: bool = False,
) -> Scan:
    """Return every usable picture of the sources with its caption, and every problem found. Never raises for those.

    Every picture file is either an item or among the skipped, and of each of those a problem says why.
    triggers: joined, the caption of a picture without one, unless its source has a fallback of its own; a
    regularization image has the name of its folder instead, behind the number, since it must not call the triggers.
    progress: called with (pictures read, pictures in all) after each picture; what it raises ends the scan.
    depth: `whole` decodes each picture to its end, so that broken files show here and not in the middle of the
    training. `headers` is many times faster, for looking at a folder: it finds what is no picture, files that were cut
    off and pictures that are too large, but not damage inside a file, nor whether anything is transparent.
    name_copies: also compare the contents of files of equal length, and say which pictures are there twice.
    A folder reached through several sources counts once, for the first of them, with a warning.
    """
    found = _Found()
    extensions = _caption_extensions(data.caption.extensions, found)
    if not data.sources:
        found.problems.append(Problem("error", "data.sources", "is empty.", "Choose the folder with your pictures."))
    roots = {real(absolute(source.path)) for source in data.sources if source.path.strip()}
    folders_of_masks = filter(None, map(masks_folder, data.sources))
    masks = [folder for folder in folders_of_masks if real(folder) not in roots]
    listings = [list_source(source, _where(i), extensions, masks) for i, source in enumerate(data.sources)]
    for listing in listings:
        found.problems += listing.problems
        found.skipped += listing.skipped
    chosen = _each_once(listings, found)
    for index, (source, folders) in enumerate(zip(data.sources, chosen, strict=True)):
        found.problems += about_level(source, folders, roots, _where(index))
    paths = [path for folders in chosen for folder in folders for path in folder.pictures]
    results = iter(read_each(paths, depth, progress))
    for index, (source, folders) in enumerate(zip(data.sources, chosen, strict=True)):
        lines = "\n" if data.caption.wildcards else " "
        read = [(folder, list(islice(results, len(folder.pictures)))) for folder in folders]
        _add_source(_Source(source, index, extensions, ", ".join(triggers), lines), read, found)
    found.problems += [*findings.about_sizes(found.items, data), *findings.about_faces(found.items, data)]
    found.problems += face_problems(data)
    if name_copies:
        found.problems += copies.about_copies(found.items, _pause(progress, len(paths)), found.fingerprints)
    found.problems += _about_nothing(found)
    return Scan(
        items=tuple(sorted(found.items, key=lambda item: item.path.as_posix())),
        concepts=tuple(sorted(found.concepts, key=lambda concept: concept.folder.as_posix())),
        problems=tuple(found.problems),
        skipped=tuple(sorted(set(found.skipped), key=lambda path: path.as_posix())),
    )


def _pause(progress: Progress | None, pictures: int) -> Callable[[], None]:
    """Return what lets whoever follows the progress end the work after all pictures are read."""
    return lambda: None if progress is None else progress(pictures, pictures)


def _about_nothing(found: _Found) -> list[Problem]:
    """Return an error when there is nothing to train on and no other error says why."""
    if found.items and all(item.regularization for item in found.items):
        text = "all pictures are regularization images, so there is nothing to learn."
        return [Problem("error", "data.sources", text, "Add the folder with your pictures, or unmark one.")]
    if found.items or any(problem.severity == "error" for problem in found.problems):
        return []
    skipped = len(set(found.skipped))
    text = f"every picture found is left out, {skipped} in all." if skipped else "no picture is in use."
    return [Problem("error", "data.sources", text, "See the warnings; choose another folder.")]


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


def _add_source(source: _Source, read: Sequence[tuple[Folder, Sequence[Facts | Problem]]], found: _Found) -> None:
    """Add the items, concepts and problems of one source to what was found; read: what is in each folder's pictures."""
    usable: list[Path] = []
    known: list[Facts] = []  # of those; not in pairs, which for many pictures take more memory than both lists
    for folder, results in read:
        for path, result in zip(folder.pictures, results, strict=True):
            if isinstance(result, Problem):
                found.problems.append(result)
                found.skipped.append(path)
            else:
                usable.append(path)
                known.append(result)
    masks: dict[Path, Path] = {}
    if masks_folder(source.config) is not None:
        sizes = [(path, facts.width, facts.height) for path, facts in zip(usable, known, strict=True)]
        masks, problems = find_masks(source.config, sizes, f"data.sources[{source.index}].masks")
        found.problems += problems
    lacking: dict[str, tuple[list[Path], list[Path]]] = {}
    orphans: list[Path] = []
    for folder, results in read:
        orphans += _orphans(folder, _add_folder(source, folder, results, masks, found, lacking))
    found.problems += findings.about_pictures(usable, known, source.where)
    found.problems += findings.about_opacity(known, source.config, f"data.sources[{source.index}].alpha_masks")
    for fallback, paths in lacking.items():
        found.problems += findings.about_captions(paths, fallback, len(usable), source.where)
    found.problems += findings.about_orphans(orphans, source.where)


def _add_folder(
    source: _Source,
    folder: Folder,
    results: Sequence[Facts | Problem],
    masks: Mapping[Path, Path],
    found: _Found,
    lacking: dict[str, tuple[list[Path], list[Path]]],
) -> set[str]:
    """Add one folder's items and its concept, and return the names of the caption files in use.

    lacking: pictures without caption file and text, by their fallback.
    """
    name = _unused_name(folder.name, found.concepts)
    fallback, regularization = source.fallback(folder), source.config.regularization
    before, in_use = len(found.items), set[str]()
    first = source.extensions[0] if source.extensions else ""
    inside = os.path.join(folder.path, "")  # noqa: PTH118 with the separator; as text, which paths are slow to become
    for path, facts in zip(folder.pictures, results, strict=True):
        if isinstance(facts, Problem):
            continue
        # The usual caption is in the listing already; asking the file system is for the unusual ones.
        usual = path.stem + first if first else ""
        file, place = folder.texts.get(usual), f"{inside}{usual}"
        if file is None:
            file = find_caption(path, source.extensions)
            usual, place = (file.name, str(file)) if file is not None else ("", "")
        in_use.add(usual)
        text = None if file is None else _caption(place, source, found)
        if not text and (file is None or text is not None):
            lacking.setdefault(fallback, ([], []))[0 if file is None else 1].append(path)
        mask = masks.get(path) if masks else None  # a path is slow to look up
        found.items.append(
            Item(
                path, name, folder.repeats, facts.width, facts.height, text or fallback, file,
                source.index, regularization, mask,
            )
        )  # fmt: skip
        found.fingerprints.append(facts.fingerprint)
    if len(found.items) > before:
        images = len(found.items) - before
        found.concepts.append(Concept(name, folder.path, folder.repeats, images, source.index, regularization))
    return in_use


def _caption(file: str, source: _Source, found: _Found) -> str | None:
    """Return the text of a caption file; None when it cannot be read, which becomes a problem."""
    try:
        text, encoding = read_caption(file, source.lines)
    except DataError as error:
        message = str(error).removeprefix(f"{file}: ")
        found.problems.append(Problem("error", file, message, "Correct or remove the caption file."))
        return None
    if encoding not in UNICODE_ENCODINGS:
        message = f"is not UTF-8 and was read as {encoding}: {text[:80]!r}."
        found.problems.append(Problem("warning", file, message, "Check the text and save it as UTF-8."))
    return text


def _unused_name(name: str, concepts: Sequence[Concept]) -> str:
    """Return a concept's name, numbered when another source has a folder of that name."""
    taken = {concept.name for concept in concepts}
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name} ({number})", number + 1
    return candidate


def _orphans(folder: Folder, in_use: Collection[str]) -> list[Path]:
    """Return the caption files that belong to no picture of a folder, not even to one that is left out."""
    others = [text for name, text in folder.texts.items() if name not in in_use]
    if not others:  # as it should be, and no names need comparing
        return []
    stems = (stem for path in folder.pictures for stem in (path.stem, without_face(path.stem)))
    taken = {os.path.normcase(stem) for stem in stems}
    return [text for text in others if os.path.normcase(text.stem) not in taken]
