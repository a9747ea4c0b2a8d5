"""How many of CLIP's tokens a caption takes, and where its chunks of 75 end: for the counter beside a caption.

The text encoders of all Stable Diffusion families that are trained here share this vocabulary. The merge list is the one
that the package open_clip or clip carries; it is read, the package is not imported.
"""

from __future__ import annotations

import functools
import gzip
import importlib.util
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

CHUNK, REACH = 75, 20
"""Tokens of a chunk, and how far back a comma is looked for, as the WebUI cuts prompts (modules/sd_hijack_clip.py)."""
_FILE, _PACKAGES = "bpe_simple_vocab_16e6.txt.gz", ("open_clip", "clip")
_MERGES = 49408 - 2 * 256 - 2  # the vocabulary without bytes, bytes that end a word, start and end
_COMMA = ",</w>"
_SHORT = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")


@dataclass(frozen=True)
class Counted:
    """A caption's tokens. chunks: how many it takes, at least 1; ends: behind which comma-separated part each ends."""

    tokens: int
    chunks: int
    ends: tuple[int, ...]


def count(text: str) -> Counted | None:
    """Count a caption's tokens, commas included, without start and end; None where the merge list is not installed.

    A chunk that is full in the middle of a phrase ends at the last comma among its last 20 tokens, as in
    `hosts.chunks.split`; that both agree is shown by test_ui_captions_tokens.
    """
    if _ranks() is None:
        return None
    plain = unicodedata.normalize("NFC", text).lower()
    tokens = [(token, place) for word, place in words(plain) for token in _merged(word)]
    ends: list[int] = []
    first = 0
    for number, (token, _) in enumerate(tokens):
        if number - first == CHUNK:
            first = number if token == _COMMA else _phrase_end(tokens, first, number)
            before = plain[: tokens[first][1]].rstrip()
            ends.append(before.count(",") - before.endswith(","))
    return Counted(len(tokens), len(ends) + 1, tuple(ends))


def _phrase_end(tokens: Sequence[tuple[str, int]], first: int, number: int) -> int:
    """Return where the chunk after `number` begins: behind the last comma near, else there."""
    for place in range(number - 1, max(number - 1 - REACH, first - 1), -1):
        if tokens[place][0] == _COMMA:
            return place + 1
    return number


def words(plain: str) -> Iterator[tuple[str, int]]:
    """Yield what CLIP makes tokens of: words, single digits, runs of other signs; each with its place in the text."""
    run, before, place = "", "", 0
    while place < len(plain):
        short = next((each for each in _SHORT if plain.startswith(each, place)), "") if before != "S" else ""
        kind = "'" if short else _kind(plain[place])
        if run and (kind != before or kind in ("N", "'")):
            yield run, place - len(run)
            run = ""
        run = "" if kind == " " else run + (short or plain[place])
        before = kind
        place += len(short) or 1
    if run:
        yield run, place - len(run)


def _kind(letter: str) -> str:
    category = unicodedata.category(letter)[0]
    return " " if letter.isspace() else category if category in "LN" else "S"


@functools.lru_cache(maxsize=65_536)
def _merged(word: str) -> tuple[str, ...]:
    ranks = _ranks() or {}
    letters = [_LETTERS[byte] for byte in word.encode("utf-8")]
    parts = [*letters[:-1], f"{letters[-1]}</w>"]
    while len(parts) > 1:
        best = min(pairwise(parts), key=lambda pair: ranks.get(pair, _MERGES))
        if best not in ranks:
            break
        parts = _joined(parts, best)
    return tuple(parts)


def _joined(parts: Sequence[str], pair: tuple[str, str]) -> list[str]:
    found: list[str] = []
    place = 0
    while place < len(parts):
        together = tuple(parts[place : place + 2]) == pair
        found.append("".join(pair) if together else parts[place])
        place += 2 if together else 1
    return found


@functools.lru_cache(maxsize=1)
def _ranks() -> dict[tuple[str, str], int] | None:
    """Return the rank of each merge, None where no package has the list."""
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
            path = Path(folder) / _FILE
            if path.is_file():
                lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")[1 : _MERGES + 1]
                return {(left, right): rank for rank, (left, right) in enumerate(map(str.split, lines))}
    return None


def _byte_letters() -> tuple[str, ...]:
    """Return one printable letter per byte: printable Latin-1 stands for itself, the rest follow from U+0100 on."""
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    rest = [byte for byte in range(256) if byte not in printable]
    return tuple(chr(byte) if byte in printable else chr(256 + rest.index(byte)) for byte in range(256))


_LETTERS = _byte_letters()
