"""Names for new files: free on every system, and within the 255 bytes that file systems allow."""

from __future__ import annotations

import itertools
import os
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import Path

LIMIT = 255  # bytes; Windows and macOS count characters, of which no name then has more


class Names:
    """The names that one plan gives; none of them is there already, or given twice.

    Names that differ in case or in Unicode composition only count as one, since they are one on Windows and macOS.
    """

    def __init__(self) -> None:
        self._given: set[str] = set()

    def take(self, path: Path) -> bool:
        """Give a name if it is free, and tell whether it was."""
        if not self.is_free(path):
            return False
        self._given.add(_key(path))
        return True

    def is_free(self, path: Path) -> bool:
        """Tell whether a name can be given."""
        return _key(path) not in self._given and not os.path.lexists(path)

    def stem(
        self,
        wanted: str,
        ending: str,
        places: Sequence[tuple[Path, Sequence[str]]],
        own: Collection[Path] = (),
    ) -> str:
        """Return `wanted` + `ending`, or with -2, -3, … behind it: the first stem that is free in every place.

        places: folders, each with the suffixes that the stem must be free with; they are given. The wanted part is
        shortened where the name would be too long. own: files that are not in the way, since they stay or come along.
        """
        longest = max(len(suffix.encode()) for _, suffixes in places for suffix in suffixes)
        for number in itertools.count(1):
            end = ending if number == 1 else f"{ending}-{number}"
            stem = fitted(wanted, LIMIT - len(end.encode()) - longest) + end
            paths = [folder / f"{stem}{suffix}" for folder, suffixes in places for suffix in suffixes]
            if all(path in own or self.is_free(path) for path in paths):
                self._given.update(map(_key, paths))
                return stem
        raise AssertionError("there is always a free number")

    def folder(self, parent: Path, wanted: str) -> Path:
        """Return a free folder of a name, or with -2, -3, … behind it."""
        return parent / self.stem(wanted, "", [(parent, ("",))])


def fitted(text: str, limit: int) -> str:
    """Return the longest beginning of a text that has at most `limit` bytes of UTF-8."""
    return text.encode()[:limit].decode("utf-8", "ignore")


def _key(path: Path) -> str:
    return unicodedata.normalize("NFC", str(path)).casefold()
