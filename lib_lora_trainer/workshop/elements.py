"""Elemental weights: weights of kinds of layers within blocks, in lora-block-weight's format."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib_lora_trainer.adapters import blocks
from lib_lora_trainer.base.errors import ConfigError, DataError
from lib_lora_trainer.workshop.places import Place

FILE = "elempresets.txt"  # in lora-block-weight's folder `scripts`
_ORDER = blocks.ORDERS[26]  # ranges are read in it, for SDXL too
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)")
DEFAULTS = "ATTNDEEPON:IN05-OUT05:attn:1\n\nATTNDEEPOFF:IN05-OUT05:attn:0\n\nPROJDEEPOFF:IN05-OUT05:proj:0\n\nXYZ:::1\n"


@dataclass(frozen=True)
class Directive:
    """A weight for the layers in some blocks whose names contain some words.

    blocks, words: empty for all; other_blocks, other_words: those that are not named instead.
    """

    blocks: frozenset[str]
    other_blocks: bool
    words: tuple[str, ...]
    other_words: bool
    ratio: float

    def matches(self, place: Place) -> bool:
        """Tell whether a layer gets this weight.

        Blocks are compared whole. lora-block-weight searches names of blocks in the layer's key and block, where an
        element's word could be found as well.
        """
        inside = not self.blocks or (place.block in self.blocks) != self.other_blocks
        named = not self.words or any(word in place.name for word in self.words) != self.other_words
        return inside and named


Directives = tuple[Directive, ...]


def weight(directives: Sequence[Directive], place: Place, ratio: float) -> float:
    """Return a layer's weight: of the last directive that matches, in the place of its block's, else `ratio`."""
    return next((each.ratio for each in reversed(directives) if each.matches(place)), ratio)


def parse(text: str) -> Directives:
    """Return the directives of `BLOCKS:ELEMENTS:ratio`, several after commas or line ends.

    BLOCKS: names and ranges with spaces between, `IN05-OUT05 BASE`, IN and OUT for all of them; ELEMENTS: parts of
    layers' names, `attn proj`; NOT first: all but these; nothing: all. Raises ConfigError naming the directive.
    """
    items = [item.strip() for item in re.split(r"[,\r\n]+", blocks.plain(text)) if item.strip()]
    if not items:
        raise ConfigError("no elements were given. Write BLOCKS:ELEMENTS:ratio, for instance IN05-OUT05:attn:0.")
    return tuple(_directive(item) for item in items)


def write(directives: Sequence[Directive]) -> str:
    """Return directives as text, which `parse` reads back."""
    lines = []
    for each in directives:
        where = " ".join(_ordered(each.blocks))
        words = " ".join(each.words)
        there = f"NOT {where}" if each.other_blocks else where
        ratio = int(each.ratio) if each.ratio == int(each.ratio) else each.ratio
        lines.append(f"{there}:{'NOT ' if each.other_words else ''}{words}:{ratio}")
    return ",".join(lines)


def parse_file(text: str) -> dict[str, str]:
    """Return the entries of an elemental presets file by name: `NAME:BLOCKS:ELEMENTS:ratio…`, with empty lines between.

    An entry without a colon is passed over; of two with one name the later one counts. Line ends may be Windows'.
    """
    found = {}
    for entry in re.split(r"\n[ \t]*\n", text.lstrip("\ufeff").replace("\r\n", "\n")):
        name, colon, rest = entry.strip().partition(":")
        if colon:
            found[name.strip()] = rest.strip()
    return found


def read_all(paths: Iterable[Path]) -> dict[str, str]:
    """Return the program's own entries and those of files, which may not exist; of one name the last counts.

    Raises DataError for other than text.
    """
    found = parse_file(DEFAULTS)
    for path in paths:
        if not path.exists():
            continue
        try:
            found |= parse_file(path.read_bytes().decode("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read as elemental presets ({error}). Save it as UTF-8 text.") from error
    return found


def choose(text: str, entries: dict[str, str]) -> Directives:
    """Return the directives of an entry's name, or of a text that has colons itself."""
    if text in entries:
        try:
            return parse(entries[text])
        except ConfigError as error:
            raise ConfigError(f"elemental preset {text}: {error}") from error
    if ":" in text:
        return parse(text)
    raise ConfigError(f"{text!r} is no elemental preset. There are {', '.join(entries)}.")


def _directive(item: str) -> Directive:
    parts = item.split(":")
    if len(parts) != 3:
        raise ConfigError(f"{item!r} has {len(parts)} parts. Write BLOCKS:ELEMENTS:ratio; the first two may be empty.")
    where, words, ratio = (part.strip() for part in parts)
    if not _NUMBER.fullmatch(ratio):
        raise ConfigError(f"{item!r}: its ratio {ratio!r} is no number. Write for instance {where}:{words}:0.5.")
    there, others = _negation(where)
    named, except_these = _negation(words)
    return Directive(
        frozenset(block for word in there for block in _blocks(word, item)), others, named, except_these, float(ratio)
    )


def _negation(text: str) -> tuple[tuple[str, ...], bool]:
    words = tuple(text.split())
    return (words[1:], True) if words[:1] == ("NOT",) else (words, False)


def _blocks(word: str, item: str) -> tuple[str, ...]:
    if word in ("IN", "OUT"):
        return tuple(block for block in _ORDER if block.startswith(word))
    first, dash, last = word.partition("-")
    ends = [{"M00": blocks.MIDDLE}.get(end, end) for end in ((first, last) if dash else (first, first))]
    if any(end not in _ORDER for end in ends):
        raise ConfigError(f"{item!r}: {word!r} is no block. Write BASE, IN00 to IN11, M00, OUT00 to OUT11, or ranges.")
    here, there = (_ORDER.index(end) for end in ends)
    if there < here:
        raise ConfigError(f"{item!r}: {word!r} runs backwards. Write {last}-{first}.")
    return _ORDER[here : there + 1]


def _ordered(chosen: frozenset[str]) -> list[str]:
    return [block for block in _ORDER if block in chosen]
