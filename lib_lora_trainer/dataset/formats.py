"""Which picture files are read, and what one of them holds; decoding is strict, whatever the host has set in Pillow."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageFile, UnidentifiedImageError

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.dataset.entries import printable

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
ORIENTATION = 0x0112  # EXIF 2.32, table 4
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
)


@dataclass(frozen=True)
class Facts:
    """One decoded picture: its upright size in pixels, its format by content, and what is special about it."""

    width: int
    height: int
    format: str
    animated: bool
    transparent: bool
    cmyk: bool
    deep: bool
    exif_unreadable: bool


class StrictDecoding:
    """While at least one block is open, Pillow raises on truncated files; then the host's own setting returns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = 0
        self._before = False

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Open a block; blocks of several threads may overlap."""
        with self._lock:
            if self._open == 0:
                self._before = bool(ImageFile.LOAD_TRUNCATED_IMAGES)
                ImageFile.LOAD_TRUNCATED_IMAGES = False
            self._open += 1
        try:
            yield
        finally:
            with self._lock:
                self._open -= 1
                if self._open == 0:
                    ImageFile.LOAD_TRUNCATED_IMAGES = self._before


_strict_decoding = StrictDecoding()


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


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Yield the picture in a file, not decoded yet. Raises one of DECODER_ERRORS, also from decoding in the block."""
    readable_extensions()
    known = [name for formats in FORMATS.values() for name in formats if name in Image.OPEN]
    with _strict_decoding(), Image.open(path, formats=known) as image:
        if image.width * image.height > MAXIMUM_PIXELS:
            raise Image.DecompressionBombError(f"{image.width}×{image.height} pixels")
        yield image


def orientation(image: Image.Image) -> int | None:
    """Return the EXIF orientation 1 to 8 of a decoded picture, 1 when there is none, None when EXIF is damaged."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
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


def inspect(path: Path) -> Facts:
    """Decode a picture to its end and return what is in it. Raises one of DECODER_ERRORS, `explain` words them."""
    with opened(path) as image:
        width, height = image.size
        deep = any("16" in str(tile[3]) for tile in image.tile) or image.mode.startswith("I")
        # A phone's JPEG may carry further pictures (MPO: depth, HDR gain); its first one is the photograph.
        animated = bool(getattr(image, "is_animated", False)) and image.format != "MPO"
        # Smaller output from the same bit stream: a break in it is found all the same, several times faster.
        image.draft(image.mode, (max(1, width // 8), max(1, height // 8)))
        image.load()
        turn = orientation(image)
        if turn is not None and turn >= 5:
            width, height = height, width
        return Facts(
            width=width,
            height=height,
            format=image.format or "",
            animated=animated,
            transparent=has_transparency(image),
            cmyk=image.mode == "CMYK",
            deep=deep,
            exif_unreadable=turn is None,
        )


def explain(path: Path, error: Exception) -> Problem:
    """Return in words why a picture could not be decoded; severity is warning, where is the file."""
    where, fix = printable(path), "Replace or remove the file."
    if isinstance(error, Image.DecompressionBombError):
        message = f"has more than {MAXIMUM_PIXELS // 10**6} million pixels."
        fix = "Scale it down before training; nothing above the training resolution is used."
    elif isinstance(error, FileNotFoundError):
        message, fix = "does not exist any more.", "Scan the folder again."
    elif isinstance(error, PermissionError):
        message, fix = "cannot be opened: permission denied.", "Grant read access to the file."
    elif isinstance(error, UnidentifiedImageError):
        empty = path.exists() and path.stat().st_size == 0
        message = "is empty (0 bytes)." if empty else "is not a picture, whatever its name says."
    else:
        message = f"is damaged or incomplete: {error or type(error).__name__}."
    return Problem("warning", where, message, fix)
