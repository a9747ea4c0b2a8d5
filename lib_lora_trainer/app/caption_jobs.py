"""Captions of a dataset's source: loaded with their versions, looked at, and changed through the dataset's journal.

Every change is a `Draft`: shown as a diff first, applied by `dataset_tools.apply`, undone and redone there. A draft
remembers which content of each file it was made on. A file that anybody has changed since is not written: applying such
a draft fails, names the file, and changes nothing, so that no edit of another browser tab is lost without a word.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from lib_lora_trainer.app.dataset_tools import Draft, Request, gathered
from lib_lora_trainer.app.tag_jobs import kept_scores
from lib_lora_trainer.app.threaded import Report
from lib_lora_trainer.base.errors import DataError, Problem, ProblemsFound
from lib_lora_trainer.captions import diffs, edits, frequency, query
from lib_lora_trainer.captions.cleaning import propose
from lib_lora_trainer.captions.cleaning.values import CleanFacts, CleanOptions, CleanProposal, applied
from lib_lora_trainer.captions.diffs import Change
from lib_lora_trainer.captions.edits import Facts
from lib_lora_trainer.captions.frequency import Row, Summary
from lib_lora_trainer.captions.query import Record
from lib_lora_trainer.captions.text import Caption, Marks, key, marks_of, parse
from lib_lora_trainer.config.data import DataConfig
from lib_lora_trainer.dataset.caption_files import UNICODE_ENCODINGS, read_caption
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.tools.members import Dataset
from lib_lora_trainer.dataset.tools.operations import Proposal, replace, write
from lib_lora_trainer.tagging.labels import CHARACTER

ScoresOf = Callable[[Path], Mapping[str, float] | None]


@dataclass(frozen=True)
class CaptionFile:
    """A caption file, or where one would be. pictures: that have it; text: all of it, with its line ends.

    version: SHA-256 of its bytes, "" where there is no file; encoding: it was read in.
    """

    path: Path
    pictures: tuple[Path, ...]
    text: str
    version: str
    encoding: str = "utf-8"


@dataclass(frozen=True)
class Loaded:
    """All captions of a source as they were when they were read, by the path of their file.

    problems: files that cannot be read; they are not among `files`, and no edit touches them.
    """

    root: Path
    files: Mapping[Path, CaptionFile]
    marks: Marks
    problems: tuple[Problem, ...] = ()

    @functools.cached_property
    def parsed(self) -> Mapping[Path, Caption]:
        """The captions' items."""
        return {path: parse(file.text, self.marks) for path, file in self.files.items()}

    @functools.cached_property
    def frequency(self) -> Mapping[str, int]:
        """How many captions have each tag, by what tags are compared by."""
        return frequency.counts(self.parsed.values())

    @functools.cached_property
    def by_picture(self) -> Mapping[Path, CaptionFile]:
        """The file of each picture."""
        return {picture: file for file in self.files.values() for picture in file.pictures}

    def summary(self) -> Summary:
        """Return the captions in numbers."""
        return frequency.summary(self.parsed.values())

    def table(self) -> tuple[Row, ...]:
        """Return the tags with their frequency, overall and by folder."""
        return frequency.table(self.parsed, self.root)


@dataclass(frozen=True)
class Selection:
    """Which captions are meant: those of some pictures, by absolute path, None for all; of these, what a filter fits.

    scores: what taggers said of a picture, by tag; None where none has seen it; for filters and for sorting. tokens:
    counts those of a text.
    """

    pictures: tuple[Path, ...] | None = None
    query: str = ""
    scores: ScoresOf | None = field(default=None, compare=False)
    tokens: Callable[[str], int] | None = field(default=None, compare=False)


ALL = Selection()


