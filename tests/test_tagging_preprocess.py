"""Pictures reach a tagger as the models' own demo prepares them, also odd ones, in the layout the model declares."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lib_lora_trainer.tagging import preprocess
from lib_lora_trainer.tagging.preprocess import Layout, layout_of, prepared, squared

FLOAT = "tensor(float)"


def described(image: Image.Image, side: int) -> np.ndarray:
    """Do step by step what the demo's description says: white below, white square around, bicubic, float, BGR."""
    rgba = np.asarray(image.convert("RGBA"), np.float64)
    alpha = rgba[..., 3:] / 255
    rgb = np.floor(rgba[..., :3] * alpha + 255 * (1 - alpha) + 0.5)
    height, width = rgb.shape[:2]
    longest = max(height, width)
    square = np.full((longest, longest, 3), 255, np.uint8)
    top, left = (longest - height) // 2, (longest - width) // 2
    square[top : top + height, left : left + width] = rgb
    scaled = Image.fromarray(square).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(scaled)[:, :, ::-1].astype(np.float32)


def noise(width, height, mode):
    bands = len(Image.new(mode, (1, 1)).getbands())
    values = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, bands), dtype=np.uint8)
    return Image.fromarray(values[..., 0] if bands == 1 else values, mode)


ODD = {
    "square": noise(64, 64, "RGB"),
    "wide": noise(301, 40, "RGB"),
    "tall, in several strips": noise(41, 700, "RGB"),
    "wide and high, in several strips": noise(900, 601, "RGB"),
    "as large as wanted": noise(48, 48, "RGB"),
    "transparent": noise(50, 70, "RGBA"),
    "grey": noise(33, 90, "L"),
    "grey with alpha": noise(33, 90, "LA"),
    "one pixel": noise(1, 1, "RGB"),
    "1 × N": noise(1, 300, "RGB"),
    "N × 1": noise(300, 1, "RGBA"),
    "black and white": noise(20, 30, "L").convert("1"),
    "palette": noise(60, 40, "RGB").quantize(16),
    "CMYK": noise(40, 30, "CMYK"),
}


@pytest.mark.parametrize("side", [48, 448])
@pytest.mark.parametrize("name", ODD)
def test_equals_the_description(name, side):
    wanted, found = described(ODD[name], side), prepared(ODD[name], Layout(side))
    assert found.dtype == np.float32 and found.shape == (side, side, 3) and found.flags.c_contiguous
    # Where alpha blends, the two ways of rounding may differ by one level.
    assert np.abs(wanted - found).max() <= (1 if ODD[name].mode in ("RGBA", "LA") else 0)


def test_a_transparent_palette_shows_white_where_it_is_transparent():
    image = noise(60, 40, "RGB").quantize(4)
    image.info["transparency"] = 2
    where = np.asarray(image) == 2
    found = prepared(image, Layout(60))[10:50]
    assert where.any() and (found[where] == 255).all() and not (found[~where] == 255).all()


def test_channels_are_blue_green_red_from_0_to_255():
    found = prepared(Image.new("RGB", (5, 5), (200, 100, 7)), Layout(4))
    assert found.tolist() == [[[7.0, 100.0, 200.0]] * 4] * 4


@pytest.mark.parametrize(("width", "height"), [(90, 2500), (2500, 90), (1, 2500), (700, 2500)])
def test_where_only_what_is_reached_is_scaled_levels_differ_by_one_at_most(width, height, monkeypatch):
    image = noise(width, height, "RGB")
    whole = np.asarray(squared(image, 48), np.int16)
    monkeypatch.setattr(preprocess, "LONG", 1000)
    assert np.abs(np.asarray(squared(image, 48), np.int16) - whole).max() <= 1
    assert (whole != 255).any()


def test_a_very_long_picture_needs_no_square_of_its_length():
    line = Image.new("RGB", (1, 60_000), (0, 0, 0))  # its square would take 10.8 GB
    found = np.asarray(squared(line, 448))[:, :, 0]
    # One pixel of 60000 / 448 = 134 wide, in the middle.
    assert found.shape == (448, 448) and (found[:, :220] == 255).all() and (found[:, 228:] == 255).all()
    assert np.abs((255 - found[200:248].astype(float)).sum(axis=1) - 255 * 448 / 60_000).max() < 1.5


@pytest.mark.parametrize(
    ("shape", "kind", "layout"),
    [
        (["batch_size", 448, 448, 3], FLOAT, Layout(448, "NHWC", 0, np.float32)),
        ([1, 448, 448, 3], FLOAT, Layout(448, "NHWC", 1, np.float32)),
        ([None, 224, 224, 3], "tensor(uint8)", Layout(224, "NHWC", 0, np.uint8)),
        (["N", 3, 448, 448], "tensor(float16)", Layout(448, "NCHW", 0, np.float16)),
        ([-1, "height", "width", 3], FLOAT, Layout(448, "NHWC", 0, np.float32)),
        (["n", 3, "h", "w"], FLOAT, Layout(448, "NCHW", 0, np.float32)),
        ([2, 3, 3, 3], FLOAT, Layout(3, "NHWC", 2, np.float32)),
    ],
)
def test_layout_is_what_the_model_declares(shape, kind, layout):
    assert layout_of(shape, kind) == layout


@pytest.mark.parametrize(
    ("shape", "kind"),
    [([1, 77], "tensor(int64)"), ([1, 448, 320, 3], FLOAT), ([1, 4, 64, 64], FLOAT), ([1, 448, 448, 3], "seq")],
)
def test_other_inputs_are_refused(shape, kind):
    with pytest.raises(ValueError, match="its input is"):
        layout_of(shape, kind)


def test_planes_are_scaled_as_the_timm_originals_want_them():
    image = noise(30, 20, "RGB")
    rows = prepared(image, Layout(16))
    planes = prepared(image, Layout(16, "NCHW"))
    assert planes.shape == (3, 16, 16) and planes.dtype == np.float32
    assert np.allclose(planes, (rows.transpose(2, 0, 1) / 255 - 0.5) / 0.5, atol=1e-6)
    half = prepared(image, Layout(16, "NCHW", 0, np.float16))
    assert half.dtype == np.float16 and np.allclose(half, planes, atol=1e-3)
    assert np.array_equal(prepared(image, Layout(16, "NHWC", 0, np.uint8)), rows.astype(np.uint8))
    assert np.array_equal(prepared(image, Layout(16, "NCHW", 0, np.uint8)), rows.transpose(2, 0, 1).astype(np.uint8))
