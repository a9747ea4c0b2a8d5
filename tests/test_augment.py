"""What differs between exposures of one picture: crops, faces, colours; each draw has its address."""

import colorsys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lib_lora_trainer.config.data import DataConfig
from lib_lora_trainer.dataset import augment
from lib_lora_trainer.dataset.augment import Address
from lib_lora_trainer.dataset.buckets import Bucket, Placement
from lib_lora_trainer.dataset.faces import Face, face_in

LANDSCAPE = Placement(Bucket(64, 64), (192, 64), (64, 0), (384, 128))
PLAIN = DataConfig()


def crops(placement, face, data, count=300):
    return [augment.crop(placement, face, data, Address(1, position)) for position in range(count)]


def test_nothing_changes_unless_it_is_wanted():
    assert augment.crop(LANDSCAPE, Face(10, 10, 5), PLAIN, Address(1, 0)) == LANDSCAPE


def test_random_crops_are_everywhere_and_addressed():
    data = DataConfig(random_crop=True)
    found = crops(LANDSCAPE, None, data)
    assert found == crops(LANDSCAPE, None, data)
    assert augment.crop(LANDSCAPE, None, data, Address(2, 0)) != found[0]
    lefts = [each.crop[0] for each in found]
    assert min(lefts) < 10 and max(lefts) > 118 and abs(np.mean(lefts) - 64) < 8  # 0 to 128, as likely everywhere
    assert {each.crop[1] for each in found} == {0}
    assert all((each.bucket, each.scaled, each.original) == (Bucket(64, 64), (192, 64), (384, 128)) for each in found)


def test_a_picture_of_its_buckets_shape_has_one_crop():
    exact = Placement(Bucket(64, 64), (64, 64), (0, 0), (100, 100))
    assert set(crops(exact, None, DataConfig(random_crop=True), 20)) == {exact}


def test_faces_by_hand():
    # A face of 100 pixels at (700, 300) in 1000×800; two face sizes are 200 pixels, which become the 100 of the bucket:
    # scale 0.5. The window from (700·0.5 - 50, 300·0.5 - 50).
    data = DataConfig(face_crop_minimum=2.0, face_crop_maximum=2.0)
    placement = Placement(Bucket(100, 120), (150, 120), (25, 0), (1000, 800))
    found = augment.crop(placement, Face(700, 300, 100), data, Address(1, 0))
    assert found == Placement(Bucket(100, 120), (500, 400), (300, 90), (1000, 800))
    # At the border the window stays inside.
    corner = augment.crop(placement, Face(1, 799, 100), data, Address(1, 0))
    assert corner.crop == (0, 280)
    # Twenty face sizes are more than there is: as small as covers the bucket, 120 / 800.
    far = augment.crop(
        placement, Face(700, 300, 100), DataConfig(face_crop_minimum=20, face_crop_maximum=20), Address(1, 0)
    )
    assert far.scaled == (150, 120) and far.crop == (50, 0)
    # A tenth of a face is less than the bucket has pixels: nothing is enlarged.
    near = augment.crop(
        placement, Face(700, 300, 100), DataConfig(face_crop_minimum=0.1, face_crop_maximum=0.1), Address(1, 0)
    )
    assert near.scaled == (1000, 800) and near.crop == (650, 240)
    # A picture smaller than its bucket is enlarged as the bucket needs it.
    small = augment.crop(Placement(Bucket(64, 64), (64, 64), (0, 0), (32, 32)), Face(16, 16, 8), data, Address(1, 0))
    assert small.scaled == (64, 64) and small.crop == (0, 0)


def test_face_sizes_are_drawn_evenly_between_the_limits():
    data = DataConfig(face_crop_minimum=1.0, face_crop_maximum=3.0)
    placement = Placement(Bucket(64, 64), (64, 64), (0, 0), (2000, 2000))
    found = crops(placement, Face(1000, 1000, 200), data, 2000)
    factors = [64 * 2000 / (each.scaled[0] * 200) for each in found]
    assert 0.99 < min(factors) < 1.05 and 2.95 < max(factors) < 3.05
    assert abs(np.mean(factors) - 2) < 0.05
    assert all(each.crop[0] == round(each.scaled[0] / 2 - 32) for each in found)  # centred


def test_faces_leave_the_middle_with_random_crop():
    data = DataConfig(face_crop_minimum=2.0, face_crop_maximum=2.0, random_crop=True)
    placement = Placement(Bucket(100, 100), (125, 100), (12, 0), (1000, 800))
    found = crops(placement, Face(500, 400, 100), data, 1000)
    lefts = np.array([each.crop[0] for each in found])
    assert {each.scaled for each in found} == {(500, 400)}
    assert lefts.min() == 0 and lefts.max() == 400  # held inside
    assert abs(lefts.mean() - 200) < 10
    assert (abs(lefts - 200) < 60).mean() > 0.4  # near the middle more often: 1 - (1 - 60/250)² = 0.42


@pytest.mark.parametrize(
    ("name", "face"),
    [
        ("a_10_20_8_9.png", Face(10, 20, 9)),
        ("2024_01_a_10_20_8_9.png", Face(10, 20, 9)),
        ("a_10_20_8.png", None),
        ("a_100_20_8_9.png", None),  # the centre is outside of 100×50
        ("a_10_20_0_9.png", None),
        ("10_20_8_9.png", None),
    ],
)
def test_faces_in_names(name, face):
    assert face_in(Path(name), 100, 50) == face


def test_colours_change_in_a_third_of_the_exposures_by_hue_or_gamma():
    pixels = np.full((4, 4, 3), (180, 90, 40), np.uint8)
    changed = Counter()
    for position in range(900):
        red, green, blue = (int(value) for value in augment.color(pixels, Address(1, position))[0, 0])
        if (red, green, blue) == (180, 90, 40):
            changed["same"] += 1
        elif max(red, green, blue) == 180 and min(red, green, blue) == 40:
            changed["hue"] += 1
            turned = (colorsys.rgb_to_hsv(red, green, blue)[0] - colorsys.rgb_to_hsv(180, 90, 40)[0]) * 360
            assert abs((turned + 180) % 360 - 180) <= 16.5
        else:
            changed["gamma"] += 1
            gammas = [np.log(new / 255) / np.log(old / 255) for new, old in ((red, 180), (green, 90), (blue, 40))]
            assert all(0.93 < gamma < 1.07 for gamma in gammas)
    assert 550 < changed["same"] < 680  # 600, and those too small to show
    assert 100 < changed["hue"] < 190 and 100 < changed["gamma"] < 190  # 150 each, deviation 11


def test_gamma_keeps_black_and_white():
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0] = 255
    assert all((augment.color(pixels, Address(1, position)) == pixels).all() for position in range(200))


@pytest.mark.parametrize("degrees", [0.0, 16.0, -16.0, 120.0, -200.0])
def test_hues_are_those_of_hsv(degrees):
    values = np.random.default_rng(1).random((6, 5, 3)).astype(np.float32)
    values[0, 0] = 0.4  # grey has no hue
    values[0, 1] = (1, 0, 0)
    found = augment.turn_hue(values, degrees)
    for row in range(6):
        for column in range(5):
            hue, saturation, value = colorsys.rgb_to_hsv(*values[row, column])
            expected = colorsys.hsv_to_rgb((hue + degrees / 360) % 1, saturation, value)
            np.testing.assert_allclose(found[row, column], expected, atol=1e-5)
