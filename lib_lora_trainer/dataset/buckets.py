"""Sizes that pictures are trained at, and where each picture lands.

The sizes and their choice follow sd-scripts (library/model_util.py `make_bucket_resolutions`, library/train_util.py
`BucketManager.select_bucket`, at 48d368f). Deliberate differences: the crop recorded is the one that is made
(`test_the_crop_on_the_right_axis`); a minimum above the resolution is lowered instead of refused
(`test_a_small_resolution_lowers_the_shortest_side`); of two equally near buckets the larger one counts
(`test_choices_are_those_of_sd_scripts`); `no_upscale` respects the longest side, and still enlarges a picture narrower
than one step (`test_choices_without_enlarging_are_those_of_sd_scripts`).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from lib_lora_trainer.base.errors import ConfigError, Problem
from lib_lora_trainer.config.data import DataConfig

LATENT_CELL = 8  # one latent pixel covers 8×8 picture pixels


@dataclass(frozen=True, order=True)
class Bucket:
    """A training size in pixels; both sides are multiples of 8."""

    width: int
    height: int


@dataclass(frozen=True)
class Placement:
    """How a picture comes to its bucket's size.

    original: (width, height) of the upright picture; scaled: (width, height) after scaling, covers the bucket.
    crop: (left, top) of the bucket's window in the scaled picture, pixels.
    """

    bucket: Bucket
    scaled: tuple[int, int]
    crop: tuple[int, int]
    original: tuple[int, int]


def resolutions(data: DataConfig) -> tuple[tuple[str, int], ...]:
    """Return every resolution in the settings with the setting it stands in."""
    more = [(f"data.more_resolutions[{index}]", size) for index, size in enumerate(data.more_resolutions)]
    own = [
        (f"data.sources[{index}].resolution", source.resolution)
        for index, source in enumerate(data.sources)
        if source.resolution is not None
    ]
    return (("data.resolution", data.resolution), *more, *own)


def bucket_problems(data: DataConfig) -> tuple[Problem, ...]:
    """Return an error for every size setting that no bucket can be built from."""
    if not data.bucket:
        return tuple(_not_square(where, size) for where, size in resolutions(data) if size % LATENT_CELL)
    smallest, largest = (pick(size for _, size in resolutions(data)) for pick in (min, max))
    problems = []
    if data.bucket_step % LATENT_CELL:
        text = f"{data.bucket_step} is not a multiple of {LATENT_CELL}."
        problems.append(Problem("error", "data.bucket_step", text, "Use 64, or 32 for SDXL."))
    if data.bucket_step > smallest:
        text = f"{data.bucket_step} is larger than the resolution {smallest}."
        problems.append(Problem("error", "data.bucket_step", text, "Use 64 or less."))
    if data.bucket_maximum < largest:
        text = f"{data.bucket_maximum} is smaller than the resolution {largest}."
        fix = f"Use {2 * largest}, or {largest} at least."
        problems.append(Problem("error", "data.bucket_maximum", text, fix))
    return tuple(problems)


def _not_square(where: str, size: int) -> Problem:
    below = size - size % LATENT_CELL
    fix = f"Use {below} or {below + LATENT_CELL}, or switch buckets on."
    return Problem("error", where, f"{size} is not a multiple of {LATENT_CELL}.", fix)


def bucket_sizes(data: DataConfig, resolution: int | None = None) -> tuple[Bucket, ...]:
    """Return the buckets of a resolution, `data.resolution` if none is given, sorted; none has a larger area than its
    square.

    The shortest side is min(bucket_minimum, resolution), the longest bucket_maximum, both rounded down to steps. A
    longest side near the resolution cuts the area of long buckets; twice the resolution leaves them whole.
    With `bucket` off there is one: the square of the resolution. With `no_upscale` pictures make their own buckets
    (see `place`); these are then the sizes they would have without it. Raises ConfigError for impossible settings.
    """
    problems = bucket_problems(data)
    if problems:
        raise ConfigError("\n".join(str(problem) for problem in problems))
    size = resolution or data.resolution
    if not data.bucket:
        return (Bucket(size, size),)
    return _sizes(size, data.bucket_step, data.bucket_minimum, data.bucket_maximum)


@functools.lru_cache(maxsize=64)
def _sizes(resolution: int, step: int, minimum: int, maximum: int) -> tuple[Bucket, ...]:
    area = resolution**2
    shortest = _whole_steps(min(minimum, resolution), step)
    longest = _whole_steps(maximum, step)
    square = _whole_steps(resolution, step)
    sizes = {(square, square)}
    for width in range(shortest, longest + 1, step):
        height = min(longest, area // width // step * step)
        if height >= shortest:
            sizes |= {(width, height), (height, width)}
    return tuple(Bucket(width, height) for width, height in sorted(sizes))


def _whole_steps(length: int, step: int) -> int:
    """Return a length rounded down to whole steps, one step at least."""
    return max(step, length // step * step)


def place(width: int, height: int, data: DataConfig, resolution: int | None = None) -> Placement:
    """Return the bucket of an upright picture of `width` × `height` pixels, its scaling and its centred crop.

    resolution: of this placement, `data.resolution` if none is given; below it is meant wherever one is named.
    The bucket of exactly that size, else the one with the nearest width / height (the larger one if two are as near).
    `bucket` off: the square of the resolution; `no_upscale` has no meaning then.
    `no_upscale`: a picture with more pixels than resolution² is shrunk to it, give or take a rounded pixel row; then
    its sides are cut down to whole steps, that is its bucket. A side below one step is enlarged to one all the same.
    Raises ConfigError for impossible settings, ValueError for a size below 1×1.
    """
    if width < 1 or height < 1:
        raise ValueError(f"a picture cannot measure {width}×{height}")
    size = resolution or data.resolution
    sizes = bucket_sizes(data, size)
    if data.bucket and data.no_upscale:
        return _place_unenlarged(width, height, data, size)
    return _covering(width, height, _nearest(width, height, sizes))


def _nearest(width: int, height: int, sizes: tuple[Bucket, ...]) -> Bucket:
    if Bucket(width, height) in sizes:
        return Bucket(width, height)
    ratio = width / height
    return min(sizes, key=lambda size: (abs(ratio - size.width / size.height), -size.width * size.height, size.width))


def _covering(width: int, height: int, bucket: Bucket) -> Placement:
    """Return the placement with the smallest scaling that leaves no part of the bucket bare."""
    if width * bucket.height >= bucket.width * height:  # the picture is the wider one: the heights meet
        scaled = (_rounded_ratio(width * bucket.height, height), bucket.height)
    else:
        scaled = (bucket.width, _rounded_ratio(height * bucket.width, width))
    return _centred((width, height), scaled, bucket)


def _place_unenlarged(width: int, height: int, data: DataConfig, resolution: int) -> Placement:
    step, longest = data.bucket_step, _whole_steps(data.bucket_maximum, data.bucket_step)
    ratio, scaled = width / height, (width, height)
    if width * height > resolution**2:
        ideal = math.sqrt(resolution**2 * ratio)
        across = _whole_steps(round(ideal), step)
        down = _whole_steps(round(resolution**2 / ideal), step)
        by_width = (across, _rounded_ratio(across * height, width))
        by_height = (_rounded_ratio(down * width, height), down)
        scaled = min(by_height, by_width, key=lambda size: abs(ratio - _step_ratio(size, step)))
    bucket = Bucket(min(longest, _whole_steps(scaled[0], step)), min(longest, _whole_steps(scaled[1], step)))
    if scaled[0] < bucket.width or scaled[1] < bucket.height:
        return _covering(width, height, bucket)
    return _centred((width, height), scaled, bucket)


def _step_ratio(size: tuple[int, int], step: int) -> float:
    return _whole_steps(size[0], step) / _whole_steps(size[1], step)


def _rounded_ratio(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)


def _centred(original: tuple[int, int], scaled: tuple[int, int], bucket: Bucket) -> Placement:
    crop = ((scaled[0] - bucket.width) // 2, (scaled[1] - bucket.height) // 2)
    return Placement(bucket, scaled, crop, original)
