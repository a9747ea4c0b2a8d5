"""Questions about paths that are answered, never raised: the methods of pathlib raise where access is denied."""

from __future__ import annotations

import os
from pathlib import Path

READ_ONLY = os.O_RDONLY | getattr(os, "O_BINARY", 0)
"""How `os.open` opens a file for its bytes: Windows would translate line ends otherwise."""


def identity(about: os.stat_result) -> int:
    """Return a number of what a file keeps while it is not changed: device, number, bytes, times of change in nanoseconds.

    It is meant for this process. A number and not these five, which for many pictures take a seventh of all memory.
    """
    return hash((about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns))


def is_file(path: Path) -> bool:
    """Return whether a path leads to a regular file; False where it cannot be known (denied, a link to itself)."""
    return os.path.isfile(path)  # noqa: PTH113 Path.is_file raises for those


def is_folder(path: Path) -> bool:
    """Return whether a path leads to a folder; False where it cannot be known (denied, a link to itself)."""
    return os.path.isdir(path)  # noqa: PTH112 Path.is_dir raises for those


def entry_is_file(entry: os.DirEntry[str]) -> bool:
    """As `is_file` for what `os.scandir` lists, mostly without asking the file system again."""
    try:
        return entry.is_file()
    except OSError:
        return False


def entry_is_folder(entry: os.DirEntry[str]) -> bool:
    """As `is_folder` for what `os.scandir` lists, mostly without asking the file system again."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def absolute(path: str) -> Path:
    """Return an absolute path without `.` and `..`, links kept as they are named."""
    return Path(os.path.abspath(path))  # noqa: PTH100 Path.resolve would replace the names of links


def real(path: Path) -> str:
    """Return where a path leads, links followed; the path itself where it cannot be known."""
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return str(path)


def printable(path: Path | str) -> str:
    """Return a path as text that every output can take, also when the file system's name is not valid Unicode."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")
