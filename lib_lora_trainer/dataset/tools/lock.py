"""One tool at a time: a lock that the system itself lets go of when the process ends, however it ends."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lib_lora_trainer.base.errors import DataError, RunConflict

_HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)


@contextmanager
def locked(path: Path, owner: Path) -> Iterator[None]:
    """Hold the lock file `path`, made if absent, while the block runs; other processes and threads are refused.

    owner: what is locked, for messages. Raises RunConflict when somebody else holds it, DataError where the file system
    knows no locks.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            _take(handle)
        except OSError as error:
            if error.errno in _HELD:
                text = f"{owner}: another tool is changing this dataset. Wait until it is done."
                raise RunConflict(text) from error
            reason = error.strerror or error
            text = f"{owner}: its drive cannot lock files ({reason}). Move the dataset to a local drive."
            raise DataError(text) from error
        yield
    finally:
        os.close(handle)  # lets go of the lock


if sys.platform == "win32":
    import msvcrt

    def _take(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _take(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
