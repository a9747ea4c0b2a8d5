"""Downloads of taggers: only when somebody asks for one, resumed where they broke off, and checked before they count."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import RunConflict, UserError
from lib_lora_trainer.base.events import Phase
from lib_lora_trainer.tagging import remote
from lib_lora_trainer.tagging.models import FILES, Model
from lib_lora_trainer.tagging.remote import PLAIN, TIMEOUT, Remote

if TYPE_CHECKING:
    import requests

PIECE = 1 << 16  # of a piece that breaks off nothing is kept
ATTEMPTS = 3
"""How often in a row the connection may break without a single byte; as long as something arrives it goes on."""
SPARE = 16_000_000  # bytes that are left free on the drive

_busy: set[Path] = set()
_lock = threading.Lock()


def download(model: Model, folder: Path, control: Control) -> Generator[Phase, None, bool]:
    """Get a model's files into a folder, made if absent; return False when the user stopped it.

    What arrived stays beside as `.part` and is gone on with next time. A file that is there already, with the right
    checksum, is not got again. Raises UserError that says what to do, RunConflict while it is being downloaded.
    """
    try:
        import requests
    except ImportError as error:
        raise UserError(f"requests cannot be imported ({error}). Install it: pip install requests.") from error

    with _only_one(folder), requests.Session() as http:
        http.headers["User-Agent"] = "sd-webui-lora-trainer"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name in reversed(FILES):  # the short list first, so that a refusal shows at once
                about = remote.ask(http, model.repository, name)
                with closing(_got(http, about, folder, control)) as arriving:
                    whole, told = -(-about.size // 1_000_000), -1
                    for have in arriving:
                        done = whole if have == about.size else min(have // 1_000_000, whole - 1)
                        if done > told:
                            yield Phase(f"downloading {model.name}, {name}, MB", done, whole)
                        told = max(done, told)
                        if control.wish != "go":
                            return False
        except requests.RequestException as error:
            raise _unreachable(model, folder, error) from error
        except OSError as error:
            reason = error.strerror or error
            todo = "Make room on the drive" if error.errno == errno.ENOSPC else "Make the folder writable"
            text = f"{folder}: cannot be written: {reason}. {todo}, then start again: what has arrived is kept."
            raise UserError(text) from error
    return True


def _got(http: requests.Session, about: Remote, folder: Path, control: Control) -> Generator[int, None, None]:
    """Yield how many bytes have arrived, until the file is checked and in its place."""
    target, part = folder / about.name, folder / f"{about.name}.{about.digest[:16]}.part"
    for stale in folder.glob(f"{about.name}.*.part"):
        if stale != part:  # of an older version of the file
            stale.unlink()
    if target.is_file() and target.stat().st_size == about.size and about.digest_of(target) == about.digest:
        yield about.size
        return
    have = part.stat().st_size if part.is_file() else 0
    free = shutil.disk_usage(folder).free
    if free < about.size - have + SPARE:
        missing = (about.size - have + SPARE - free) / 1e6
        raise UserError(f"{folder}: {missing:.0f} MB more are needed for {about.name}. Make room on the drive.")
    yield from _arriving(http, about, part, control)
    if control.wish != "go":
        return
    found = about.digest_of(part)
    if part.stat().st_size != about.size or found != about.digest:
        part.unlink()
        raise UserError(
            f"{about.url}: arrived with the checksum {found}, but should have {about.digest}. It is deleted. Start the "
            "download again; if that does not help, something on the way changes files: try without proxy or mirror."
        )
    part.replace(target)
    yield about.size


def _arriving(http: requests.Session, about: Remote, part: Path, control: Control) -> Iterator[int]:
    """Write what is missing to the part, connecting again while something arrives; yield how many bytes are there."""
    import requests

    failed = 0
    while (have := part.stat().st_size if part.is_file() else 0) < about.size and control.wish == "go":
        error: Exception | None = None
        try:
            for there in _pieces(http, about, part, have):
                yield there
                if control.wish != "go":
                    return
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as broken:
            error = broken
        now = part.stat().st_size if part.is_file() else 0
        failed = 0 if now > have else failed + 1
        if failed == ATTEMPTS:
            text = f"the server ends the connection after {now} of {about.size} bytes"
            raise error or requests.ConnectionError(text)


def _pieces(http: requests.Session, about: Remote, part: Path, have: int) -> Iterator[int]:
    """Ask for the rest of a file once, and yield how many bytes are there after each piece."""
    wanted = {**PLAIN, "Range": f"bytes={have}-"} if have else PLAIN
    with http.get(about.url, headers=wanted, timeout=TIMEOUT, stream=True) as answer:
        if answer.status_code == 416:  # the part is no beginning of this file
            part.unlink()
            return
        if answer.status_code not in (200, 206):
            raise remote.refused(answer.status_code, about.url)
        resumed = answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if have and not resumed:  # the server sends all of it again
            have = 0
        with part.open("ab" if have else "wb") as stream:
            for piece in answer.iter_content(PIECE):
                stream.write(piece)
                have += len(piece)
                if have > about.size:
                    return
                yield have
            stream.flush()
            os.fsync(stream.fileno())


def _unreachable(model: Model, folder: Path, error: Exception) -> UserError:
    kept = sum(part.stat().st_size for part in folder.glob("*.part"))
    again = f" {kept / 1e6:.0f} MB have arrived and are kept: start again to go on." if kept else ""
    address = f"{remote.endpoint()}/{model.repository}"
    return UserError(
        f"{address}: cannot be reached ({_innermost(error)}).{again} Check the connection, set HF_ENDPOINT to a mirror, "
        f"or put {' and '.join(FILES)} from there into {folder} yourself."
    )


def _innermost(error: BaseException) -> str:
    """Return what went wrong without the layers of the libraries around it."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return f"{type(error).__name__}: {error}"


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold a folder for one download of this process, so that two tabs do not write one file."""
    with _lock:
        if folder in _busy:
            raise RunConflict(f"{folder}: is being downloaded already. Wait until that is done.")
        _busy.add(folder)
    try:
        yield
    finally:
        with _lock:
            _busy.discard(folder)
