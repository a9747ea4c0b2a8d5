"""What a single exposure changes about a picture: where it is cropped, and its colours.

Every draw is addressed by the seed, its purpose and the image's place in the run, so a resumed run repeats it, and
switching one of them on changes no draw of another.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lib_lora_trainer.base.seeds import derive
from lib_lora_trainer.config.data import DataConfig
from lib_lora_trainer.dataset.buckets import Placement
from lib_lora_trainer.dataset.faces import Face, crops_faces

COLOR_SHARE = 1 / 3  # of the exposures
HUE_LIMIT = 16.0  # degrees: 8 of OpenCV's 180 hues
GAMMA_LIMITS = (0.95, 1.05)


@dataclass(frozen=True)
class Address:
    """Where a draw belongs: the run's seed and the image's place in the run, counted from 0."""

    seed: int
    position: int

    def random(self, purpose: str) -> random.Random:
        """Return the draws for one purpose."""
        return random.Random(derive(self.seed, purpose, self.position))


def crop(placement: Placement, face: Face | None, data: DataConfig, address: Address) -> Placement:
    """Return where one exposure of a picture lands: the same bucket, seen through another window.

    With a face and the face crop on: around the face. Else with random crop: anywhere in the scaled picture, each place
    as likely. Else unchanged. The placement describes the picture before it is mirrored, and is the crop that SDXL is
    told; sd-scripts tells it the middle whatever was cropped.
    """
    if face is not None and crops_faces(data):
        return _around(placement, face, data, address)
    if not data.random_crop:
        return placement
    draws = address.random("crop")
    (across, down), bucket = placement.scaled, placement.bucket
    left = draws.randint(0, across - bucket.width)
    return replace(placement, crop=(left, draws.randint(0, down - bucket.height)))


def _around(placement: Placement, face: Face, data: DataConfig, address: Address) -> Placement:
    """Return a window of the bucket's shape whose shorter side is some face sizes, with the face in its middle.

    How many is drawn evenly between the minimum and the maximum (sd-scripts, `crop_target` at 48d368f, draws the
    scaling evenly, so that close-ups come more often than the numbers say). As there, the window stays in the picture,
    and nothing is enlarged more than the bucket needs; with random crop the face leaves the middle, small shifts more
    often than large ones. The bucket stays: sd-scripts crops faces only without buckets.
    """
    draws = address.random("face crop")
    factor = draws.uniform(data.face_crop_minimum, data.face_crop_maximum)
    bucket, (width, height) = placement.bucket, placement.original
    least = max(bucket.width / width, bucket.height / height)
    scale = max(least, min(1.0, min(bucket.width, bucket.height) / (face.size * factor)))
    scaled = (max(bucket.width, round(width * scale)), max(bucket.height, round(height * scale)))
    lefts = []
    for whole, window, centre in (
        (scaled[0], bucket.width, face.x * scaled[0] / width),
        (scaled[1], bucket.height, face.y * scaled[1] / height),
    ):
        shift = 0.0
        if data.random_crop:
            furthest = max(centre, whole - centre)
            shift = draws.triangular(-furthest, furthest, 0.0)
        lefts.append(min(max(0, round(centre + shift - window / 2)), whole - window))
    return replace(placement, scaled=scaled, crop=(lefts[0], lefts[1]))


def color(pixels: NDArray[np.uint8], address: Address) -> NDArray[np.uint8]:
    """Return pixels (H, W, 3) as one exposure shows them: a third of the exposures have another hue or another gamma.

    Each of the two in half of those: the hue turned by up to 16° either way, or value^gamma with gamma from 0.95 to
    1.05 (value in [0, 1]). These are sd-scripts' amounts (`AugHelper.color_aug` at 48d368f); it raises values from 0 to
    255 to the power instead, so that white becomes grey or colours burn out (`test_gamma_keeps_black_and_white`).
    """
    draws = address.random("color")
    changed, by_hue = draws.random() < COLOR_SHARE, draws.random() < 0.5
    if not changed:
        return pixels
    values = pixels.astype(np.float32) / 255
    limits = (-HUE_LIMIT, HUE_LIMIT) if by_hue else GAMMA_LIMITS
    amount = draws.uniform(*limits)
    values = turn_hue(values, amount) if by_hue else values**amount
    return np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)


def turn_hue(values: NDArray[np.float32], degrees: float) -> NDArray[np.float32]:
    """Return RGB values (H, W, 3) in [0, 1] with every hue turned; saturation and value of HSV stay as they are."""
    red, green, blue = values[..., 0], values[..., 1], values[..., 2]
    highest = values.max(axis=-1)
    span = highest - values.min(axis=-1)
    divisor = np.where(span > 0, span, 1)
    hue = np.where(
        highest == red,
        (green - blue) / divisor,
        np.where(highest == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    hue = hue + degrees / 60
    channels = []
    for shift in (5, 3, 1):  # each channel is a trapezoid of the hue, a third of the circle apart
        place = (shift + hue) % 6
        channels.append(highest - span * np.clip(np.minimum(place, 4 - place), 0, 1))
    return np.stack(channels, axis=-1).astype(np.float32)
