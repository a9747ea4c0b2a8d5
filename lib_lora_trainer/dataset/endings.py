"""The two ends of a picture's file: what headers are read from, and what tells a file that was cut off."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lib_lora_trainer.dataset.entries import READ_ONLY, identity

HEAD = 16_384  # bytes read at the beginning: they hold the headers of most pictures, an EXIF preview included
TAIL = 4096  # bytes read at the end of a file
SETTLED = 2.0  # seconds: within the steps of a file system's clock (2 s on FAT) a further change may not show
_PNG_END = b"\x00\x00\x00\x00IEND\xae\x42\x60\x82"  # PNG specification, 11.2.5; its length, name and checksum
_JPEG_END = b"\xff\xd9"  # ITU-T T.81, table B.1: EOI
_GIF_END = b"\x3b"  # GIF89a, 27: trailer
_LAST = 256  # bytes: checksums and the end of the compressed pixels, which hardly two pictures share


class Ends(NamedTuple):
    """The first HEAD and the last TAIL bytes of a file, which overlap in a short one.

    length: of the file in bytes; identity: as in `entries`, as it was before anything was read; settled: whether it had
    been left alone for SETTLED seconds then.
    """

    head: bytes
    tail: bytes
    length: int
    identity: int
    settled: bool


def read_ends(path: Path) -> Ends:
    """Return both ends of a file, opened once. Raises OSError."""
    # Without Python's file objects, which cost as much as all the rest of this.
    handle = os.open(path, READ_ONLY)
    try:
        about = os.fstat(handle)
        head, length = os.read(handle, HEAD), about.st_size
        tail = head[-TAIL:]
        if length > len(head):
            os.lseek(handle, max(0, length - TAIL), os.SEEK_SET)
            tail = os.read(handle, TAIL)
        settled = time.time() - max(about.st_mtime, about.st_ctime) > SETTLED
        return Ends(head, tail, length, identity(about), settled)
    finally:
        os.close(handle)


def fingerprint(ends: Ends) -> int:
    """Return a number of a file's length and last bytes: in this process, files of equal content have the same."""
    return hash((ends.length, ends.tail[-_LAST:]))


def ends_well(format_: str, ends: Ends) -> bool:
    """Tell whether the file of a picture in a format is there to its end, as far as its end shows.

    False is no verdict: data behind the end, or a format without a mark, is nothing wrong; only decoding tells then.
    Damage in the middle is not seen.
    """
    look = _LOOKS.get(format_)
    # WebP, AVIF and JPEG XL are read to their end as soon as they are opened, and lengths are checked then.
    return look is None or look(ends)


def _png(ends: Ends) -> bool:
    # EXIF data may stand behind the picture, where only decoding finds it; then it is not known yet.
    tail = ends.tail
    if not tail.endswith(_PNG_END):
        return False
    return tail.rfind(b"eXIf") < 0 and b"Raw profile type exif" not in tail  # `in` takes twice as long for four bytes


def _jpeg(ends: Ends) -> bool:
    return ends.tail.endswith(_JPEG_END)


def _gif(ends: Ends) -> bool:
    return ends.tail.endswith(_GIF_END)


def _bmp(ends: Ends) -> bool:
    (said,) = struct.unpack_from("<I", ends.head, 2)  # BITMAPFILEHEADER.bfSize
    return 0 < said <= ends.length


_LOOKS: dict[str, Callable[[Ends], bool]] = {
    "PNG": _png,
    "JPEG": _jpeg,
    "MPO": _jpeg,
    "GIF": _gif,
    "BMP": _bmp,
}
