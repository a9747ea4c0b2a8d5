"""Pictures as taggers take them: on white, padded to a square, of the model's side, BGR, in the model's own layout."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PIPELINE = 1  # raised whenever the same picture gives other numbers: kept scores are then made anew
SIDE = 448  # of all WD models; for a model whose input does not say
STRIP = 256  # rows that are scaled at once
WHITE = (255, 255, 255)
LONG = 8192  # pixels
SUPPORT = 2.0  # of Pillow's bicubic filter: pixels of the result on each side

Order = Literal["NHWC", "NCHW"]
TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}


@dataclass(frozen=True)
class Layout:
    """What a model takes. side: of the square, pixels; batch: how many pictures at once, 0 for any number.

    order: NHWC holds 0…255 as the WD models take them; NCHW holds -1…1 as their timm originals do, 0…255 if uint8.
    """

    side: int = SIDE
    order: Order = "NHWC"
    batch: int = 0
    dtype: type[np.generic] = np.float32


def layout_of(shape: list[Any], kind: str) -> Layout:
    """Return the layout that an ONNX input declares. Raises ValueError for one that holds no square pictures.

    shape: four numbers, or names and None for those that may be any; kind: of the elements, as onnxruntime names it.
    """
    if len(shape) != 4 or kind not in TYPES:
        raise ValueError(f"its input is {kind} {shape}, which holds no pictures")
    batch, *sizes = (size if isinstance(size, int) and size > 0 else 0 for size in shape)
    order: Order = "NCHW" if sizes[0] == 3 and sizes[2] != 3 else "NHWC"
    height, width, channels = sizes if order == "NHWC" else (*sizes[1:], 3)
    if channels not in (0, 3) or height != width:
        raise ValueError(f"its input is {shape}, which are no square pictures of 3 channels")
    return Layout(height or SIDE, order, batch, TYPES[kind])


def prepared(image: Image.Image, layout: Layout) -> NDArray[Any]:
    """Return one picture as the model takes it, without the batch's dimension.

    Transparency on white, white around it to a centred square, bicubic to the side, BGR: the models' own demo
    (SmilingWolf's space wd-tagger, app.py).
    """
    bgr = np.asarray(squared(on_white(image), layout.side))[:, :, ::-1]
    if layout.order == "NHWC":
        return np.ascontiguousarray(bgr, dtype=layout.dtype)
    planes = bgr.transpose(2, 0, 1)
    if layout.dtype is np.uint8:
        return np.ascontiguousarray(planes)
    return np.ascontiguousarray(planes.astype(np.float32) / 127.5 - 1.0, dtype=layout.dtype)


def on_white(image: Image.Image) -> Image.Image:
    """Return a decoded picture of any mode as RGB, white showing through where it is transparent."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    upper = image.convert("RGBA")
    ground = Image.new("RGBA", upper.size, (*WHITE, 255))
    return Image.alpha_composite(ground, upper).convert("RGB")


def squared(image: Image.Image, side: int) -> Image.Image:
    """Return an RGB picture in the middle of a white square, scaled bicubic to a side.

    Pixel for pixel what padding first and scaling then gives (test_tagging_preprocess.py `test_equals_the_description`),
    without ever holding the square, which for 1 × 30000 takes 2.7 GB. Pillow scales rows first and columns then, and
    white stays white, so only the rows that the picture has are scaled, some at a time. Of very long ones only what the
    picture reaches; then Pillow rounds the places of pixels, and values may differ by one level.
    """
    longest = max(image.size)
    left, top = (longest - image.width) // 2, (longest - image.height) // 2
    scale = longest / side
    reach = SUPPORT * max(scale, 1.0)
    if longest <= LONG:
        reach = float(longest)
    first = max(math.floor((left - reach) / scale) - 1, 0)  # columns of the result that the picture reaches
    last = min(math.ceil((left + image.width + reach) / scale) + 1, side)
    begin = max(math.floor(first * scale - reach) - 1, 0)  # columns of the square that these are made of
    end = min(math.ceil(last * scale + reach) + 1, longest)
    tall = Image.new("RGB", (side, longest), WHITE)
    for start in range(0, image.height, STRIP):
        height = min(STRIP, image.height - start)
        rows = Image.new("RGB", (end - begin, height), WHITE)
        rows.paste(image.crop((0, start, image.width, start + height)), (left - begin, 0))
        box = (first * scale - begin, 0, min(last * scale, longest) - begin, height)
        tall.paste(rows.resize((last - first, height), Image.Resampling.BICUBIC, box), (first, top + start))
    return tall.resize((side, side), Image.Resampling.BICUBIC)
