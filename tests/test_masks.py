"""Masks: found by name, checked at the scan, and carried to the latents' size with their pictures."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.config.data import DataConfig, SourceConfig
from lib_lora_trainer.dataset.buckets import Bucket, Placement
from lib_lora_trainer.dataset.exif import ORIENTATION
from lib_lora_trainer.dataset.items import Item
from lib_lora_trainer.dataset.masks import load_mask, same_shape
from lib_lora_trainer.dataset.scan import scan
from test_pixels import grey_png_of_16_bits

WHERE = "data.sources[0].masks"


def picture(path, size=(64, 64), mode="RGB", colour=(200, 100, 50)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)
    path.with_suffix(".txt").write_text("sks", encoding="utf-8")
    return path


def mask(path, size=(64, 64), shade=255):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, shade).save(path)
    return path


def look(folder, masks, **details):
    source = SourceConfig(str(folder), masks=str(masks), **details)
    return scan(DataConfig(sources=(source,), resolution=64), ())


def told(found):
    return [(problem.severity, problem.where, problem.message) for problem in found.problems]


def item(path, width, height, mask=None):
    return Item(path, "a", 1, width, height, "", None, mask=mask)


def unscaled(width, height):
    return Placement(Bucket(width, height), (width, height), (0, 0), (width, height))


def half(path, size, mode="L"):
    """Save a mask that is white in its left half and black in its right one."""
    left = Image.new(mode, size, 0)
    left.paste(255 if mode == "L" else (255, 255, 255), (0, 0, size[0] // 2, size[1]))
    left.save(path)
    return path


def test_masks_are_found_by_name_in_the_same_subfolder_or_directly(tmp_path):
    pictures, masks = tmp_path / "set", tmp_path / "masks"
    a = picture(pictures / "3_x" / "a.png")
    b = picture(pictures / "3_x" / "b.jpg")
    c1, c2 = picture(pictures / "3_x" / "c.png"), picture(pictures / "y" / "c.png")
    mask(masks / "3_x" / "a.webp")
    mask(masks / "b.bmp")
    mask(masks / "3_x" / "c.png")
    mask(masks / "c.png")  # not for y/c.png: two pictures have the name
    found = look(pictures, masks)
    assert {each.path: each.mask for each in found.items} == {
        a: masks / "3_x" / "a.webp",
        b: masks / "b.bmp",
        c1: masks / "3_x" / "c.png",
        c2: None,
    }
    assert told(found) == [
        ("warning", WHERE, "1 of 4 pictures have no mask and are learned as a whole: c.png."),
        ("note", WHERE, "masks that belong to no picture are ignored, 1 in all: c.png."),
    ]


def test_a_masks_folder_inside_the_source_holds_no_pictures_to_train_on(tmp_path):
    picture(tmp_path / "set" / "a.png")
    mask(tmp_path / "set" / "masks" / "a.png")
    found = look(tmp_path / "set", tmp_path / "set" / "masks")
    assert [(each.path.name, each.mask) for each in found.items] == [("a.png", tmp_path / "set" / "masks" / "a.png")]
    assert told(found) == []


def test_missing_masks_are_named_and_transparency_may_stand_in(tmp_path):
    for name in "abcdefg":
        picture(tmp_path / "set" / f"{name}.png", mode="RGBA", colour=(9, 9, 9, 100))
    mask(tmp_path / "masks" / "a.png")
    message = "6 of 7 pictures have no mask and are learned as a whole: b.png, c.png, d.png, e.png, f.png and 1 more."
    found = look(tmp_path / "set", tmp_path / "masks")
    assert ("warning", WHERE, message) in told(found)
    assert found.problems[0].fix
    alpha = look(tmp_path / "set", tmp_path / "masks", alpha_masks=True)
    assert ("note", WHERE, message.replace("are learned as a whole", "take their transparency instead")) in told(alpha)


def test_wrong_shapes_damage_and_black_masks_are_problems(tmp_path):
    for name in ("a", "b", "c", "d", "e"):
        picture(tmp_path / "set" / f"{name}.png", (96, 64))
    mask(tmp_path / "masks" / "a.png", (64, 96))  # on its side
    mask(tmp_path / "masks" / "b.png", (48, 32))  # half the size: fits
    mask(tmp_path / "masks" / "c.png", (96, 64), 0)
    (tmp_path / "masks" / "d.png").write_bytes(b"no picture")
    mask(tmp_path / "masks" / "e.png", (96, 64))
    found = look(tmp_path / "set", tmp_path / "masks")
    assert told(found) == [
        ("error", str(tmp_path / "masks" / "d.png"), "is not a picture, whatever its name says."),
        ("error", WHERE, "1 masks have another shape than their pictures: a.png."),
        ("warning", WHERE, "1 masks are black everywhere, so that nothing of their pictures is learned: c.png."),
    ]  # fmt: skip
    assert found.problems[0].fix == "Replace or remove the file."
    assert all(problem.fix for problem in found.problems)


@pytest.mark.parametrize(
    ("masks", "message"),
    [("missing", "missing is no folder."), ("set", "set is the folder of the pictures themselves.")],
)
def test_a_wrong_masks_folder_is_an_error(tmp_path, masks, message):
    picture(tmp_path / "set" / "a.png")
    found = look(tmp_path / "set", tmp_path / masks)
    ((severity, where, text),) = told(found)
    assert (severity, where) == ("error", WHERE)
    assert text.endswith(message)
    assert len(found.items) == 1


def test_transparency_wanted_but_nowhere_found_is_a_warning(tmp_path):
    picture(tmp_path / "set" / "a.png")
    found = look(tmp_path / "set", "", alpha_masks=True)
    assert told(found) == [
        ("warning", "data.sources[0].alpha_masks", "no picture has transparent areas, so all of each is learned.")
    ]


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ((100, 50), (100, 50), True),
        ((100, 50), (200, 100), True),
        ((333, 90), (166, 45), True),  # 333/2 rounded
        ((1000, 333), (10, 3), True),  # 3.33 rounded
        ((100, 50), (50, 100), False),
        ((1000, 1000), (1000, 990), False),
        ((64, 64), (64, 96), False),
    ],
)
def test_shapes(one, two, same):
    assert same_shape(one, two) is same_shape(two, one) is same


def test_each_latent_pixel_is_the_mean_of_its_cell(tmp_path):
    values = np.random.default_rng(1).integers(0, 256, (16, 24), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "m.png")
    found = load_mask(item(tmp_path / "a.png", 24, 16, tmp_path / "m.png"), False, unscaled(24, 16))
    expected = [[values[y : y + 8, x : x + 8].mean() / 255 for x in (0, 8, 16)] for y in (0, 8)]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_mask_takes_its_pictures_way(tmp_path):
    # 192×64, white left of 96; the window from 64 to 128 sees white in its left half alone.
    half(tmp_path / "m.png", (192, 64))
    placement = Placement(Bucket(64, 64), (192, 64), (64, 0), (192, 64))
    found = load_mask(item(tmp_path / "a.png", 192, 64, tmp_path / "m.png"), False, placement)
    assert found.tolist() == [[1.0] * 4 + [0.0] * 4] * 8
    shifted = load_mask(item(tmp_path / "a.png", 192, 64, tmp_path / "m.png"), False, replace(placement, crop=(92, 0)))
    assert shifted.tolist() == [[0.5] + [0.0] * 7] * 8
    # A mask of half the size says the same.
    half(tmp_path / "small.png", (96, 32))
    small = load_mask(item(tmp_path / "a.png", 192, 64, tmp_path / "small.png"), False, placement)
    np.testing.assert_allclose(small[:, [0, 1, 2, 5, 6, 7]], found[:, [0, 1, 2, 5, 6, 7]])
    # Scaled down to a third with its picture.
    half(tmp_path / "large.png", (288, 288))
    third = Placement(Bucket(96, 96), (96, 96), (0, 0), (288, 288))
    large = load_mask(item(tmp_path / "a.png", 288, 288, tmp_path / "large.png"), False, third)
    np.testing.assert_allclose(large, [[1.0] * 6 + [0.0] * 6] * 12, atol=0.06)


def test_masks_are_turned_grey_and_black_where_transparent(tmp_path):
    turned = half(tmp_path / "t.png", (16, 32))
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # stored lying: the left edge is up
    with Image.open(turned) as stored:
        stored.save(turned, exif=exif)
    found = load_mask(item(tmp_path / "a.png", 32, 16, turned), False, unscaled(32, 16))
    assert found.tolist() == [[1.0] * 4, [0.0] * 4]
    pixels = np.full((8, 16, 4), 255, np.uint8)
    pixels[:, 8:, 3] = 0  # white, but transparent
    Image.fromarray(pixels).save(tmp_path / "c.png")
    assert load_mask(item(tmp_path / "a.png", 16, 8, tmp_path / "c.png"), False, unscaled(16, 8)).tolist() == [
        [1.0, 0.0]
    ]


def test_transparency_as_mask(tmp_path):
    pixels = np.zeros((8, 24, 4), np.uint8)
    pixels[:, :8, 3], pixels[:, 8:16, 3] = 255, 51
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = load_mask(item(tmp_path / "a.png", 24, 8), True, unscaled(24, 8))
    np.testing.assert_allclose(found, [[1.0, 0.2, 0.0]], atol=1e-6)
    assert load_mask(item(tmp_path / "a.png", 24, 8), False, unscaled(24, 8)) is None
    Image.new("RGB", (24, 8)).save(tmp_path / "b.png")
    assert load_mask(item(tmp_path / "b.png", 24, 8), True, unscaled(24, 8)).tolist() == [[1.0] * 3]
    # A mask's file counts before transparency.
    mask(tmp_path / "m.png", (24, 8), 0)
    assert load_mask(item(tmp_path / "a.png", 24, 8, tmp_path / "m.png"), True, unscaled(24, 8)).max() == 0


def test_palette_and_16_bit_transparency(tmp_path):
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([255, 0, 0, 0, 0, 255] + [0] * 762)
    palette.paste(0, (0, 0, 4, 8))
    palette.save(tmp_path / "p.png", transparency=0)
    assert load_mask(item(tmp_path / "p.png", 8, 8), True, unscaled(8, 8)).tolist() == [[0.5]]
    values = np.full((8, 8), 999, ">u2")
    values[:2] = 3
    (tmp_path / "d.png").write_bytes(grey_png_of_16_bits(values, transparent=3))
    assert load_mask(item(tmp_path / "d.png", 8, 8), True, unscaled(8, 8)).tolist() == [[0.75]]


def test_a_mask_changed_since_the_scan_is_refused(tmp_path):
    mask(tmp_path / "m.png", (50, 20))
    with pytest.raises(DataError, match=r"m\.png: is 50×20 pixels now, which does not fit the picture's 24×16"):
        load_mask(item(tmp_path / "a.png", 24, 16, tmp_path / "m.png"), False, unscaled(24, 16))
