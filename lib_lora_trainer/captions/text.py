r"""A caption as its tags and sentences with everything between them kept, so that a change of one leaves the rest alone.

What separates: the comma as in `tags.split`, the ends of lines, and the separators of the settings. Two things are one
item although they hold commas: a sentence (see `is_prose`), and with emphasis or wildcards what stands in brackets.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lib_lora_trainer.captions.lexicon import key as _key
from lib_lora_trainer.config.data import CaptionConfig

_LINE_END = r"\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]"  # those of str.splitlines
_HAS_LINE_END = re.compile(_LINE_END)
_WORD = re.compile(r"[^\W\d_][\w'’-]*|\d+")
_SENTENCE_WORDS = frozenset(
    "a an the is are was were has have with and but her his their its she he they it this that who which while".split()  # noqa: SIM905
)
_FUNCTION_WORDS = _SENTENCE_WORDS | frozenset("of in on at to from by for or as into onto over under behind".split())  # noqa: SIM905
_SENTENCE_END = re.compile(r"[^\W\d_]{2}[\"'”’)]?[.!?…][\"'”’)]?(\s|$)")
_WIDE_END = re.compile("[。！？]")
_SPACED = re.compile(r",[ \t]*")
STANDARD_SEPARATOR = "|||"

key = functools.lru_cache(maxsize=200_000)(_key)
"""What all spellings of a tag have in common, as in `lexicon.key`; remembered, since captions repeat their tags."""


@dataclass(frozen=True)
class Marks:
    """What has a meaning in captions. separator, secondary: as in the settings; "" when there is none.

    alternatives: lines are alternatives and {…} are wildcards; emphasis: (…) and […] are weights.
    """

    separator: str = STANDARD_SEPARATOR
    secondary: str = ""
    alternatives: bool = False
    emphasis: bool = False


PLAIN = Marks()


def marks_of(config: CaptionConfig) -> Marks:
    """Return the marks of the settings; `|||` separates also before it is set, since no tag holds it."""
    separator = config.separator or STANDARD_SEPARATOR
    return Marks(separator, config.secondary_separator, config.wildcards, config.emphasis)


@dataclass(frozen=True)
class Item:
    """A tag, stripped; or prose: the sentences of a line."""

    text: str
    prose: bool = False

    @property
    def key(self) -> str:
        """What all spellings of it have in common."""
        return key(self.text)


_item = functools.lru_cache(maxsize=200_000)(Item)  # captions repeat their tags


@dataclass(frozen=True)
class Caption:
    """Items, and the gaps before, between and behind them: one gap more than items."""

    items: tuple[Item, ...]
    gaps: tuple[str, ...]
    marks: Marks = PLAIN

    @property
    def text(self) -> str:
        """The caption as it is written; of a parsed one the same string again."""
        joined = "".join(gap + item.text for gap, item in zip(self.gaps, self.items, strict=False))
        return joined + self.gaps[-1]

    @property
    def tags(self) -> tuple[str, ...]:
        """The texts of the tags, without prose."""
        return tuple(item.text for item in self.items if not item.prose)

    @property
    def keys(self) -> frozenset[str]:
        """What the tags are compared by."""
        return frozenset(item.key for item in self.items if not item.prose)

    @property
    def kind(self) -> str:
        """`empty`, `tags`, `prose`, or `mixed` where lines differ."""
        kinds = {item.prose for item in self.items}
        return {0: "empty", 2: "mixed"}.get(len(kinds)) or ("prose" if True in kinds else "tags")

    def lines(self) -> tuple[range, ...]:
        """Return the numbers of the items of each line that has any."""
        return self._runs(2)

    def sections(self) -> tuple[range, ...]:
        """Return the numbers of the items of each part of a line between separators."""
        return self._runs(1)

    def _runs(self, strength: int) -> tuple[range, ...]:
        starts = [0, *(i for i in range(1, len(self.items)) if _strength(self.gaps[i], self.marks) >= strength)]
        ends = [*starts[1:], len(self.items)]
        return tuple(range(start, end) for start, end in zip(starts, ends, strict=True) if start < end)


def parse(text: str, marks: Marks | None = None) -> Caption:
    """Return a caption's items and gaps; `parse(text).text` is `text`, whatever it is."""
    marks = marks or PLAIN
    items: list[Item] = []
    gaps: list[str] = []
    position = 0
    for start, end, prose in _spans(text, marks):
        gaps.append(text[position:start])
        items.append(_item(text[start:end], prose))
        position = end
    return Caption(tuple(items), (*gaps, text[position:]), marks)


