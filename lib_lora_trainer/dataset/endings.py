"""Whether a picture file ends as its format must: what tells a file that was cut off without decoding it."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import IO

from PIL import Image

TAIL = 4096  # bytes read at the end of a file
_PNG_END = b"\x00\x00\x00\x00IEND\xae\x42\x60\x82"  # PNG specification, 11.2.5; its length, name and checksum
_JPEG_END = b"\xff\xd9"  # ITU-T T.81, table B.1: EOI
_GIF_END = b"\x3b"  # GIF89a, 27: trailer


def ends_well(image: Image.Image) -> bool:
    """Tell whether the file of an opened picture is there to its end, as far as its end shows.

    False is no verdict: data behind the end, or a format without a mark, is nothing wrong; only decoding tells then.
    Damage in the middle is not seen. The file is left where it was. Raises OSError.
    """
    look = _LOOKS.get(image.format or "")
    stream: IO[bytes] | None = getattr(image, "fp", None)
    if look is None or stream is None:
        # WebP, AVIF and JPEG XL are read to their end as soon as they are opened, and lengths are checked then.
        return look is None
    before = stream.tell()
    try:
        length = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, length - TAIL))
        return look(stream.read(TAIL), length, stream)
    finally:
        stream.seek(before)


def _png(tail: bytes, _length: int, _stream: IO[bytes]) -> bool:
    # EXIF data may stand behind the picture, where only decoding finds it; then it is not known yet.
    return tail.endswith(_PNG_END) and b"eXIf" not in tail and b"Raw profile type exif" not in tail


def _jpeg(tail: bytes, _length: int, _stream: IO[bytes]) -> bool:
    return tail.endswith(_JPEG_END)


def _gif(tail: bytes, _length: int, _stream: IO[bytes]) -> bool:
    return tail.endswith(_GIF_END)


def _bmp(_tail: bytes, length: int, stream: IO[bytes]) -> bool:
    stream.seek(2)
    (said,) = struct.unpack("<I", stream.read(4))  # BITMAPFILEHEADER.bfSize
    return 0 < said <= length


_LOOKS: dict[str, Callable[[bytes, int, IO[bytes]], bool]] = {
    "PNG": _png,
    "JPEG": _jpeg,
    "MPO": _jpeg,
    "GIF": _gif,
    "BMP": _bmp,
}
