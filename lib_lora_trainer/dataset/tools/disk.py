"""Every change to the disk that the journal makes, one method each, and what is recognized as a file's content."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lib_lora_trainer.base.files import sha256, write_text

Content = Callable[[Path], None]  # writes a file's new content to the path it is given
FOLDER = "folder"
_WAITING = 8  # files that are waited for at once: file systems write them down together


class Files:
    """The changes themselves; an object in its place can watch them, or break them at any one.

    New contents are on the disk before the journal's next text is: together, because waiting for them one by one takes
    most of the time that thousands of captions need (benchmarks/captions.md).
    """

    def __init__(self) -> None:
        self._filled: list[Path] = []

    def rename(self, source: Path, target: Path) -> None:
        """Give a file or folder another name in the same file system. Raises FileExistsError instead of replacing."""
        if os.path.lexists(target):  # POSIX replaces silently
            raise FileExistsError(errno.EEXIST, "exists already", str(target))
        source.rename(target)

    def replace(self, source: Path, target: Path) -> None:
        """Let a file take another one's place, which holds the old or the new content at every moment."""
        try:
            source.replace(target)
        except PermissionError:
            mode = stat.S_IMODE(target.lstat().st_mode)
            if mode & stat.S_IWRITE:
                raise
            target.chmod(mode | stat.S_IWRITE)  # Windows replaces no read-only file
            source.replace(target)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name, so that its content outlives the first one's replacement."""
        os.link(source, target)

    def copy(self, source: Path, target: Path) -> None:
        """Copy a file with its times and its mode, down to the disk; a link is copied as a link."""
        shutil.copy2(source, target, follow_symlinks=False)
        if not target.is_symlink():
            _sync(target)

    def fill(self, path: Path, content: Content, like: Path | None) -> None:
        """Write new content to a new file, which is on the disk once `write` is done; like: the file whose mode it takes."""
        content(path)
        if like is not None:
            path.chmod(stat.S_IMODE(like.stat().st_mode))
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, "no file was written", str(path))
        self._filled.append(path)

    def write(self, path: Path, text: str) -> None:
        """Write a text of the journal's own, whole or not at all, after every content it may speak of."""
        waiting, self._filled = self._filled, []
        with ThreadPoolExecutor(_WAITING, thread_name_prefix="sync") as pool:
            # Those that were given up are gone; of the others an error ends the change.
            list(pool.map(_sync, (each for each in waiting if each.is_file() and not each.is_symlink())))
        write_text(path, text)

    def make_folder(self, path: Path) -> None:
        """Make a folder in an existing one."""
        path.mkdir()

    def drop_folder(self, path: Path) -> None:
        """Remove an empty folder."""
        path.rmdir()

    def set_mode(self, path: Path, mode: int) -> None:
        """Set the permissions of a file."""
        path.chmod(mode)

    def discard(self, path: Path) -> None:
        """Delete a file of the journal's own."""
        if not path.is_symlink() and not path.lstat().st_mode & stat.S_IWRITE:
            path.chmod(stat.S_IWRITE | stat.S_IREAD)  # Windows deletes no read-only file
        path.unlink()


class Identities:
    """What lies at a path, as text: its content's SHA-256, `folder`, `link:` and where to, or nothing.

    A file's content is read again when its inode, length or modification time differ.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[Path, int, int, int], str] = {}

    def of(self, path: Path) -> str:
        """Return the identity, "" where there is nothing. Raises OSError where it cannot be read."""
        try:
            about = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return ""
        if stat.S_ISLNK(about.st_mode):
            return f"link:{path.readlink()}"
        if stat.S_ISDIR(about.st_mode):
            return FOLDER
        key = (path, about.st_ino, about.st_size, about.st_mtime_ns)
        if key not in self._known:
            self._known[key] = sha256(path)
        return self._known[key]


def _sync(path: Path) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    path.chmod(mode | stat.S_IWRITE)  # Windows syncs only what may be written to
    with path.open("rb+") as written:
        os.fsync(written.fileno())
    path.chmod(mode)


def copied(source: Path, target: Path) -> None:
    """Write the content, the times and the mode of one file to another path; a `Content` once `source` is given."""
    shutil.copy2(source, target)
