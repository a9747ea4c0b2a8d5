"""The WebUI's emphasis in captions: (tag), [tag] and (tag:1.3) weight their words."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

ROUND = 1.1
SQUARE = 1 / 1.1
BREAK = ("BREAK", -1.0)
"""Among parsed pieces: a new chunk of 75 tokens begins here. Within brackets the word is plain text, as in the WebUI."""

_ESCAPED = re.compile(r"\\([()\[\]\\]?)")
_WEIGHT = re.compile(r":\s*([+-]?[.\d]+)\s*\)")
_PLAIN = re.compile(r"[^\\()\[\]:]+")
_BREAK = re.compile(r"\s*\bBREAK\b\s*")


@dataclass
class _Piece:
    text: str
    weight: float = 1.0


def parse(text: str) -> tuple[tuple[str, float], ...]:
    r"""Return the pieces of a prompt with their weights, as the WebUI reads them; at least one.

    (x) weighs 1.1, [x] 1 / 1.1, (x:1.3) 1.3; brackets in brackets multiply. \( \) \[ \] \\ are plain characters, a
    backslash before anything else vanishes. A bracket that is never closed reaches to the end, one that was never
    opened is plain text, and so is a weight outside of round brackets. Neighbours of equal weight are one piece.
    What BREAK separates is separated by `BREAK`.
    The specification is modules/prompt_parser.py `parse_prompt_attention` at 1.10.1; different on purpose: a weight that
    is no number, as in (x:1.2.3), where the WebUI fails, is plain text (test_emphasis.py
    `test_a_weight_that_is_no_number_is_text`).
    """
    pieces: list[_Piece] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}
    for mark, content in _marks(text):
        if mark in opened:
            opened[mark].append(len(pieces))
        elif mark == "weight" and opened["("]:
            _weigh(pieces[opened["("].pop() :], float(content[1:-1]))
        elif mark == ")" and opened["("]:
            _weigh(pieces[opened["("].pop() :], ROUND)
        elif mark == "]" and opened["["]:
            _weigh(pieces[opened["["].pop() :], SQUARE)
        elif mark == "escaped":
            pieces.append(_Piece(content))
        else:
            pieces += _with_breaks(content)
    for start in opened["("]:
        _weigh(pieces[start:], ROUND)
    for start in opened["["]:
        _weigh(pieces[start:], SQUARE)
    return tuple(_merged(pieces)) or (("", 1.0),)


def split_tags(text: str) -> tuple[str, ...]:
    """Return comma-separated tags, stripped, empty ones dropped; a comma inside of brackets separates none.

    So (blue eyes, red hair:1.2) is one tag, and a bracket that is never closed holds the rest.
    """
    depth, start = 0, 0
    tags: list[str] = []
    position = 0
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 1
        elif character in "([":
            depth += 1
        elif character in ")]":
            depth = max(0, depth - 1)
        elif character == "," and depth == 0:
            tags.append(text[start:position])
            start = position + 1
        position += 1
    return tuple(tag for part in (*tags, text[start:]) if (tag := part.strip()))


def _marks(text: str) -> Iterator[tuple[str, str]]:
    """Yield (kind, content): an opening or closing bracket, `weight` with `:1.3)`, `escaped`, or `text`."""
    position = 0
    while position < len(text):
        character = text[position]
        if character == "\\":
            found = _ESCAPED.match(text, position)
            assert found is not None  # it matches any backslash
            yield "escaped", found[1]
            position = found.end()
        elif character in "()[]":
            yield character, character
            position += 1
        elif character == ":":
            weight = _WEIGHT.match(text, position)
            if weight is not None and _is_number(weight[1]):
                yield "weight", weight[0]
                position = weight.end()
            else:
                yield "text", ":"
                position += 1
        else:
            plain = _PLAIN.match(text, position)
            assert plain is not None  # it matches whatever is no mark
            yield "text", plain[0]
            position = plain.end()


def _is_number(digits: str) -> bool:
    try:
        return math.isfinite(float(digits))
    except ValueError:
        return False


def _weigh(pieces: list[_Piece], factor: float) -> None:
    for piece in pieces:
        piece.weight *= factor


def _with_breaks(text: str) -> Iterator[_Piece]:
    for number, part in enumerate(_BREAK.split(text)):
        if number:
            yield _Piece(*BREAK)
        yield _Piece(part)


def _merged(pieces: list[_Piece]) -> Iterator[tuple[str, float]]:
    text, weight = "", None
    for piece in pieces:
        if weight is not None and piece.weight != weight:
            yield text, weight
            text = ""
        text, weight = text + piece.text, piece.weight
    if weight is not None:
        yield text, weight
