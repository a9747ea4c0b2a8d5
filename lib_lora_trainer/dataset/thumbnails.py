"""Small pictures for galleries, made when first asked for and kept on disk under the picture's content."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from PIL import Image

from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.base.files import replacing, sha256
from lib_lora_trainer.dataset import threads
from lib_lora_trainer.dataset.formats import DECODER_ERRORS, explain, opened
from lib_lora_trainer.dataset.pixels import upright_rgb

_Seen = tuple[int, int, int]


class _Contents:
    """Digests of files, each read again only when its date or length differs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[Path, tuple[_Seen, str]] = {}

    def of(self, path: Path) -> str:
        """Return a digest of a file's content. Raises OSError."""
        about = path.stat()
        seen = (about.st_mtime_ns, about.st_ctime_ns, about.st_size)
        known = self._known.get(path)
        if known is not None and known[0] == seen:
            return known[1]
        digest = sha256(path)
        with self._lock:
            self._known[path] = (seen, digest)
        return digest


_contents = _Contents()


def thumbnail(path: Path, cache: Path, size: int = 256) -> Path:
    """Return a JPEG of a picture, upright, at most size × size pixels and never enlarged, in the folder `cache`.

    Kept under the picture's content: renamed and moved files have theirs already, copies share one, and a file whose
    content has changed gets a new one. Written atomically, so several threads may ask at once. Raises DataError naming
    the file when it cannot be read.
    """
    try:
        identity = f"{_contents.of(path)}\x1f{size}"
        target = cache / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.jpg"
        if target.exists():
            return target
        with opened(path) as image:
            image.draft(image.mode, (2 * size, 2 * size))  # a JPEG then decodes at a fraction of its size
            small = upright_rgb(image)
    except DECODER_ERRORS as error:
        raise DataError(str(explain(path, error))) from error
    small.thumbnail((size, size), Image.Resampling.LANCZOS)
    with replacing(target) as temporary:
        small.save(temporary, "JPEG", quality=85)
    return target


def thumbnails(paths: Sequence[Path], cache: Path, size: int = 256) -> Iterator[Path | DataError]:
    """Yield the thumbnail of each picture in order, or why it has none; those of one page are made in threads."""

    def make(path: Path) -> Path | DataError:
        try:
            return thumbnail(path, cache, size)
        except DataError as error:
            return error

    with closing(threads.in_order(make, paths, together=1)) as made:
        yield from made