def is_prose(text: str) -> bool:
    """Tell whether a line is sentences rather than tags.

    It is when it has four words or more, three of them or more between two commas on average, and a word that sentences
    have and tags hardly (a, the, is, with, her …); and if besides a sentence ends in it, or it has two different function
    words at three and a half words between commas. Prepositions alone do not count (`hand on own hip, looking at
    viewer`); words joined by underscores are one.
    Japanese and Chinese sentences are known by their full stop.
    """
    if _WIDE_END.search(text):
        return True
    parts = [part for part in text.split(",") if part.strip()]
    spaced = text.split()
    if len(spaced) < max(4, 3 * len(parts)):  # most captions of tags end here
        return False
    words = [word for word in spaced if _WORD.search(word)]
    if len(words) < 4:
        return False
    found = _SENTENCE_END.search(text)
    mean = len(words) / len(parts)
    known = {word.strip(",.;:!?\"'()").casefold() for word in words} & _FUNCTION_WORDS
    if not known & _SENTENCE_WORDS:
        return False
    return (found is not None and mean >= 3) or (mean >= 3.5 and len(known) >= 2)


def _spans(text: str, marks: Marks) -> Iterator[tuple[int, int, bool]]:
    """Yield where each item begins and ends, and whether it is prose."""
    position = 0
    for found in _separators(marks).finditer(text):
        yield from _of_piece(text, position, found.start(), marks)
        position = found.end()
    yield from _of_piece(text, position, len(text), marks)


@functools.lru_cache(maxsize=64)
def _separators(marks: Marks) -> re.Pattern[str]:
    others = [re.escape(mark) for mark in (marks.separator, marks.secondary) if mark]
    return re.compile("|".join((_LINE_END, *others)))


def _of_piece(text: str, start: int, end: int, marks: Marks) -> Iterator[tuple[int, int, bool]]:
    piece = text[start:end]
    if not piece.strip():
        return
    prose = is_prose(piece)
    for first, last in [(0, len(piece))] if prose else _between_commas(piece, marks):
        part = piece[first:last]
        if stripped := part.strip():
            begin = start + first + len(part) - len(part.lstrip())
            yield begin, begin + len(stripped), prose


def _between_commas(piece: str, marks: Marks) -> Iterator[tuple[int, int]]:
    """Yield the parts between commas; those in brackets that mean something separate none, as in `emphasis`."""
    if not marks.emphasis and not marks.alternatives:
        start = 0
        while (end := piece.find(",", start)) >= 0:
            yield start, end
            start = end + 1
        yield start, len(piece)
        return
    opening = ("([" if marks.emphasis else "") + ("{" if marks.alternatives else "")
    closing = (")]" if marks.emphasis else "") + ("}" if marks.alternatives else "")
    depth = start = position = 0
    while position < len(piece):
        character = piece[position]
        if character == "\\" and marks.emphasis:
            position += 1
        elif character in opening:
            depth += 1
        elif character in closing:
            depth = max(0, depth - 1)
        elif character == "," and depth == 0:
            yield start, position
            start = position + 1
        position += 1
    yield start, len(piece)


