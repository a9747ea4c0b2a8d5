"""How much an image's style differs from another's: colours, contrast and texture, wherever in the image they are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LEVELS = 4
"""Octaves of texture that are told apart: details of 2, 4, 8 and 16 pixels; what is larger counts as contrast."""

Numbers = NDArray[np.float64]


def style(image: Image.Image) -> Numbers:
    """Return an image's style, (3 · (LEVELS + 2),) float64, grey levels of 255.

    For each channel of YCbCr (JPEG's): its mean, the standard deviation of each octave of detail, and that of what is
    larger. Mean and spread by channel are what Reinhard et al. 2001 ("Color transfer between images") move from one
    image to another as its look; the spread by octave is the first of the statistics by which Heeger and Bergen 1995
    ("Pyramid-based texture analysis/synthesis") tell textures apart. An octave is the difference between an image and
    its means over squares of 2 × 2 (Haar's wavelet), so that the squares of a channel's spreads add up to its variance.
    Nothing depends on where something is, by more than the grid of 16 pixels: an image and its mirror have one style.
    Rows and columns beyond a multiple of 16 are left out; an image smaller than that has fewer octaves, the others 0.
    """
    pixels = np.asarray(image.convert("RGB").convert("YCbCr"), np.float64)
    step = 2**LEVELS
    if min(pixels.shape[:2]) >= step:
        pixels = pixels[: pixels.shape[0] // step * step, : pixels.shape[1] // step * step]
    means = pixels.mean(axis=(0, 1))
    octaves = np.zeros((LEVELS, 3))
    for level in range(LEVELS):
        height, width = (size // 2 * 2 for size in pixels.shape[:2])
        if not height or not width:
            break
        pixels = pixels[:height, :width]
        small = pixels.reshape(height // 2, 2, width // 2, 2, 3).mean(axis=(1, 3))
        octaves[level] = (pixels - small.repeat(2, axis=0).repeat(2, axis=1)).std(axis=(0, 1))
        pixels = small
    return np.concatenate((means, octaves.ravel(), pixels.std(axis=(0, 1))))


def drift(image: Image.Image, base: Image.Image) -> float:
    """Return how far an image's style is from another's: the Euclidean distance of `style`, grey levels.

    An image that is brighter by 10 and else the same is 10 away.
    """
    return float(np.linalg.norm(style(image) - style(base)))
