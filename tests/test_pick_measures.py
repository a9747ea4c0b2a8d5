"""What is measured of an image, by hand and on drawn figures: damage, copies, likeness to the dataset."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from lib_lora_trainer.demo import world
from lib_lora_trainer.evaluate import measures
from lib_lora_trainer.evaluate.measures import apart, defects, distances, nearest, span, thumbnail, traces
from lib_lora_trainer.tagging.labels import GENERAL, RATING, Label

SHAPE = (128, 128)


def figure(number: int) -> world.Figure:
    import random

    return world.sample_figure(random.Random(number))


def picture(number: int, seed: int = 1) -> Image.Image:
    return world.draw(figure(number), seed)


def half(left: tuple[int, int, int], right: tuple[int, int, int]) -> Image.Image:
    image = Image.new("RGB", (8, 8), left)
    image.paste(Image.new("RGB", (4, 8), right), (4, 0))
    return image


def test_traces_by_hand():
    found = traces(half((0, 0, 0), (200, 100, 0)))
    # Brightness is 0 and 0.299 · 200 + 0.587 · 100 = 118.5: a deviation of half of that. All pixels have a channel at 0.
    assert (found.contrast, found.saturation, found.clipped) == pytest.approx((118.5 / 2, 0.5, 1.0))
    # Of six inner columns two lie at the edge: one of their neighbours differs by 118.5.
    assert found.roughness == pytest.approx(118.5 / 4 * 2 / 6)
    assert traces(Image.new("RGB", (1, 1), (9, 9, 9))).roughness == 0


def test_damage_is_what_no_image_in_order_shows():
    good = [traces(picture(number)) for number in range(24)]
    within = span(good)
    assert all(defects(each, within) == () for each in good)
    assert sum(bool(defects(traces(picture(number)), within)) for number in range(100, 124)) <= 1
    image = picture(3)
    noise = np.random.default_rng(1).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    assert "roughness" in defects(traces(Image.fromarray(noise)), within)
    assert defects(traces(Image.new("RGB", SHAPE)), within) == ("blank",)
    burnt = Image.fromarray(np.where(np.asarray(image) > 128, 255, 0).astype(np.uint8))
    assert {"contrast", "clipped"} & set(defects(traces(burnt), within))
    with pytest.raises(ValueError, match="references"):
        span([])


def test_thumbnails_are_blind_to_contrast_and_find_the_mirror_image():
    image = picture(1)
    vector = thumbnail(image, SHAPE)
    assert float(vector @ vector) == pytest.approx(1, abs=1e-5)
    pale = image.point(lambda value: value // 2 + 60)
    turned = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    found = distances(vector, [thumbnail(pale, SHAPE), thumbnail(turned, SHAPE), thumbnail(picture(2), SHAPE)])
    assert found[0] < 0.05 and found[1] < 0.01 < 0.2 < found[2]
    empty = thumbnail(Image.new("RGB", SHAPE, (9, 9, 9)), SHAPE)
    assert not empty.any() and distances(vector, [empty])[0] == pytest.approx(2**0.5)
    # Only the middle in the image's shape counts.
    wide = Image.new("RGB", (256, 128), (255, 0, 0))
    wide.paste(image, (64, 0))
    assert np.allclose(thumbnail(wide, SHAPE), vector)


def test_a_copy_is_nearer_than_the_datasets_pictures_are_to_each_other():
    vectors = [thumbnail(picture(number), SHAPE) for number in range(12)]
    usual = apart(vectors)
    copy = picture(4).filter(ImageFilter.GaussianBlur(2)).point(lambda value: min(255, value + 10))
    assert nearest(thumbnail(copy, SHAPE), vectors, usual) < measures.COPY
    others = [nearest(thumbnail(picture(number, 2), SHAPE), vectors, usual) for number in range(100, 112)]
    assert np.median(others) > measures.COPY
    assert apart(vectors[:1]) == pytest.approx(2**0.5)


def test_similarity_and_change_by_hand():
    labels = (Label("general", RATING), Label("hat", GENERAL), Label("bow", GENERAL))
    scores = np.array([1.0, 0.6, 0.8], np.float32)
    assert measures.similarity(scores, np.array([0.0, 0.6, 0.8], np.float32), labels) == pytest.approx(1)
    assert measures.similarity(scores, np.array([1.0, 1.0, 0.0], np.float32), labels) == pytest.approx(0.6)
    assert measures.similarity(scores, np.zeros(3, np.float32), labels) == 0
    one, other = Image.new("RGB", (4, 4), (10, 20, 30)), Image.new("RGB", (4, 4), (13, 20, 30))
    assert measures.change(one, other) == pytest.approx(1.0)
    assert measures.change(one, Image.new("RGB", (8, 4))) == 255.0
