"""Files that are either old or new, never half: atomic writes, unique names, hashes."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lib_lora_trainer.base.errors import ConfigError

_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f]')
_WINDOWS_RESERVED = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(\..*)?$", re.IGNORECASE)
NAME_BYTES = 180  # leaves room for "-000123.preview.png" within the 255 bytes of common file systems


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder that takes the place of `path` when the block ends well.

    On an exception the temporary file is removed and `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # mkstemp makes files private; others' tools must read these
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically, with the line ends as given."""
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def unused(path: Path) -> Path:
    """Return `path`, or the first of `stem-2`, `stem-3`, … that does not exist yet."""
    candidate, number = path, 2
    while candidate.exists():
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return candidate


def check_name(name: str, where: str) -> str:
    """Return `name` if it can be a file's stem on Linux and Windows; raise ConfigError that says what is wrong."""
    bad = _FORBIDDEN.search(name)
    if bad:
        raise ConfigError(f"{where}: {name!r} contains {bad.group()!r}, which file names cannot hold. Remove it.")
    if not name.strip() or name.strip(". ") != name:
        raise ConfigError(f"{where}: {name!r} is empty or begins or ends with a dot or a space. Choose a plain name.")
    if _WINDOWS_RESERVED.match(name):
        raise ConfigError(f"{where}: {name!r} is reserved by Windows. Choose another name.")
    if len(name.encode()) > NAME_BYTES:
        raise ConfigError(f"{where}: {name!r} is longer than {NAME_BYTES} bytes. Shorten it.")
    return name


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
