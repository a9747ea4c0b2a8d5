"""Reading and writing the pictures that tools change: whole, upright, with their transparency, saved as PNG."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageColor

from lib_lora_trainer.base.errors import ConfigError, DataError, Problem
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.formats import (
    DECODER_ERRORS,
    FORMATS,
    MAXIMUM_PIXELS,
    PLUGINS,
    TURNS,
    explain,
    has_transparency,
    opened,
    orientation,
    readable_extensions,
    strict_decoding,  # the one counter of open blocks: a second one could hand the host's setting back too early
)
from lib_lora_trainer.dataset.pixels import open_opacity, open_upright, upright_rgb

Edit = Callable[[Image.Image], Image.Image]
FOREIGN: dict[str, tuple[str, ...]] = {  # what can be converted, though no training reads it
    ".tif": ("TIFF",),
    ".tiff": ("TIFF",),
    ".tga": ("TGA",),
    ".jp2": ("JPEG2000",),
}


@dataclass(frozen=True)
class Shape:
    """What a picture file holds. format: by content; frames: 1 unless it is animated or has pages."""

    width: int
    height: int
    format: str
    frames: int
    transparent: bool

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, upright."""
        return self.width, self.height

    def facts(self) -> dict[str, Any]:
        """Return it in JSON's types."""
        return {
            "width": self.width,
            "height": self.height,
            "format": self.format,
            "frames": self.frames,
            "transparent": self.transparent,
        }


def _formats(path: Path) -> list[str]:
    """Return Pillow's names of the formats that a file may be of."""
    readable_extensions()  # loads plugins
    names = FOREIGN.get(path.suffix.lower()) or itertools.chain(*FORMATS.values())
    return [name for name in names if name in Image.OPEN]


@contextmanager
def opened_any(path: Path) -> Iterator[Image.Image]:
    """Yield the picture in a file as `formats.opened` does, also in one of the FOREIGN formats."""
    if path.suffix.lower() not in FOREIGN:
        with opened(path) as image:
            yield image
        return
    with strict_decoding(), Image.open(path, formats=_formats(path)) as image:
        if image.width * image.height > MAXIMUM_PIXELS:
            raise Image.DecompressionBombError(f"{image.width}×{image.height} pixels")
        yield image


def shape_of(path: Path) -> Shape | Problem:
    """Return what a picture file holds, its first frame decoded; or the problem that keeps it from being read."""
    suffix = path.suffix.lower()
    if suffix not in readable_extensions() and not (suffix in FOREIGN and _formats(path)):
        fix = "Save it as PNG with the program that made it."
        if suffix in PLUGINS:
            fix = f"Install the Python package {PLUGINS[suffix].replace('_', '-')}-plugin, or save it as PNG."
        return Problem("warning", printable(path), f"cannot be read here: no decoder for {suffix}.", fix)
    try:
        with opened_any(path) as image:
            frames = 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))
            image.load()
            width, height = image.size
            if (orientation(image) or 1) >= 5:
                width, height = height, width
            return Shape(width, height, image.format or "", frames, has_transparency(image))
    except DECODER_ERRORS as error:
        return explain(path, error)


def still_shape(path: Path) -> Shape | Problem:
    """Return what a picture file holds; also a file with several frames is a problem."""
    shape = shape_of(path)
    if isinstance(shape, Problem) or shape.frames == 1:
        return shape
    fix = "Convert it first: every frame becomes a picture of its own."
    return Problem("warning", printable(path), f"has {shape.frames} frames and is left as it is.", fix)


def whole(path: Path) -> Image.Image:
    """Return a picture upright, as RGB, or RGBA where some of it is transparent; of several frames the first.

    16 bits become 8 and CMYK becomes RGB just as for training, so that training sees the same pixels in a PNG of the
    result. A colour profile stays in `info` where the colours stay as they are. Raises DataError.
    """
    try:
        with opened_any(path) as image:
            return _taken(image, path)
    except DECODER_ERRORS as error:
        raise DataError(str(explain(path, error))) from error


def _taken(image: Image.Image, path: Path) -> Image.Image:
    image.load()
    profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA", "P") else None
    result = _rgb_or_rgba(image, path)
    result.info = {"icc_profile": profile} if profile else {}
    return result


def _rgb_or_rgba(image: Image.Image, path: Path) -> Image.Image:
    if not has_transparency(image):
        return upright_rgb(image)
    if image.mode.startswith("I"):  # one grey value of a PNG with 16 bits
        result = open_upright(path)
        result.putalpha(open_opacity(path))
        return result
    turn = TURNS.get(orientation(image) or 1)
    rgba = image.convert("RGBA")
    return rgba if turn is None else rgba.transpose(turn)


@dataclass(frozen=True)
class Rewritten:
    """A `Content`: a PNG of what a function makes of a picture.

    size: of the picture when this was planned. Raises DataError when it is another one by now.
    """

    source: Path
    size: tuple[int, int]
    edit: Edit

    def __call__(self, path: Path) -> None:
        """Write it."""
        image = whole(self.source)
        if image.size != self.size:
            raise DataError(
                f"{printable(self.source)}: is {image.width}×{image.height} pixels now, but was {self.size[0]}×"
                f"{self.size[1]} when this was planned. Look at the folder again."
            )
        result = self.edit(image)
        result.save(path, "PNG", icc_profile=image.info.get("icc_profile"))


class Frames:
    """The frames of an animation, or the pages of a file, each decoded once when they are asked for in order.

    The file is not kept open between two of them: Windows moves no file that is.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._image: Image.Image | None = None

    def frame(self, number: int) -> Image.Image:
        """Return a frame, counted from 0, as `whole` does. Raises DataError."""
        try:
            with strict_decoding():
                if self._image is None or number < self._image.tell():
                    self._image = Image.open(io.BytesIO(self._path.read_bytes()), formats=_formats(self._path))
                self._image.seek(number)
                result = _taken(self._image, self._path)
                if number + 1 == getattr(self._image, "n_frames", 1):
                    self._image = None
                return result
        except DECODER_ERRORS as error:
            raise DataError(str(explain(self._path, error))) from error


@dataclass(frozen=True, eq=False)
class FrameOf:
    """A `Content`: a PNG of one frame."""

    frames: Frames
    number: int

    def __call__(self, path: Path) -> None:
        """Write it."""
        image = self.frames.frame(self.number)
        image.save(path, "PNG", icc_profile=image.info.get("icc_profile"))


def unchanged(image: Image.Image) -> Image.Image:
    """Return the picture itself; an `Edit`."""
    return image


def over(colour: tuple[int, int, int], image: Image.Image) -> Image.Image:
    """Return a picture without transparency: laid over a colour."""
    if image.mode != "RGBA":
        return image
    ground = Image.new("RGBA", image.size, (*colour, 255))
    return Image.alpha_composite(ground, image).convert("RGB")


def colour_of(text: str, where: str) -> tuple[int, int, int]:
    """Return a colour named as in CSS, such as white, #ffffff or rgb(255, 255, 255). Raises ConfigError naming `where`."""
    try:
        red, green, blue = ImageColor.getrgb(text.strip())[:3]
    except ValueError as error:
        text = f"{where}: {text!r} is no colour. Use a name such as white, or six digits such as #ffffff."
        raise ConfigError(text) from error
    return red, green, blue


def is_png(path: Path) -> bool:
    """Tell whether a file is named as the PNG that tools write."""
    return path.suffix.lower() == ".png"
