"""The digests of pictures' contents, by which scores are kept: each file is read once while it stays as it is."""

from __future__ import annotations

import functools
import time
from pathlib import Path

from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.base.files import sha256
from lib_lora_trainer.dataset.entries import printable

KNOWN = 100_000
"""Pictures remembered at once, about 30 MB."""
SETTLED = 2.0
"""Seconds for which a file must have been left alone: within the clock's steps (2 s on FAT) a change may not show."""


def digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, 64 hexadecimal digits. Raises DataError naming one that cannot be read."""
    try:
        about = path.stat()
        if time.time() - max(about.st_mtime, about.st_ctime) < SETTLED:
            return sha256(path)
        return _read(path, (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns))
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{printable(path)}: cannot be read: {reason}. Look at the folder again.") from error


@functools.lru_cache(maxsize=KNOWN)
def _read(path: Path, _identity: tuple[int, ...]) -> str:
    return sha256(path)