def load(data: DataConfig, index: int = 0, report: Report | None = None) -> Loaded:
    """Return the captions of a source. report: told about progress; see `threaded.reported`.

    Raises ProblemsFound or DataError when the folder cannot be read or has no pictures.
    """
    dataset = gathered(Request(data, index=index))
    pictures: dict[Path, list[Path]] = {}
    for member in dataset.members:
        pictures.setdefault(_place(member.captions, member.path, dataset), []).append(member.path)
    files: dict[Path, CaptionFile] = {}
    problems: list[Problem] = []
    for number, (path, owners) in enumerate(pictures.items(), 1):
        try:
            files[path] = _read(path, tuple(owners))
        except DataError as error:
            text = str(error).removeprefix(f"{path}: ")
            problems.append(Problem("warning", printable(path), f"is left out: {text}", "Look at the file."))
        if report is not None:
            report("reading captions", number, len(pictures))
    return Loaded(dataset.root, files, marks_of(data.caption), tuple(problems))


def scores_of(root: Path) -> ScoresOf:
    """Return what looks up the scores that taggers gave to a picture's content: of several taggers the highest."""
    kept = kept_scores(root)

    @functools.cache
    def look(picture: Path) -> Mapping[str, float] | None:
        found: dict[str, float] = {}
        said = kept.of(picture) if kept.kept else ()
        for each in said:
            for tag, score in (*each.general.items(), *each.character.items()):
                found[key(tag)] = max(score, found.get(key(tag), 0.0))
        return found if said else None

    return look


def tagger_facts(root: Path) -> CleanFacts:
    """Return which tags the taggers know that have seen pictures of a dataset, and which of them are characters."""
    labels = [label for each in kept_scores(root).kept for label in each.labels]
    characters = frozenset(key(label.name) for label in labels if label.category == CHARACTER)
    return CleanFacts(characters, frozenset(key(label.name) for label in labels))


def stale(loaded: Loaded) -> tuple[Path, ...]:
    """Return the caption files that are not as they were loaded, such as those another browser tab has changed."""
    return tuple(path for path, file in loaded.files.items() if _version(path) != file.version)


def selected(loaded: Loaded, selection: Selection = ALL) -> tuple[CaptionFile, ...]:
    """Return the files that a selection means. Raises QueryError for a filter that cannot be read."""
    fits = query.compiled(selection.query)
    wanted = None if selection.pictures is None else set(selection.pictures)
    found = []
    for file in loaded.files.values():
        own = [picture for picture in file.pictures if wanted is None or picture in wanted]
        if any(fits(_record(picture, file, loaded, selection)) for picture in own):
            found.append(file)
    return tuple(found)


def draft(chosen: Any, loaded: Loaded, selection: Selection = ALL) -> Draft:
    """Return what an edit would do to the captions of a selection.

    chosen: options of one of `edits.EDITS`. Raises ProblemsFound for options that make no sense, QueryError.
    """
    problems = edits.problems(chosen)
    if problems:
        raise ProblemsFound(problems)
    counted = loaded.frequency if getattr(chosen, "by", "") == "frequency" else {}
    ranked = selection.scores if getattr(chosen, "by", "") == "score" else None
    after = {}
    for file in selected(loaded, selection):
        facts = Facts(counted, (ranked(file.pictures[0]) if ranked is not None else None) or {})
        after[file.path] = edits.edited_caption(loaded.parsed[file.path], chosen, facts).text
    return _draft(edits.EDITS[edits.name_of(chosen)].title, after, loaded, selection)


def draft_texts(texts: Mapping[Path, str], loaded: Loaded) -> Draft:
    """Return what giving some pictures, by path, other captions would do. Raises DataError naming an unknown one."""
    after: dict[Path, str] = {}
    for picture, text in texts.items():
        if picture not in loaded.by_picture:
            raise DataError(f"{printable(picture)}: is none of the loaded pictures. Load the captions again.")
        after[loaded.by_picture[picture].path] = text
    return _draft("Edited captions", after, loaded, Selection(tuple(texts)))


def clean(
    options: CleanOptions, loaded: Loaded, selection: Selection = ALL, facts: CleanFacts | None = None
) -> tuple[CleanProposal, ...]:
    """Return what the clean-up rules propose for the captions of a selection."""
    chosen = {file.path: loaded.parsed[file.path] for file in selected(loaded, selection)}
    return propose.proposals(chosen, options, facts)


