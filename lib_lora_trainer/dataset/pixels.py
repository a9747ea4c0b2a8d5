"""From a picture file to the pixels that are trained on: upright, RGB, of the bucket's size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.dataset.buckets import Placement
from lib_lora_trainer.dataset.formats import DECODER_ERRORS, TURNS, explain, has_transparency, opened, orientation


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
    bucket, (left, top) = placement.bucket, placement.crop
    horizontal = image.width / placement.scaled[0]
    vertical = image.height / placement.scaled[1]
    box = (
        left * horizontal,
        top * vertical,
        min((left + bucket.width) * horizontal, image.width),
        min((top + bucket.height) * vertical, image.height),
    )
    return np.array(image.resize((bucket.width, bucket.height), Image.Resampling.LANCZOS, box=box), dtype=np.uint8)


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
    rgb = _rgb(image)
    return rgb if turn is None else rgb.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _from_16_bits(image)
    if not has_transparency(image):
        return image.convert("RGB")
    upper = image.convert("RGBA")
    white = Image.new("RGBA", upper.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, upper).convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    grey = (np.clip(values, 0, 65535) * 255 + 32767) // 65535
    if "transparency" in image.info:  # PNG's tRNS: one grey value is transparent
        grey = np.where(values == image.info["transparency"], 255, grey)
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
