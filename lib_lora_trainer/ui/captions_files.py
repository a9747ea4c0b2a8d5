"""Caption files as they are now: that of one picture, its change as a Draft, and drafts that notice other changes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from lib_lora_trainer.app import caption_jobs
from lib_lora_trainer.app.caption_jobs import CaptionFile, Loaded
from lib_lora_trainer.app.dataset_tools import Draft
from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.captions.text import marks_of
from lib_lora_trainer.config.data import DataConfig
from lib_lora_trainer.dataset.caption_files import UNICODE_ENCODINGS, find_caption, read_caption
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.tools.members import caption_extensions
from lib_lora_trainer.dataset.tools.operations import Operation


@dataclass(frozen=True)
class Seen:
    """A caption as it is shown. file: its text's lines are stripped and joined by line feeds; told: what to know."""

    file: CaptionFile
    told: str = ""


def read(data: DataConfig, picture: Path) -> Seen:
    """Return a picture's caption; a file that is no text has none and says why. Raises DataError for an unreadable one."""
    extensions = caption_extensions(data.caption.extensions)
    found = find_caption(picture, extensions)
    if found is None:
        path = picture.with_name(f"{picture.stem}{extensions[0] if extensions else '.txt'}")
        return Seen(CaptionFile(path, (picture,), "", ""))
    try:
        version = hashlib.sha256(found.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{printable(found)}: cannot be read: {error.strerror or error}. Scan again.") from error
    try:
        text, encoding = read_caption(found, "\n")
    except DataError as error:
        return Seen(CaptionFile(found, (picture,), "", version), printable(str(error)))
    told = "" if encoding in UNICODE_ENCODINGS else f"Was read as {encoding}; when saved, it is written as UTF-8."
    return Seen(CaptionFile(found, (picture,), text, version, encoding), told)


def draft(root: Path, data: DataConfig, held: CaptionFile, text: str) -> Draft:
    """Return what saving a caption would do: nothing where it is the same, lines stripped and empty ones dropped.

    Applying it raises DataError, and changes nothing, where the file is another one than was held.
    """
    after = "\n".join(line.strip() for line in text.splitlines() if line.strip())
    (picture,) = held.pictures
    made = caption_jobs.draft_texts({picture: after}, Loaded(root, {held.path: held}, marks_of(data.caption)))
    return replace(made, text=f"Caption of {picture.name}")


def guarded(made: Draft) -> Draft:
    """Return a draft that is not applied once a file it writes is another one than now; DataError then names the file.

    Between the look at a preview and its application another browser, or another program, may have written.
    """
    proposals = tuple(
        replace(proposal, operations=tuple(_guarded(operation) for operation in proposal.operations))
        for proposal in made.proposals
    )
    return replace(made, proposals=proposals)


def _guarded(operation: Operation) -> Operation:
    return replace(operation, content=partial(_fill, operation, _version(operation.path)))


def _fill(operation: Operation, version: str, path: Path) -> None:
    if _version(operation.path) != version:
        text = "was changed after the preview. Nothing was changed. Press Preview again."
        raise DataError(f"{printable(operation.path)}: {text}")
    if operation.content is not None:
        operation.content(path)


def _version(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""
