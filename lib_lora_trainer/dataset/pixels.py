"""From a picture file to the pixels that are trained on: upright, RGB, of the bucket's size; and its transparency."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.dataset.buckets import Placement
from lib_lora_trainer.dataset.formats import DECODER_ERRORS, TURNS, explain, has_transparency, opened, orientation

PIPELINE = 1  # raised whenever the same file, placed the same way, gives other pixels: kept latents are then made anew


def load_pixels(path: Path, placement: Placement) -> NDArray[np.uint8]:
    """Return a picture scaled and cropped as placed: (H, W, 3) uint8 RGB, 0 to 255, of the bucket's size.

    Lanczos both ways. Pillow widens the filter when shrinking, so it averages over the area as it must; Pillow's BOX
    would be the plain area mean but weighs whole pixels only: between factors 1 and 2, the usual case, it repeats and
    drops columns like nearest neighbour (`test_shrinking_keeps_a_ramp_straight` measures it). sd-scripts shrinks by
    OpenCV's area mean; Pillow has none with fractional weights, and the WebUI scales with Lanczos too.
    Only the crop is computed, so that a very long picture needs no memory for its scaled whole.
    Raises DataError naming the file when it is unreadable or no longer has the size it was placed with.
    """
    image = open_upright(path)
    if image.size != placement.original:
        raise DataError(
            f"{path}: is {image.width}×{image.height} pixels now, but was {placement.original[0]}×"
            f"{placement.original[1]} when the folder was scanned. Scan the folder again."
        )
    return np.array(cut_out(image, placement, Image.Resampling.LANCZOS), dtype=np.uint8)


def cut_out(image: Image.Image, placement: Placement, filter_: Image.Resampling) -> Image.Image:
    """Return a picture, or a mask of another size but the same shape, scaled and cropped as placed."""
    bucket, (left, top) = placement.bucket, placement.crop
    horizontal = image.width / placement.scaled[0]
    vertical = image.height / placement.scaled[1]
    box = (
        left * horizontal,
        top * vertical,
        min((left + bucket.width) * horizontal, image.width),
        min((top + bucket.height) * vertical, image.height),
    )
    return image.resize((bucket.width, bucket.height), filter_, box=box)


def open_upright(path: Path) -> Image.Image:
    """Return a picture as RGB, turned as its EXIF says. Raises DataError naming the file.

    As `upright_rgb`; an animation gives its first frame.
    """
    try:
        with opened(path) as image:
            return upright_rgb(image)
    except DECODER_ERRORS as error:
        raise DataError(str(explain(path, error))) from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """Return an opened picture as 8-bit RGB, turned as its EXIF says; a damaged EXIF leaves it as stored.

    Transparent areas become white, whatever colour is hidden in them. 16 bits are scaled to 8, not cut. CMYK is
    converted by Pillow's formula, without the colour profile; RGB profiles are ignored, as by the WebUI.
    Raises one of `formats.DECODER_ERRORS`.
    """
    image.load()
    turn = TURNS.get(orientation(image) or 1)
    rgb = _over(image, 255)
    return rgb if turn is None else rgb.transpose(turn)


def open_grey(path: Path) -> Image.Image:
    """Return a mask as 8-bit grey, turned as its EXIF says; transparent areas are black. Raises DataError.

    Of several colours the brightness counts (ITU-R 601-2).
    """

    def read(image: Image.Image) -> Image.Image:
        return _over(image, 0).convert("L")

    return _upright(path, read)


def open_opacity(path: Path) -> Image.Image:
    """Return how opaque a picture is as 8-bit grey, turned as its EXIF says: white where it is. Raises DataError."""
    return _upright(path, _opacity)


def _upright(path: Path, read: Callable[[Image.Image], Image.Image]) -> Image.Image:
    try:
        with opened(path) as image:
            image.load()
            turn = TURNS.get(orientation(image) or 1)
            grey = read(image)
    except DECODER_ERRORS as error:
        raise DataError(str(explain(path, error))) from error
    return grey if turn is None else grey.transpose(turn)


def _opacity(image: Image.Image) -> Image.Image:
    if not has_transparency(image):
        return Image.new("L", image.size, 255)
    if image.mode.startswith("I"):  # PNG's tRNS: one grey value is transparent
        opaque = np.asarray(image) != image.info["transparency"]
        return Image.fromarray(np.where(opaque, 255, 0).astype(np.uint8))
    return image.convert("RGBA").getchannel("A")


def _over(image: Image.Image, shade: int) -> Image.Image:
    """Return a decoded picture as RGB over an even grey."""
    if image.mode.startswith("I"):
        return _from_16_bits(image, shade)
    if not has_transparency(image):
        return image.convert("RGB")
    upper = image.convert("RGBA")
    ground = Image.new("RGBA", upper.size, (shade, shade, shade, 255))
    return Image.alpha_composite(ground, upper).convert("RGB")


def _from_16_bits(image: Image.Image, shade: int) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    grey = (np.clip(values, 0, 65535) * 255 + 32767) // 65535
    if "transparency" in image.info:  # PNG's tRNS: one grey value is transparent
        grey = np.where(values == image.info["transparency"], shade, grey)
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
