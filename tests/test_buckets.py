"""Bucket sizes and placements, against values worked out by hand and properties that hold for any picture."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.config.data import DataConfig, SourceConfig
from lib_lora_trainer.dataset.buckets import Bucket, Placement, bucket_problems, bucket_sizes, place

REFERENCE = json.loads((Path(__file__).parent / "reference" / "buckets.json").read_text(encoding="utf-8"))
HALF = [(256, 832), (256, 896), (256, 960), (256, 1024), (320, 704), (320, 768), (384, 640), (448, 576)]


def test_sizes_of_512_are_the_known_ones():
    expected = [*HALF, (512, 512), *[(height, width) for width, height in HALF]]
    assert [(b.width, b.height) for b in bucket_sizes(DataConfig())] == sorted(expected)


def test_a_longest_side_cuts_long_buckets():
    # 640 // 64 = 10: 256 × min(640, 1024) and so on; only widths up to 640 remain.
    sizes = bucket_sizes(DataConfig(bucket_maximum=700))
    assert [(b.width, b.height) for b in sizes if b.width <= b.height] == [
        (256, 640),
        (320, 640),
        (384, 640),
        (448, 576),
        (512, 512),
    ]


def test_a_small_resolution_lowers_the_shortest_side():
    sizes = bucket_sizes(DataConfig(resolution=128, bucket_minimum=256, bucket_step=32))
    assert Bucket(128, 128) in sizes
    assert min(min(b.width, b.height) for b in sizes) == 128
    # 448 = 500 rounded down to steps; 250000 / 448 = 558 → 512
    assert bucket_sizes(DataConfig(resolution=500, bucket_minimum=1024)) == (
        Bucket(448, 448),
        Bucket(448, 512),
        Bucket(512, 448),
    )
    assert place(500, 500, DataConfig(resolution=128, bucket_step=32)).bucket == Bucket(128, 128)


@pytest.mark.parametrize(
    ("size", "bucket", "scaled", "crop"),
    [
        ((512, 512), (512, 512), (512, 512), (0, 0)),
        ((1000, 1000), (512, 512), (512, 512), (0, 0)),
        # 1.499: nearer to 640/384 = 1.667 than to 576/448 = 1.286; 667 × 0.64 = 426.88
        ((1000, 667), (640, 384), (640, 427), (0, 21)),
        ((667, 1000), (384, 640), (427, 640), (21, 0)),
        # exact size of a bucket
        ((320, 704), (320, 704), (320, 704), (0, 0)),
        # 10 : 1 is beyond the longest bucket (4 : 1): most of the width is cropped
        ((1000, 100), (1024, 256), (2560, 256), (768, 0)),
        ((1, 1), (512, 512), (512, 512), (0, 0)),
    ],
)
def test_placements_by_hand(size, bucket, scaled, crop):
    assert place(*size, DataConfig()) == Placement(Bucket(*bucket), scaled, crop, size)


def test_without_buckets_everything_becomes_the_square():
    data = DataConfig(resolution=256, bucket=False)
    assert bucket_sizes(data) == (Bucket(256, 256),)
    # 300 × 256/200 = 384
    assert place(300, 200, data) == Placement(Bucket(256, 256), (384, 256), (64, 0), (300, 200))
    assert place(300, 200, replace(data, no_upscale=True)) == place(300, 200, data)


@pytest.mark.parametrize(
    ("size", "bucket", "scaled", "crop"),
    [
        ((300, 200), (256, 192), (300, 200), (22, 4)),  # small: only cut to whole steps
        ((512, 512), (512, 512), (512, 512), (0, 0)),
        # sqrt(512² × 1000/667) = 626.9 → 576 wide, 262144 / 626.9 = 418 → 384 high; 576 × 667/1000 = 384.2
        ((1000, 667), (576, 384), (576, 384), (0, 0)),
        # sqrt(512² × 0.8) = 457.9 → 448 × 560 (bucket 448×512, ratio .875); 572.4 → 512, 409.6 (384×512, .75):
        # |.75 - .8| < |.875 - .8|, so the height leads
        ((800, 1000), (384, 512), (410, 512), (13, 0)),
        ((50, 40), (64, 64), (80, 64), (8, 0)),  # below one step nothing but enlarging helps
        ((3000, 70), (1024, 64), (3000, 70), (988, 3)),  # the longest side holds
    ],
)
def test_no_upscale_by_hand(size, bucket, scaled, crop):
    assert place(*size, DataConfig(no_upscale=True)) == Placement(Bucket(*bucket), scaled, crop, size)


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (DataConfig(bucket_step=20), "data.bucket_step"),
        (DataConfig(resolution=64, bucket_step=128), "data.bucket_step"),
        (DataConfig(resolution=1536), "data.bucket_maximum"),
        (DataConfig(resolution=500, bucket=False), "data.resolution"),
    ],
)
def test_impossible_settings_are_named(data, where):
    assert [problem.where for problem in bucket_problems(data)] == [where]
    with pytest.raises(ConfigError, match=where.replace(".", r"\.")):
        place(100, 100, data)


def test_a_picture_without_pixels_is_refused():
    with pytest.raises(ValueError, match="0×5"):
        place(0, 5, DataConfig())


def test_every_resolution_is_checked_and_named():
    sources = (SourceConfig("a"), SourceConfig("b", resolution=100))
    data = DataConfig(sources=sources, more_resolutions=(768, 1500), bucket_maximum=1024)
    assert [problem.where for problem in bucket_problems(data)] == ["data.bucket_maximum"]
    assert "1024 is smaller than the resolution 1500" in str(bucket_problems(data)[0])
    assert "128 is larger than the resolution 100" in str(bucket_problems(replace(data, bucket_step=128))[0])
    squares = bucket_problems(replace(data, bucket=False))
    assert [problem.where for problem in squares] == ["data.more_resolutions[1]", "data.sources[1].resolution"]


def test_a_placement_may_have_a_resolution_of_its_own():
    data = DataConfig(more_resolutions=(768,))
    assert place(1000, 667, data, 768) == place(1000, 667, DataConfig(resolution=768))
    assert place(1000, 667, data, 768) != place(1000, 667, data)
    small = replace(data, no_upscale=True)
    assert place(1000, 667, small, 768) == place(1000, 667, DataConfig(resolution=768, no_upscale=True))
    assert place(10, 20, replace(data, bucket=False), 768).bucket == Bucket(768, 768)


def reference(case):
    return DataConfig(
        resolution=case["resolution"],
        bucket_minimum=case["minimum"],
        bucket_maximum=case["maximum"],
        bucket_step=case["step"],
    )


@pytest.mark.parametrize("case", REFERENCE["cases"], ids=lambda case: str(case["resolution"]))
def test_sizes_are_those_of_sd_scripts(case):
    sizes = bucket_sizes(reference(case))
    assert [[size.width, size.height] for size in sizes] == case["buckets"]


@pytest.mark.parametrize("case", REFERENCE["cases"], ids=lambda case: str(case["resolution"]))
def test_choices_are_those_of_sd_scripts(case):
    data = reference(case)
    assert len(case["upscale"]) > 200
    for width, height, *expected in case["upscale"]:
        placement = place(width, height, data)
        chosen = [placement.bucket.width, placement.bucket.height, *placement.scaled]
        if chosen != expected:
            # Two buckets are equally near: here the larger one counts, there the one that comes first.
            ratio, (across, down) = width / height, expected[:2]
            assert abs(ratio - chosen[0] / chosen[1]) == abs(ratio - across / down)
            assert chosen[0] * chosen[1] > across * down


@pytest.mark.parametrize("case", REFERENCE["cases"], ids=lambda case: str(case["resolution"]))
def test_choices_without_enlarging_are_those_of_sd_scripts(case):
    data = replace(reference(case), no_upscale=True)
    same = 0
    for width, height, *expected in case["no_upscale"]:
        placement = place(width, height, data)
        chosen = [placement.bucket.width, placement.bucket.height, *placement.scaled]
        same += chosen == expected
        if 0 in expected:
            # A side is shorter than one step: there the bucket has no area or an assertion fails, here it is enlarged.
            assert min(width, height) < case["step"] or max(expected) == 0
            assert min(chosen) >= case["step"]
        elif chosen != expected:
            # There the longest side of a bucket has no meaning without enlarging; here it cuts the bucket.
            assert max(expected[:2]) > case["maximum"]
            assert chosen == [min(case["maximum"], side) for side in expected[:2]] + expected[2:]
    assert same > 160


@st.composite
def configurations(draw):
    resolution = draw(st.integers(64, 1536))
    step = 8 * draw(st.integers(1, min(32, resolution // 8)))
    return DataConfig(
        resolution=resolution,
        bucket_step=step,
        bucket_minimum=draw(st.integers(64, 2048)),
        bucket_maximum=draw(st.integers(resolution, 4096)),
        no_upscale=draw(st.booleans()),
    )


@settings(max_examples=100, deadline=None)
@given(data=configurations(), width=st.integers(1, 6000), height=st.integers(1, 6000))
def test_every_picture_covers_its_bucket(data, width, height):
    placement = place(width, height, data)
    bucket, (across, down), (left, top) = placement.bucket, placement.scaled, placement.crop
    assert placement == place(width, height, data)
    assert placement.original == (width, height)
    assert bucket.width % 8 == 0
    assert bucket.height % 8 == 0
    assert across >= bucket.width > 0
    assert down >= bucket.height > 0
    assert 0 <= left <= across - bucket.width
    assert 0 <= top <= down - bucket.height
    assert abs(left - (across - bucket.width - left)) <= 1  # centred
    assert abs(top - (down - bucket.height - top)) <= 1
    # The shape is kept: one side is exact, the other rounded to a whole pixel.
    assert min(abs(across - down * width / height), abs(down - across * height / width)) <= 0.5 + 1e-6
    assert max(bucket.width, bucket.height) <= max(data.bucket_maximum, data.bucket_step)


@settings(max_examples=100, deadline=None)
@given(data=configurations(), width=st.integers(1, 6000), height=st.integers(1, 6000))
def test_no_upscale_never_enlarges(data, width, height):
    placement = place(width, height, replace(data, no_upscale=True))
    bucket = placement.bucket
    if min(width, height) >= data.bucket_step < min(bucket.width, bucket.height):
        assert placement.scaled[0] <= width
        assert placement.scaled[1] <= height
        # Sides are rounded to whole pixels before they are cut to steps, as in sd-scripts.
        assert bucket.width * bucket.height <= data.resolution**2 + 2 * (bucket.width + bucket.height)


@settings(max_examples=100, deadline=None)
@given(data=configurations(), width=st.integers(1, 6000), height=st.integers(1, 6000))
def test_no_other_bucket_is_nearer(data, width, height):
    data = replace(data, no_upscale=False)
    chosen = place(width, height, data).bucket
    distance = abs(width / height - chosen.width / chosen.height)
    if (width, height) != (chosen.width, chosen.height):
        assert all(abs(width / height - b.width / b.height) >= distance for b in bucket_sizes(data))


@settings(max_examples=100, deadline=None)
@given(data=configurations())
def test_areas_are_near_resolution_squared(data):
    sizes, longest = bucket_sizes(data), data.bucket_maximum // data.bucket_step * data.bucket_step
    assert len(sizes) == len(set(sizes))
    assert {Bucket(b.height, b.width) for b in sizes} == set(sizes)
    for bucket in sizes:
        area, longer = bucket.width * bucket.height, max(bucket.width, bucket.height)
        assert area <= data.resolution**2
        if bucket.width == bucket.height:
            assert bucket.width > data.resolution - data.bucket_step
        elif longer < longest:
            assert area > data.resolution**2 - longer * data.bucket_step
