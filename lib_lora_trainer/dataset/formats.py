"""Which picture files are read, and what one of them holds; decoding is strict, whatever the host has set in Pillow."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import io
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Literal, NamedTuple

from PIL import Image, ImageFile, ImageMode, UnidentifiedImageError

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.dataset.endings import Ends, ends_well, fingerprint, read_ends
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.exif import ORIENTATION, plain_orientation

FORMATS: dict[str, tuple[str, ...]] = {
    ".png": ("PNG",),
    ".jpg": ("JPEG", "MPO"),
    ".jpeg": ("JPEG", "MPO"),
    ".webp": ("WEBP",),
    ".bmp": ("BMP", "DIB"),
    ".gif": ("GIF",),
    ".avif": ("AVIF",),
    ".jxl": ("JXL",),
}
PLUGINS = {".avif": "pillow_avif", ".jxl": "pillow_jxl"}  # newer Pillow reads AVIF by itself
OTHER_PICTURES = frozenset({".heic", ".heif", ".tif", ".tiff", ".psd", ".jp2", ".tga", ".ico", ".svg"})
MAXIMUM_PIXELS = 178_956_970  # where Pillow itself refuses; repeated here because a host may have switched that off
LARGE = 32_000_000  # pixels; larger pictures are decoded one at a time, so that threads do not add up their memory
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
DECODER_ERRORS: tuple[type[Exception], ...] = (
    OSError,
    SyntaxError,  # Pillow's word for a broken header
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    EOFError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,  # these two where the host has turned warnings into errors
    UserWarning,
)

Depth = Literal["headers", "whole"]
"""How much of a picture is read: its headers and its end, or all of it, decoded."""


class Facts(NamedTuple):
    """What is in a picture: its upright size in pixels, its format by content, and what is special about it.

    transparent: None where only the headers were read and there may be transparent areas.
    fingerprint: what files of equal content have in common, and hardly any others (`endings.fingerprint`).
    identity: what its file has as long as it stays as it was when this was read (`entries.identity`); settled: whether a
    change since then would show in it.
    decoded: whether it was decoded to its end, so that nothing in it can fail later.
    """

    width: int
    height: int
    format: str
    animated: bool
    transparent: bool | None
    cmyk: bool
    deep: bool
    exif_unreadable: bool
    fingerprint: int
    identity: int
    settled: bool
    decoded: bool


class StrictDecoding:
    """While at least one block is open, Pillow raises on truncated files; then the host's own setting returns.

    Blocks of several threads may overlap.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = 0
        self._before = False

    def __call__(self) -> StrictDecoding:
        """Return what opens a block in a `with` statement."""
        return self

    def __enter__(self) -> None:
        with self._lock:
            if self._open == 0:
                self._before = bool(ImageFile.LOAD_TRUNCATED_IMAGES)
                ImageFile.LOAD_TRUNCATED_IMAGES = False
            self._open += 1

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._open -= 1
            if self._open == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES = self._before


strict_decoding = StrictDecoding()
_one_at_a_time = threading.Lock()
_FRONT_TO_BACK = {b"\x89PN": "PNG", b"\xff\xd8\xff": "JPEG"}  # how files begin whose headers Pillow reads so


@functools.cache
def readable_extensions() -> frozenset[str]:
    """Return the extensions, lower case with dot, of the pictures that can be read here; loads plugins if installed."""
    Image.init()
    for extension, plugin in PLUGINS.items():
        if FORMATS[extension][0] in Image.OPEN or importlib.util.find_spec(plugin) is None:
            continue
        try:
            importlib.import_module(plugin)
        except (ImportError, OSError):  # installed but broken: its pictures are reported as not readable
            continue
    return frozenset(extension for extension, formats in FORMATS.items() if formats[0] in Image.OPEN)


