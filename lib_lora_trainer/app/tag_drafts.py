"""What tagging would write: the caption of every picture before and after, as a Draft for the journal."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from lib_lora_trainer.app.dataset_tools import Draft
from lib_lora_trainer.base.errors import DataError, Problem
from lib_lora_trainer.captions import tags as caption_tags
from lib_lora_trainer.config.data import CaptionConfig
from lib_lora_trainer.dataset.caption_files import UNICODE_ENCODINGS, find_caption, read_caption
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.tools.members import Dataset, Member
from lib_lora_trainer.dataset.tools.operations import Proposal, replace, write
from lib_lora_trainer.tagging.spelling import key

Tags = tuple[str, ...]


def draft(dataset: Dataset, found: Mapping[Path, Tags | Problem], mode: str) -> Draft:
    """Return what writing the tags of each picture would do.

    found: by picture, its tags in order and spelling, or why there are none; pictures that are absent stay as they are.
    mode: one of `tagging.options.MODES`.
    """
    proposals = tuple(_proposals(dataset, found, mode))
    changed = sum(bool(each.operations) for each in proposals)
    return Draft("tag", f"Tags: {changed} of {len(proposals)}", dataset.root, proposals)


def is_empty(picture: Path, dataset: Dataset) -> bool:
    """Tell whether a picture has no caption, or a blank one; one that cannot be read is not empty."""
    caption = find_caption(picture, dataset.extensions)
    if caption is None:
        return True
    try:
        return not read_caption(caption)[0].strip()
    except DataError:
        return False


def merged(text: str, tags: Sequence[str], mode: str, caption: CaptionConfig) -> str:
    """Return a caption with tags written into it; lines separated by line feeds.

    append, prepend: what is there stays as written; a tag that it has in any spelling is not added. Of several lines
    the last, or the first, takes them; all do where lines are alternatives (`wildcards`).
    """
    lines = text.split("\n")
    if mode == "overwrite" or not text.strip():
        return caption_tags.join(tags)
    if mode == "if-empty":
        return text
    places = range(len(lines)) if caption.wildcards else [-1 if mode == "append" else 0]
    whole = _keys(text, caption)
    for place in places:
        there = _keys(lines[place], caption) if caption.wildcards else whole
        new = caption_tags.join(tag for tag in tags if key(tag) not in there)
        if new:
            old = lines[place].strip().strip(",").strip()
            lines[place] = caption_tags.join(filter(None, (old, new) if mode == "append" else (new, old)))
    return "\n".join(lines)


def _keys(text: str, caption: CaptionConfig) -> set[str]:
    for mark in filter(None, (caption.separator, caption.secondary_separator, "\n")):
        text = text.replace(mark, ",")
    return {key(tag) for tag in caption_tags.split(text)}


def _proposals(dataset: Dataset, found: Mapping[Path, Tags | Problem], mode: str) -> Iterator[Proposal]:
    writers: dict[str, Path] = {}
    for member in dataset.members:
        if member.path not in found:
            continue
        tags = found[member.path]
        if isinstance(tags, Problem):
            yield Proposal(member.path, problems=(tags,))
            continue
        target = _target(member, dataset)
        first = writers.setdefault(os.path.normcase(target), member.path)
        if first == member.path:
            yield _proposal(member.path, target, tags, mode, dataset)
            continue
        text = f"has the caption {printable(target)} together with {first.name}, whose tags are written there."
        yield Proposal(member.path, problems=(_warning(member.path, text, "Rename one of the two pictures."),))


def _target(member: Member, dataset: Dataset) -> Path:
    extension = dataset.extensions[0] if dataset.extensions else ".txt"
    return find_caption(member.path, dataset.extensions) or member.path.with_name(f"{member.path.stem}{extension}")


def _proposal(picture: Path, target: Path, tags: Tags, mode: str, dataset: Dataset) -> Proposal:
    exists = find_caption(picture, dataset.extensions) is not None
    text, encoding = "", "utf-8"
    if exists:
        try:
            text, encoding = read_caption(target, "\n")
        except DataError as error:
            return Proposal(picture, problems=(_warning(picture, f"is not tagged: {error}", ""),))
    before = {"caption": text}
    if not tags:
        problem = _warning(picture, "gets no tag: none reaches the threshold.", "Lower the threshold.")
        return Proposal(picture, before=before, after=before, problems=(problem,))
    after = merged(text, tags, mode, dataset.data.caption)
    if after == text:
        return Proposal(picture, before=before, after=before)
    problems: tuple[Problem, ...] = ()
    if encoding not in UNICODE_ENCODINGS:
        message = f"has a caption that was read as {encoding}, and is written as UTF-8."
        problems = (_warning(picture, message, "Look whether its letters are right."),)
    content = partial(_fill, after)
    operation = replace(target, content) if exists else write(target, content)
    return Proposal(picture, (operation,), before, {"caption": after}, problems)


def _fill(text: str, path: Path) -> None:
    path.write_bytes(text.encode("utf-8"))


def _warning(picture: Path, message: str, fix: str) -> Problem:
    return Problem("warning", printable(picture), message, fix)
