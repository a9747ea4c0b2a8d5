"""How one picture lies on another: stretched and shifted along each axis, found by least squares.

Gauss–Newton on the grey levels (Lucas and Kanade, 1981), with Cauchy weights, so that a part that was changed does not
pull the rest aside. Coordinates run from 0 to 1 along each side; a point x of the second picture lies at
scale · (x - ½) + ½ + shift in the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.float32]
Box = tuple[float, float, float, float]

_LARGEST_SHIFT = 0.1
_LARGEST_SCALE = 1.18  # beyond crops of 5 % on all sides
_STEPS = ((3, 8), (1, 5))  # (cells of the pictures taken together, steps): coarse first


@dataclass(frozen=True)
class Alignment:
    """Where the second picture lies in the first. across, down: (scale, shift), the second's sides being 1."""

    across: tuple[float, float]
    down: tuple[float, float]

    @cached_property
    def boxes(self) -> tuple[Box, Box]:
        """What both show: (left, top, right, bottom) in the first and in the second, of 1."""
        left, right, own_left, own_right = _overlap(*self.across)
        top, bottom, own_top, own_bottom = _overlap(*self.down)
        return (own_left, own_top, own_right, own_bottom), (left, top, right, bottom)


def _overlap(scale: float, shift: float) -> tuple[float, float, float, float]:
    """Return begin and end of what both show along one axis, in the second and in the first."""
    begin = max(0.0, (-0.5 - shift) / scale + 0.5)
    end = min(1.0, (0.5 - shift) / scale + 0.5)
    return begin, end, max(0.0, scale * (begin - 0.5) + 0.5 + shift), min(1.0, scale * (end - 0.5) + 0.5 + shift)


def of_window(window: Box, within: bool) -> Alignment:
    """Return the alignment of a picture that is a window of the other. within: of the first, otherwise of the second."""
    left, top, right, bottom = window
    across = (right - left, (left + right - 1) / 2)
    down = (bottom - top, (top + bottom - 1) / 2)
    if not within:
        across, down = ((1 / scale, -shift / scale) for scale, shift in (across, down))
    return Alignment(across, down)


def refine(first: Grey, second: Grey, start: Alignment) -> Alignment:
    """Return how the second picture lies in the first. Both: (N, N) grey levels, N a multiple of 3."""
    found = np.array([*start.across, *start.down])
    for together, steps in _STEPS:
        some, other = _together(first, together), _together(second, together)
        for _ in range(steps):
            change = _step(some, other, found)
            found = found + change
            found[[0, 2]] = np.clip(found[[0, 2]], 1 / _LARGEST_SCALE, _LARGEST_SCALE)
            found[[1, 3]] = np.clip(found[[1, 3]], -_LARGEST_SHIFT, _LARGEST_SHIFT)
            if np.abs(change).max() < 2e-4:
                break
    return Alignment((float(found[0]), float(found[1])), (float(found[2]), float(found[3])))


def warp(first: Grey, alignment: Alignment) -> tuple[Grey, NDArray[np.bool_]]:
    """Return the first picture as it lies under the second, and where it does: both (N, N). Linear in between."""
    size = len(first)
    rows, inside_rows = _interpolation(*alignment.down, size)
    columns, inside_columns = _interpolation(*alignment.across, size)
    return rows @ first @ columns.T, inside_rows[:, None] & inside_columns[None]


def _together(grey: Grey, cells: int) -> Grey:
    size = len(grey) // cells
    means: Grey = grey.reshape(size, cells, size, cells).mean(axis=(1, 3), dtype=np.float32)
    return means


def _interpolation(scale: float, shift: float, size: int) -> tuple[Grey, NDArray[np.bool_]]:
    """Return the matrix that resamples one axis, and which of its results lie inside the picture."""
    place = (scale * ((np.arange(size) + 0.5) / size - 0.5) + 0.5 + shift) * size - 0.5
    inside = (place >= 0) & (place <= size - 1)
    below = np.clip(np.floor(place).astype(np.intp), 0, size - 2)
    part = np.clip(place - below, 0, 1).astype(np.float32)
    matrix = np.zeros((size, size), np.float32)
    matrix[np.arange(size), below] = 1 - part
    matrix[np.arange(size), below + 1] = part
    return matrix, inside


def _step(first: Grey, second: Grey, found: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the change of (scale, shift, scale, shift) that fits the grey levels better."""
    size = len(first)
    warped, inside = warp(first, Alignment((found[0], found[1]), (found[2], found[3])))
    if inside.sum() < 16:
        return np.zeros(4)
    down, across = np.gradient(warped)
    rest = second - warped
    steep = across * across + down * down
    # The noise is measured where there is something to see: elsewhere any alignment fits.
    edges = inside & (steep >= np.quantile(steep[inside], 0.7))
    noise = max(4.0, 1.5 * float(np.median(np.abs(rest[edges]))))
    weight = (inside / (1 + (rest / noise) ** 2)).ravel()
    centre = ((np.arange(size) + 0.5) / size - 0.5).astype(np.float32)
    across, down = across * (size / found[0]), down * (size / found[2])
    slopes = np.stack([across * centre[None], across, down * centre[:, None], down]).reshape(4, -1)
    weighted = slopes * weight
    normal = (weighted @ slopes.T).astype(np.float64)
    damping = np.diag(np.diag(normal)) * 1e-3 + np.eye(4) * 1e-6
    change: NDArray[np.float64] = np.linalg.solve(normal + damping, (weighted @ rest.ravel()).astype(np.float64))
    return np.clip(change, -0.03, 0.03)
