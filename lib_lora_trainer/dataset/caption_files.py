"""Caption files: which one belongs to a picture, and its text whatever encoding it was saved in."""

from __future__ import annotations

import codecs
import locale
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.dataset.entries import READ_ONLY, is_file
from lib_lora_trainer.dataset.faces import without_face

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MARKED = frozenset(mark[:1] for mark, _ in _MARKS)
_FULL_WIDTH = re.compile("[\u3040-\u30ff\u4e00-\u9fff\uff01-\uff5e]")
_HALF_WIDTH_KANA = re.compile("[\uff61-\uff9f]")
_PART = 65_536  # bytes read at once
UNICODE_ENCODINGS = frozenset({"utf-8", "utf-8-sig", "utf-16", "utf-32"})


def find_caption(image: Path, extensions: Sequence[str]) -> Path | None:
    """Return the caption file beside a picture: its name with the first of `extensions` that exists, else None.

    extensions: with leading dot, tried in order, each in its own, in lower and in upper case. A picture whose name ends
    in a face's place (`faces`) may have the caption of the name without it, as in sd-scripts.
    """
    for stem in dict.fromkeys((image.stem, without_face(image.stem))):
        for extension in extensions:
            for spelling in dict.fromkeys((extension, extension.lower(), extension.upper())):
                candidate = image.with_name(f"{stem}{spelling}")
                if is_file(candidate):
                    return candidate
    return None


def read_caption(path: Path | str, separator: str = " ") -> tuple[str, str]:
    """Return a caption file's text and the encoding it was read in.

    The whole file counts; its lines, stripped, are joined by `separator` (sd-scripts uses the first line only).
    Otherwise the text is as written. A byte order mark decides; then UTF-8, the system's own encoding, and last Japanese
    (cp932) or Western European (cp1252), whichever makes sense of the bytes: anything but `UNICODE_ENCODINGS` is a
    guess and worth a warning.
    Raises DataError naming the file when it is unreadable or no text.
    """
    try:
        data = _content(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}. Check the file's permissions.") from error
    for encoding in _candidates(data):
        text = _decoded(data, encoding)
        if text is not None:
            lines = text.splitlines()
            if len(lines) == 1:  # as nearly all captions are
                return lines[0].strip(), encoding
            return separator.join([line for line in map(str.strip, lines) if line]), encoding
    raise DataError(f"{path}: is no text in any known encoding. Save it as UTF-8, or remove it.")


def _content(path: Path | str) -> bytes:
    """Return a file's bytes, without Python's file objects, which cost more than reading so little. Raises OSError."""
    handle = os.open(path, READ_ONLY)
    try:
        parts = []
        while part := os.read(handle, _PART):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(handle)


def _candidates(data: bytes) -> Iterator[str]:
    """Yield the encodings to try, in order."""
    if data[:1] in _MARKED:
        for mark, encoding in _MARKS:
            if data.startswith(mark):
                yield encoding
                return
    yield "utf-8"
    own = codecs.lookup(locale.getpreferredencoding(False)).name  # asked for only where UTF-8 fails
    yield from dict.fromkeys(encoding for encoding in (own, "cp932", "cp1252") if encoding != "utf-8")


def _decoded(data: bytes, encoding: str) -> str | None:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return None
    if "\x00" in text:  # another program's UTF-16 without a mark, or no text at all
        return None
    if encoding == "cp932" and (_HALF_WIDTH_KANA.search(text) or not _FULL_WIDTH.search(text)):
        return None  # accented Latin letters read as half-width kana: Western European, not Japanese
    return text
