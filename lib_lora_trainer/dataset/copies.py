"""Pictures with the same content under several names: bytes compared, so that nothing is guessed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from lib_lora_trainer.base.errors import DataError, Problem
from lib_lora_trainer.dataset.digests import ContentDigests
from lib_lora_trainer.dataset.endings import fingerprint, read_ends
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.findings import SHOWN
from lib_lora_trainer.dataset.items import Item


def same_content(
    paths: Sequence[Path], pause: Callable[[], None] = lambda: None, fingerprints: Sequence[int] | None = None
) -> tuple[tuple[Path, ...], ...]:
    """Return the groups of files with equal content, each in the order given.

    Only files of equal length and with equal ends are read as a whole. pause: called before each; what it raises ends
    the search. Files that cannot be read belong to no group.
    fingerprints: `endings.fingerprint` of each file, if a scan has them; they spare looking at the files' ends again.
    """
    if fingerprints is None:
        by_length = _alike(_about(paths, lambda path: path.stat().st_size))
        by_end = [
            group for alike in by_length for group in _alike(_about(alike, lambda path: fingerprint(read_ends(path))))
        ]
    elif len(set(fingerprints)) == len(fingerprints):  # as in most folders; a list for each file takes several times as long
        return ()
    else:
        by_end = _alike(zip(paths, fingerprints, strict=True))
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


def _about(paths: Iterable[Path], about: Callable[[Path], int]) -> Iterator[tuple[Path, int]]:
    """Yield each file with what `about` tells of it."""
    for path in paths:
        try:
            yield path, about(path)
        except OSError:  # gone since it was found; whoever opens it next says so
            continue


def _alike(files: Iterable[tuple[Path, int]]) -> list[list[Path]]:
    """Return the groups of at least two files of which the same is told."""
    groups: dict[int, list[Path]] = defaultdict(list)
    for path, told in files:
        groups[told].append(path)
    return [group for group in groups.values() if len(group) > 1]


def about_copies(
    items: Sequence[Item], pause: Callable[[], None] = lambda: None, fingerprints: Sequence[int] | None = None
) -> list[Problem]:
    """Return what is to be said about pictures that are there several times; pause, fingerprints: as in `same_content`.

    With the same caption they only weigh more, which a warning says; with captions of their own they may be meant, as
    where one picture teaches two things, and a note says it.
    """
    groups = same_content([item.path for item in items], pause, fingerprints)
    by_path = {item.path: item for item in items} if groups else {}
    same: list[tuple[Path, Path]] = []
    other: list[tuple[Path, Path]] = []
    for group in groups:
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
