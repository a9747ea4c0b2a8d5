"""What a change does to captions: per picture with its words marked, and how often each tag comes and goes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Literal

from lib_lora_trainer.captions.text import Marks, parse

Kind = Literal["same", "removed", "added"]
_WORDS = re.compile(r"\s+|,|[^\s,]+")


@dataclass(frozen=True)
class Span:
    """A piece of text that stays, goes or comes."""

    kind: Kind
    text: str


@dataclass(frozen=True)
class Change:
    """The caption of one file before and after."""

    path: Path
    before: str
    after: str

    def spans(self) -> tuple[Span, ...]:
        """Return the pieces in order: without the added ones they are the text before, without the removed ones after."""
        return spans(self.before, self.after)


@dataclass(frozen=True)
class TagCount:
    """How many captions lose a tag, as it is spelled, and how many get it."""

    tag: str
    removed: int
    added: int


def changes(before: Mapping[Path, str], after: Mapping[Path, str]) -> tuple[Change, ...]:
    """Return what differs, in the order of `after`; what is absent before was empty."""
    found = (Change(path, before.get(path, ""), text) for path, text in after.items())
    return tuple(change for change in found if change.before != change.after)


def spans(before: str, after: str) -> tuple[Span, ...]:
    """Return the differences of two texts by words; commas and spaces count as words."""
    left, right = _WORDS.findall(before), _WORDS.findall(after)
    found: list[Span] = []
    for kind, start, end, from_, to in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if kind == "equal":
            found.append(Span("same", "".join(left[start:end])))
            continue
        if end > start:
            found.append(Span("removed", "".join(left[start:end])))
        if to > from_:
            found.append(Span("added", "".join(right[from_:to])))
    return tuple(found)


def tag_counts(changed: Iterable[Change], marks: Marks | None = None) -> tuple[TagCount, ...]:
    """Return the tags that come or go, those of most captions first; a tag that only moves does neither."""
    gone: Counter[str] = Counter()
    come: Counter[str] = Counter()
    for change in changed:
        left, right = Counter(parse(change.before, marks).tags), Counter(parse(change.after, marks).tags)
        gone.update((left - right).keys())
        come.update((right - left).keys())
    counts = [TagCount(tag, gone[tag], come[tag]) for tag in gone.keys() | come.keys()]
    return tuple(sorted(counts, key=lambda count: (-count.removed - count.added, count.tag)))
