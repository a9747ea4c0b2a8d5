"""Pictures with the same content under several names: bytes compared, so that nothing is guessed."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

from lib_lora_trainer.base.errors import DataError, Problem
from lib_lora_trainer.dataset.digests import ContentDigests
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.findings import SHOWN
from lib_lora_trainer.dataset.items import Item

_END = 1024


def same_content(paths: Sequence[Path], pause: Callable[[], None] = lambda: None) -> tuple[tuple[Path, ...], ...]:
    """Return the groups of files with equal content, each in the order given.

    Only files of equal length and with equal ends are read as a whole. pause: called before each; what it raises ends
    the search. Files that cannot be read belong to no group.
    """
    by_length = _alike(paths, lambda path: path.stat().st_size)
    by_end = [group for alike in by_length for group in _alike(alike, _end)]
    digests = ContentDigests()
    groups: dict[str, list[Path]] = defaultdict(list)
    for alike in by_end:
        for path in alike:
            pause()
            try:
                groups[digests.of(path)].append(path)
            except DataError:  # as above
                continue
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _alike(paths: Sequence[Path], about: Callable[[Path], Hashable]) -> list[list[Path]]:
    """Return the groups of at least two files of which something is the same."""
    groups: dict[Hashable, list[Path]] = defaultdict(list)
    for path in paths:
        try:
            groups[about(path)].append(path)
        except OSError:  # gone since it was found; whoever opens it next says so
            continue
    return [group for group in groups.values() if len(group) > 1]


def _end(path: Path) -> bytes:
    """Return a file's last bytes: checksums and the end of the compressed pixels, which hardly two pictures share."""
    with path.open("rb", buffering=0) as stream:
        stream.seek(-min(_END, stream.seek(0, os.SEEK_END)), os.SEEK_END)
        return stream.read(_END)


def about_copies(items: Sequence[Item], pause: Callable[[], None] = lambda: None) -> list[Problem]:
    """Return what is to be said about pictures that are there several times.

    With the same caption they only weigh more, which a warning says; with captions of their own they may be meant, as
    where one picture teaches two things, and a note says it.
    """
    by_path = {item.path: item for item in items}
    same: list[tuple[Path, Path]] = []
    other: list[tuple[Path, Path]] = []
    for group in same_content(list(by_path), pause):
        first = by_path[group[0]]
        for path in group[1:]:
            known = (same if by_path[path].caption == first.caption else other, (path, first.path))
            known[0].append(known[1])
    problems = []
    if same:
        text = f"{_counted(same)} the same content and caption as another and count again: {_named(same)}."
        fix = "Remove them, or raise the repeats if they are to count more often."
        problems.append(Problem("warning", "data.sources", text, fix))
    if other:
        text = f"{_counted(other)} the same content as another with another caption: {_named(other)}."
        problems.append(Problem("note", "data.sources", text))
    return problems


def _counted(pairs: Sequence[tuple[Path, Path]]) -> str:
    return "1 picture has" if len(pairs) == 1 else f"{len(pairs)} pictures have"


def _named(pairs: Sequence[tuple[Path, Path]]) -> str:
    names = ", ".join(f"{_short(path, first)} = {_short(first, path)}" for path, first in pairs[:SHOWN])
    return f"{names} and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else names


def _short(path: Path, other: Path) -> str:
    """Return a file's name, with its folder where the other one lies elsewhere."""
    return printable(path.name if path.parent == other.parent else f"{path.parent.name}/{path.name}")