def draft_clean(proposals: Sequence[CleanProposal], loaded: Loaded, selection: Selection = ALL) -> Draft:
    """Return what the proposals that are on would do."""
    touched = {path for each in proposals if each.on for path in each.rewrites if path in loaded.files}
    captions = {path: loaded.parsed[path] for path in loaded.files if path in touched}
    after = {path: caption.text for path, caption in applied(captions, proposals).items()}
    return _draft("Cleaned captions", after, loaded, selection)


def changes(made: Draft) -> tuple[Change, ...]:
    """Return the captions that a draft changes, before and after; see `diffs`."""
    return tuple(
        Change(proposal.operations[0].path, proposal.before["caption"], proposal.after["caption"])
        for proposal in made.proposals
        if proposal.operations
    )


def tag_counts(made: Draft, loaded: Loaded) -> tuple[diffs.TagCount, ...]:
    """Return how many captions lose or get each tag by a draft."""
    return diffs.tag_counts(changes(made), loaded.marks)


def _record(picture: Path, file: CaptionFile, loaded: Loaded, selection: Selection) -> Record:
    inside = picture.relative_to(loaded.root) if picture.is_relative_to(loaded.root) else picture
    caption = loaded.parsed[file.path]
    return Record(
        PurePath(inside),
        caption,
        functools.partial(selection.scores, picture) if selection.scores is not None else None,
        bool(file.version),
        selection.tokens,
    )


def _place(captions: Sequence[Path], picture: Path, dataset: Dataset) -> Path:
    if captions:
        return captions[0]
    extension = dataset.extensions[0] if dataset.extensions else ".txt"
    return picture.with_name(f"{picture.stem}{extension}")


def _read(path: Path, pictures: tuple[Path, ...]) -> CaptionFile:
    """Return a file with its text as it stands, its line ends too; the encoding is that of `read_caption`."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return CaptionFile(path, pictures, "", "")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}.") from error
    version = hashlib.sha256(data).hexdigest()
    if data.isascii() and b"\x00" not in data:  # what nearly all are, in every encoding that is looked for
        return CaptionFile(path, pictures, data.decode("ascii"), version)
    encoding = read_caption(path)[1]
    try:
        return CaptionFile(path, pictures, data.decode(encoding), version, encoding)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: was changed while it was read. Load the captions again.") from error


def _draft(title: str, after: Mapping[Path, str], loaded: Loaded, selection: Selection) -> Draft:
    proposals = tuple(_proposals(after, loaded, selection))
    return Draft("captions", f"{title}: {len(proposals)} of {len(after)}", loaded.root, proposals)


def _proposals(after: Mapping[Path, str], loaded: Loaded, selection: Selection) -> Iterator[Proposal]:
    wanted = None if selection.pictures is None else set(selection.pictures)
    for path, text in after.items():
        file = loaded.files[path]
        if text == file.text:
            continue
        operation = (replace if file.version else write)(path, partial(_fill, file, text))
        problems = tuple(_problems(file, wanted))
        yield Proposal(file.pictures[0], (operation,), {"caption": file.text}, {"caption": text}, problems)


def _problems(file: CaptionFile, wanted: set[Path] | None) -> Iterator[Problem]:
    if file.encoding not in UNICODE_ENCODINGS:
        text = f"was read as {file.encoding}, and is written as UTF-8."
        yield Problem("warning", printable(file.path), text, "Look whether its letters are right.")
    others = [picture.name for picture in file.pictures if wanted is not None and picture not in wanted]
    if others:
        text = f"belongs to {', '.join(others)} as well, which changes too."
        yield Problem("warning", printable(file.path), text, "Rename one of the pictures to part them.")


def _fill(file: CaptionFile, text: str, path: Path) -> None:
    """Write a text to a new file unless the caption file is another than the one it was made on."""
    now = _version(file.path)
    if now != file.version:
        done = "was removed" if not now else "was written" if not file.version else "was changed"
        text = f"{done} after its caption was loaded. Nothing was changed. Load the captions again and repeat the edit."
        raise DataError(f"{printable(file.path)}: {text}")
    path.write_bytes(text.encode("utf-8"))


def _version(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