@functools.cache
def _readable_formats() -> tuple[str, ...]:
    readable_extensions()
    return tuple(name for formats in FORMATS.values() for name in formats if name in Image.OPEN)


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Yield the picture in a file, not decoded yet. Raises one of DECODER_ERRORS, also from decoding in the block."""
    # As text: of a Path Pillow asks the file system where it really leads.
    with strict_decoding(), Image.open(str(path), formats=_readable_formats()) as image:
        if image.width * image.height > MAXIMUM_PIXELS:
            raise Image.DecompressionBombError(f"{image.width}×{image.height} pixels")
        yield image


def orientation(image: Image.Image) -> int | None:
    """Return the EXIF orientation 1 to 8 of a decoded picture, 1 when there is none, None when EXIF is damaged."""
    data = image.info.get("exif")
    value = plain_orientation(data) if isinstance(data, bytes) else None
    if value is None:
        try:
            # The method of the base class: PNG's own decodes the whole picture when there is no EXIF data before it.
            value = Image.Image.getexif(image).get(ORIENTATION, 1)
        except DECODER_ERRORS:
            return None
    return value if value in TURNS else 1


def has_transparency(image: Image.Image) -> bool:
    """Return whether any pixel of a decoded picture is not fully opaque."""
    if "transparency" in image.info:
        if image.mode.startswith("I"):
            return True
        image = image.convert("RGBA")
    bands = image.getbands()
    alpha = next((band for band in ("A", "a") if band in bands), None)
    if alpha is None:
        return False
    darkest, _ = image.getchannel(alpha).getextrema()
    return bool(darkest < 255)


def inspect(path: Path, depth: Depth = "whole") -> Facts:
    """Return what is in a picture. Raises one of DECODER_ERRORS, `explain` words them.

    depth: `whole` decodes it to its end, so that nothing in it can fail later. `headers` reads the headers and decodes
    only a picture that does not end as its format must: a file that was cut off is found, damage inside is not.
    """
    ends = read_ends(path)
    if depth == "headers":
        facts = _in_head(ends)
        if facts is not None:
            return facts
    with opened(path) as image:
        return _facts(image, ends, depth == "whole" or not ends_well(image.format or "", ends))


def _in_head(ends: Ends) -> Facts | None:
    """Return what is in a picture whose headers are all in its file's head; None when only the whole file tells.

    Pillow reads the head from memory, which spares it a file object and most of its waiting. PNG and JPEG, whose
    headers it reads from front to back: as long as it has not reached the end of the head, all is as in the file.
    """
    # From the list that `Image.open` chooses from, which takes a tenth of the whole time for that.
    reader, _ = Image.OPEN.get(_FRONT_TO_BACK.get(ends.head[:3], ""), (None, None))
    if reader is None or ImageFile.LOAD_TRUNCATED_IMAGES:  # where the host lets errors pass, `opened` is strict
        return None
    try:
        stream = io.BytesIO(ends.head)
        image = reader(stream, "")
        if stream.tell() >= len(ends.head) < ends.length or not ends_well(image.format or "", ends):
            return None
        facts = _facts(image, ends, False)
    except DECODER_ERRORS:  # whether it is the picture's fault or the head's end, the whole file shows
        return None
    # The first two may have been sought anywhere in the file; about large ones Pillow has something to say.
    if facts.animated or facts.format == "MPO":
        return None
    pixels, limit = facts.width * facts.height, Image.MAX_IMAGE_PIXELS
    return None if pixels > MAXIMUM_PIXELS or (limit is not None and pixels > limit) else facts


def _facts(image: Image.Image, ends: Ends, decode: bool) -> Facts:
    """Return what is in an opened picture, which is decoded to its end if wanted. Raises one of DECODER_ERRORS."""
    width, height = image.size
    format_, mode = image.format or "", image.mode
    # Of the formats read here PNG alone has 16 bits per channel; a BMP's 16 bits are those of all channels.
    deep = mode.startswith("I") or (format_ == "PNG" and bool(image.tile) and ";16" in str(image.tile[0][3]))
    # A phone's JPEG may carry further pictures (MPO: depth, HDR gain); its first one is the photograph.
    animated = format_ not in ("JPEG", "MPO") and bool(getattr(image, "is_animated", False))
    if decode:
        with _one_at_a_time if width * height > LARGE else nullcontext():
            # Smaller output from the same bit stream: a break in it is found all the same, several times faster.
            image.draft(image.mode, (max(1, width // 8), max(1, height // 8)))
            image.load()
            transparent: bool | None = has_transparency(image)
    else:
        transparent = None if _has_alpha(mode) or "transparency" in image.info else False
    turn = orientation(image)
    if turn is not None and turn >= 5:
        width, height = height, width
    cmyk, unreadable, mark = image.mode == "CMYK", turn is None, fingerprint(ends)
    return Facts(
        width, height, format_, animated, transparent, cmyk, deep, unreadable, mark, ends.identity, ends.settled, decode
    )


@functools.cache
def _has_alpha(mode: str) -> bool:
    return not {"A", "a"}.isdisjoint(ImageMode.getmode(mode).bands)


def explain(path: Path, error: Exception) -> Problem:
    """Return in words why a picture could not be decoded; severity is warning, where is the file."""
    where, fix = printable(path), "Replace or remove the file."
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        message = f"has more than {MAXIMUM_PIXELS // 10**6} million pixels."
        fix = "Scale it down before training; nothing above the training resolution is used."
    elif isinstance(error, FileNotFoundError):
        message, fix = "does not exist any more.", "Scan the folder again."
    elif isinstance(error, PermissionError):
        message, fix = "cannot be opened: permission denied.", "Grant read access to the file."
    elif isinstance(error, UnidentifiedImageError):
        message = "is empty (0 bytes)." if _is_empty(path) else "is not a picture, whatever its name says."
    elif isinstance(error, OSError) and error.errno is not None:  # Pillow's own have no number
        message, fix = f"cannot be read: {error.strerror or error}.", "Check the disk, or replace the file."
    else:
        message = f"is damaged or incomplete: {_words(error)}."
    return Problem("warning", where, message, fix)


def _is_empty(path: Path) -> bool:
    try:
        return path.stat().st_size == 0
    except OSError:  # gone meanwhile
        return False


def _words(error: Exception) -> str:
    """Return what a decoder says, on one line, in characters that every output can take."""
    said = " ".join(str(error).split()).encode("utf-8", "backslashreplace").decode("utf-8")
    return said.rstrip(".") or type(error).__name__
