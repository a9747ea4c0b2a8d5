"""What is measured of one image: which tags it shows, whether it is damaged, whether it repeats a picture of the dataset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib_lora_trainer.tagging.labels import RATING, Label

Vector = NDArray[np.float32]

BLANK = 2.0
"""Standard deviation of the brightness, grey levels, below which an image shows nothing: black from NaN, or fog."""
SLACK = 0.25
"""A measure is out of range beyond what the reference images span, widened on each side by this share of it, or of its
median where that is more: few pictures that are all alike span next to nothing."""
SIDE = 16
"""Side of the pictures that copies are looked for with, pixels: composition and colours, no detail."""
COPY = 0.5
"""An image this much nearer to a picture than the dataset's own pictures are to each other repeats it."""
FAR = 2**0.5
"""Distance of pictures that have nothing in common."""


@dataclass(frozen=True)
class Traces:
    """What damage shows in. brightness spread and roughness in grey levels of 255, the others in [0, 1].

    contrast: standard deviation of the brightness; saturation: mean of HSV's; clipped: share of pixels with a channel at
    0 or 255; roughness: mean difference of a pixel's brightness from the mean of its four neighbours.
    """

    contrast: float
    saturation: float
    clipped: float
    roughness: float


@dataclass(frozen=True)
class Span:
    """The lowest and the highest value of each trace in images that are in order, widened by `SLACK`."""

    lowest: Traces
    highest: Traces


def traces(image: Image.Image) -> Traces:
    """Return an image's traces of damage."""
    rgb = np.asarray(image.convert("RGB"), np.float32)
    grey = rgb @ np.array([0.299, 0.587, 0.114], np.float32)
    top, bottom = rgb.max(axis=2), rgb.min(axis=2)
    saturation = np.divide(top - bottom, top, out=np.zeros_like(top), where=top > 0)
    rough = 0.0
    if min(grey.shape) >= 3:
        inner = grey[1:-1, 1:-1]
        around = (grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]) / 4
        rough = float(np.abs(inner - around).mean())
    clipped = float(((top >= 255) | (bottom <= 0)).mean())
    return Traces(float(grey.std()), float(saturation.mean()), clipped, rough)


def span(references: Iterable[Traces]) -> Span:
    """Return what images that are in order span: the base model's and the dataset's. Raises ValueError for none."""
    rows = np.array([list(vars(each).values()) for each in references], np.float64)
    if not len(rows):
        raise ValueError("no references")
    low, high = rows.min(axis=0), rows.max(axis=0)
    reach = SLACK * np.maximum(high - low, np.median(rows, axis=0))
    return Span(Traces(*(low - reach).tolist()), Traces(*(high + reach).tolist()))


def defects(found: Traces, within: Span) -> tuple[str, ...]:
    """Return what is wrong with an image: `blank`, or the names of traces that are out of range."""
    if found.contrast < BLANK:
        return ("blank",)
    return tuple(
        name
        for name, value in vars(found).items()
        if not getattr(within.lowest, name) <= value <= getattr(within.highest, name)
    )


def thumbnail(image: Image.Image, shape: tuple[int, int]) -> Vector:
    """Return a picture as a vector of length 1, (3 · SIDE²,) float32: its middle in the shape (width, height), small.

    Without its mean, so that neither brightness nor contrast counts; zero for a picture of one colour.
    """
    scale = min(image.width / shape[0], image.height / shape[1])
    width, height = shape[0] * scale, shape[1] * scale
    left, top = (image.width - width) / 2, (image.height - height) / 2
    box = (left, top, left + width, top + height)
    small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX, box=box)
    values = np.asarray(small, np.float32).reshape(-1, 3)
    values = (values - values.mean(axis=0)).ravel()
    length = float(np.linalg.norm(values))
    return np.zeros_like(values) if length < 1e-3 else values / length


def mirrored(vector: Vector) -> Vector:
    """Return the thumbnail of the picture in a mirror."""
    return np.ascontiguousarray(vector.reshape(SIDE, SIDE, 3)[:, ::-1]).ravel()


def distances(vector: Vector, others: Sequence[Vector]) -> NDArray[np.float32]:
    """Return how far a thumbnail is from others, the nearer of each and its mirror image; (N,) float32 in [0, √2 + …].

    The Euclidean distance of unit vectors: √(2 - 2 · correlation); √2 from a picture of one colour.
    """
    if not len(others):
        return np.zeros(0, np.float32)
    stack = np.stack(list(others))
    products = np.maximum(stack @ vector, stack @ mirrored(vector))
    empty = (np.abs(stack).sum(axis=1) == 0) | (not vector.any())
    result: NDArray[np.float32] = np.where(empty, FAR, np.sqrt(np.maximum(0.0, 2 - 2 * products))).astype(np.float32)
    return result


def apart(vectors: Sequence[Vector]) -> float:
    """Return how far a dataset's pictures usually are from the nearest other one: the median; FAR for less than two."""
    if len(vectors) < 2:
        return FAR
    nearest = []
    for place, vector in enumerate(vectors):
        others = [*vectors[:place], *vectors[place + 1 :]]
        nearest.append(float(distances(vector, others).min()))
    return max(float(np.median(nearest)), 1e-3)


def nearest(vector: Vector, dataset: Sequence[Vector], usual: float) -> float:
    """Return the distance to the nearest picture of a dataset in units of the usual one, see `apart`; 0: the same."""
    found = distances(vector, dataset)
    return float(found.min()) / usual if len(found) else FAR / usual


def similarity(scores: Vector, dataset: Vector, labels: Sequence[Label]) -> float:
    """Return how much an image shows what a dataset shows: the cosine of what the tagger says, in [0, 1].

    scores: (labels,) of the image; dataset: (labels,) mean of the dataset's pictures. Ratings do not count.
    """
    columns = [place for place, label in enumerate(labels) if label.category != RATING]
    one, other = scores[columns].astype(np.float64), dataset[columns].astype(np.float64)
    scale = float(np.linalg.norm(one) * np.linalg.norm(other))
    return min(1.0, max(0.0, float(one @ other) / scale)) if scale else 0.0


def change(image: Image.Image, base: Image.Image) -> float:
    """Return the mean difference of two images of one size, grey levels of 255."""
    one, other = (np.asarray(each.convert("RGB"), np.float32) for each in (image, base))
    return float(np.abs(one - other).mean()) if one.shape == other.shape else 255.0
