"""How many tokens a caption takes, and where in its text a new chunk of 75 begins."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_WORD = re.compile(r"\S+")

Tokenize = Callable[[str], Sequence[int]]
Cut = Callable[[Sequence[int]], Sequence[Sequence[int]]]


@dataclass(frozen=True)
class Tokens:
    """A caption's length. tokens: without start and end; chunks: where each chunk but the first begins in the text."""

    tokens: int
    chunks: tuple[int, ...]


class TokenCounter:
    """Counts tokens word by word, remembering each word, since captions repeat their words."""

    def __init__(self, tokenize: Tokenize, cut: Cut) -> None:
        """tokenize: a text's token numbers without start and end, as CLIP's, which begins anew behind every space.

        cut: tokens in chunks, as hosts do it (`hosts.chunks.split` with the number of the comma).
        """
        self._tokenize, self._cut = tokenize, cut
        self._known: dict[str, tuple[int, ...]] = {}

    def count(self, text: str) -> int:
        """Return how many tokens a text has."""
        return sum(len(self._of(word[0])) for word in _WORD.finditer(text))

    def measure(self, text: str) -> Tokens:
        """Return a text's tokens with the places of the chunks: each that of the word whose token comes first there."""
        ids: list[int] = []
        places: list[int] = []
        for word in _WORD.finditer(text):
            found = self._of(word[0])
            ids += found
            places += self._places(word[0], word.start(), found)
        starts: list[int] = []
        position = 0
        for chunk in self._cut(ids)[:-1]:
            position += len(chunk)
            if position < len(places):
                starts.append(places[position])
        return Tokens(len(ids), tuple(starts))

    def _of(self, word: str) -> tuple[int, ...]:
        if word not in self._known:
            self._known[word] = tuple(self._tokenize(word))
        return self._known[word]

    def _places(self, word: str, start: int, found: Sequence[int]) -> list[int]:
        """Return where each token of a word begins: at the word, but a comma behind it at the comma."""
        bare = word.rstrip(",")
        behind = len(word) - len(bare)
        if not behind or len(found) <= behind or len(self._of(bare)) + behind != len(found):
            return [start] * len(found)
        return [start] * (len(found) - behind) + [start + len(bare) + offset for offset in range(behind)]