def _strength(gap: str, marks: Marks) -> int:
    """Return how firmly a gap separates: 2 ends a line, 1 has the separator, 0 a comma, -1 the secondary separator."""
    if _HAS_LINE_END.search(gap):
        return 2
    if marks.separator and marks.separator in gap:
        return 1
    return -1 if marks.secondary and marks.secondary in gap else 0


def comma_of(caption: Caption) -> str:
    """Return how the caption's own commas are spaced; a comma and a space where it has none."""
    return next((gap for gap in caption.gaps[1:-1] if _SPACED.fullmatch(gap)), ", ")


def changed(caption: Caption, texts: Mapping[int, str]) -> Caption:
    """Return a caption with other texts for some of its items; empty ones are removed."""
    items = tuple(
        Item(texts[index].strip(), item.prose) if index in texts else item for index, item in enumerate(caption.items)
    )
    done = Caption(items, caption.gaps, caption.marks)
    return removed(done, [index for index in texts if not texts[index].strip()])


def removed(caption: Caption, indices: Sequence[int]) -> Caption:
    """Return a caption without some items; each takes the weaker of the two gaps around it along."""
    items, gaps = list(caption.items), list(caption.gaps)
    for index in sorted(set(indices), reverse=True):
        gaps[index : index + 2] = [_merged(index == 0, index == len(items) - 1, gaps[index : index + 2], caption.marks)]
        del items[index]
    return Caption(tuple(items), tuple(gaps), caption.marks)


def _merged(first: bool, last: bool, gaps: Sequence[str], marks: Marks) -> str:
    left, right = gaps
    strong, weak = _strength(left, marks), _strength(right, marks)
    if first and last:
        return right if right.isspace() else ""
    if first:
        return left + right.lstrip(" \t") if weak == 1 else left
    if last:
        return left.rstrip(" \t") + right if strong == 1 else right
    if strong >= 1 and weak >= 1 and (strong, weak) != (2, 2):
        return left + right.lstrip(" \t") if strong == 2 else left.rstrip(" \t") + right
    return right if weak > strong else left


def before(caption: Caption, index: int, text: str) -> Caption:
    """Return a caption with a new item in front of another, in its line; in a caption without items it is the only one."""
    return _inserted(caption, index, text, behind=False)


def after(caption: Caption, index: int, text: str) -> Caption:
    """Return a caption with a new item behind another, in its line; behind a sentence's end no comma is needed."""
    return _inserted(caption, index, text, behind=True)


def _inserted(caption: Caption, index: int, text: str, *, behind: bool) -> Caption:
    items, gaps = list(caption.items), list(caption.gaps)
    new = Item(text.strip())
    if not items:
        return Caption((new,), ("", gaps[0] if gaps[0].isspace() else ""), caption.marks)
    ended = behind and items[index].prose and items[index].text.endswith((".", "!", "?", "…", ";", ":", ","))
    comma = " " if ended else comma_of(caption)
    items.insert(index + behind, new)
    gaps.insert(index + 1, comma)
    return Caption(tuple(items), tuple(gaps), caption.marks)


def units(caption: Caption, section: range) -> tuple[range, ...]:
    """Return the items of a section that stay together: those with the secondary separator between them."""
    starts = [section.start]
    starts += [i for i in section[1:] if _strength(caption.gaps[i], caption.marks) >= 0]
    return tuple(range(start, end) for start, end in zip(starts, [*starts[1:], section.stop], strict=True))


def reordered(caption: Caption, section: range, order: Sequence[range]) -> Caption:
    """Return a caption with the units of a section in another order; the gaps between units stay where they are."""
    items, gaps = list(caption.items), list(caption.gaps)
    between = [caption.gaps[unit.start] for unit in units(caption, section)]
    place = section.start
    for unit, gap in zip(order, between, strict=True):
        for offset, index in enumerate(unit):
            items[place] = caption.items[index]
            gaps[place] = caption.gaps[index] if offset else gap
            place += 1
    return Caption(tuple(items), tuple(gaps), caption.marks)
