"""Picking an epoch and a weight from what the images of each show: quality, what is tied with the best, usable weights.

Every cell (an adapter file at a weight) has images of the same prompts and seeds, and so has the base model. Cells are
therefore compared image by image: in each draw of the bootstrap (Efron 1979) all cells keep the same images. With few
images many cells are tied with the best one; of those the earliest epoch is taken, which has cost least and forgot least.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lib_lora_trainer.base.seeds import derive

Values = NDArray[np.float64]

KINDS = ("recall", "control", "bleed", "mixed", "defects", "copies")
"""What is measured of each image, in [0, 1], as `Cell` has it."""
DRAWS = 1000
SURE = 0.9
"""A cell is worse than the best one when it is so in this share of the draws."""
NEAR = 0.1
"""Cells whose quality is below the best one by more than this share of it are not tied with it, however few the images."""
ENOUGH = 0.7
"""Of the recall that the dataset's own pictures have: from here on an adapter has learned its subject."""
USABLE = 0.8
"""A weight is usable while the traits come, and all goes well, in this share of what the best weight does."""
SPARE = 0.05
"""Rates of the base model below this are no ground to judge a loss by."""
Z = 1.645
"""Of the standard normal distribution: intervals hold 90 %."""


@dataclass(frozen=True)
class Cell:
    """What the images of one adapter file at one weight show, image by image, each in [0, 1].

    step: by which files are in order of training; label: the file's name. recall: share of the trigger's traits that
    the trigger alone brings; control: share of the prompted tags that are obeyed; bleed: share of the traits that come
    without the trigger; mixed: share of the traits of other triggers that come with one trigger, empty where there is
    only one. defects: 1 for a damaged image, over all images; copies: 1 for one that repeats a picture of the dataset.
    similarity: to the dataset, mean cosine of what the tagger says, in [0, 1]; nearest: mean distance to the nearest
    picture of the dataset, in units of that between the dataset's own pictures. change: mean difference from the base
    model's images, grey levels. traits: rate of each trait where its trigger is prompted.
    """

    label: str
    step: int
    epoch: int
    weight: float
    recall: tuple[float, ...]
    control: tuple[float, ...] = ()
    bleed: tuple[float, ...] = ()
    mixed: tuple[float, ...] = ()
    defects: tuple[float, ...] = ()
    copies: tuple[float, ...] = ()
    similarity: float = 0.0
    nearest: float = 1.0
    change: float = 255.0
    traits: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """All cells beside the base model. ceiling: recall of the dataset's own pictures, in (0, 1]; no adapter has more."""

    base: Cell
    cells: tuple[Cell, ...]
    ceiling: float = 1.0


@dataclass(frozen=True)
class Rate:
    """A mean of values in [0, 1] with the interval that holds it in 90 % of all cases."""

    mean: float
    low: float
    high: float
    images: int


@dataclass(frozen=True)
class Gain:
    """How much more one cell has of something than another, on average over the same images, with its 90 % interval."""

    mean: float
    low: float
    high: float

    @property
    def more(self) -> bool:
        """Whether it is more, and not by chance."""
        return self.low > 0

    @property
    def less(self) -> bool:
        """Whether it is less, and not by chance."""
        return self.high < 0


@dataclass(frozen=True)
class Quality:
    """How good a cell is, in [0, 1], with the bootstrap's 90 % interval; tied: with the best one."""

    value: float
    low: float
    high: float
    tied: bool


@dataclass(frozen=True)
class Choice:
    """The recommended cell, the usable weights of its file, and the quality of every cell in the trial's order."""

    cell: Cell
    lowest: float
    highest: float
    qualities: tuple[Quality, ...]


def rate(values: Sequence[float]) -> Rate:
    """Return the mean with Wilson's score interval (Wilson 1927), an image counting as one trial.

    Shares within [0, 1] vary less than zeros and ones of the same mean, so that for them the interval is on the wide
    side. Without images nothing is known: 0 to 1.
    """
    count = len(values)
    if count == 0:
        return Rate(0.0, 0.0, 1.0, 0)
    mean = sum(values) / count
    middle = (mean + Z * Z / (2 * count)) / (1 + Z * Z / count)
    reach = Z / (1 + Z * Z / count) * math.sqrt(mean * (1 - mean) / count + Z * Z / (4 * count * count))
    return Rate(mean, max(0.0, min(mean, middle - reach)), min(1.0, max(mean, middle + reach)), count)


def gain(mine: Sequence[float], others: Sequence[float]) -> Gain:
    """Return how much more `mine` has, image by image; what has no images gains nothing.

    The interval is Student's for paired differences, of which a spread of at least |mean| / √n is assumed: few images
    that all agree are no certainty.
    """
    count = len(mine)
    if count != len(others):
        raise ValueError(f"{count} images cannot be compared with {len(others)}")
    if count == 0:
        return Gain(0.0, 0.0, 0.0)
    differences = np.asarray(mine, np.float64) - np.asarray(others, np.float64)
    mean = float(differences.mean())
    if count == 1:
        return Gain(mean, -1.0, 1.0)
    spread = max(float(differences.std(ddof=1)), abs(mean) / math.sqrt(count))
    reach = _student(count - 1) * spread / math.sqrt(count)
    return Gain(mean, max(-1.0, mean - reach), min(1.0, mean + reach))


def quality(trial: Trial, cell: Cell) -> float:
    """Return how good a cell is: recall, less what is lost or spoiled beside the base model; in [0, 1].

    recall / ceiling · control / base's control · (1 - bleed gained / ceiling) · (1 - mixed gained) · (1 - defects
    gained) · (1 - copies gained). Each factor is a share of what is wanted, so that their product is one as well.
    """
    means = {kind: np.array([_mean(getattr(cell, kind))]) for kind in KINDS}
    base = {kind: np.array([_mean(getattr(trial.base, kind))]) for kind in KINDS}
    return float(_product(means, base, trial.ceiling)[0])


def choose(trial: Trial) -> Choice:
    """Return the recommended cell: of all that are tied with the best the earliest file, of it the weight nearest to 1.

    Where some of the tied have learned enough, one that has not is no candidate: a subject that is not there is not made
    up for by doing no harm (test_of_what_is_tied_the_file_that_has_learned_is_chosen).
    Raises ValueError for a trial without cells.
    """
    if not trial.cells:
        raise ValueError("there is nothing to choose from")
    values = np.array([quality(trial, cell) for cell in trial.cells])
    drawn = _drawn(trial)
    best = int(np.argmax(values))
    worse = (drawn < drawn[best]).mean(axis=1) >= SURE
    tied = (values >= values[best] * (1 - NEAR)) & (~worse | (values == values[best]))
    lows, highs = np.quantile(drawn, (0.05, 0.95), axis=1)
    qualities = tuple(
        Quality(float(value), float(min(low, value)), float(max(high, value)), bool(each))
        for value, low, high, each in zip(values, lows, highs, tied, strict=True)
    )
    candidates = [place for place in range(len(values)) if tied[place]]
    candidates = [place for place in candidates if has_learned(trial, trial.cells[place])] or candidates
    first = min(trial.cells[place].step for place in candidates)
    chosen = min(
        (place for place in candidates if trial.cells[place].step == first),
        key=lambda place: (round(abs(trial.cells[place].weight - 1), 6), trial.cells[place].weight),
    )
    cell = trial.cells[chosen]
    lowest, highest = usable(trial, cell, float(values[chosen]))
    return Choice(cell, lowest, highest, qualities)


def has_learned(trial: Trial, cell: Cell) -> bool:
    """Return whether a cell has learned enough of its subject."""
    return _mean(cell.recall) >= ENOUGH * trial.ceiling


def usable(trial: Trial, cell: Cell, reached: float) -> tuple[float, float]:
    """Return the lowest and the highest weight around a cell's at which its file has nearly the cell's quality.

    reached: the cell's quality. Weights in between all have it; beyond the last one nothing was looked at.
    """
    row = sorted((each for each in trial.cells if each.label == cell.label), key=lambda each: each.weight)
    good = [each is cell or quality(trial, each) >= USABLE * reached for each in row]
    low = high = next(place for place, each in enumerate(row) if each is cell)
    while low > 0 and good[low - 1]:
        low -= 1
    while high < len(row) - 1 and good[high + 1]:
        high += 1
    return row[low].weight, row[high].weight


def at_weight(trial: Trial, weight: float = 1.0) -> tuple[Cell, ...]:
    """Return for every file, in the order of training, its cell whose weight is nearest to one."""
    found: dict[str, Cell] = {}
    for cell in trial.cells:
        known = found.get(cell.label)
        if known is None or abs(cell.weight - weight) < abs(known.weight - weight):
            found[cell.label] = cell
    return tuple(sorted(found.values(), key=lambda cell: cell.step))


def _drawn(trial: Trial) -> Values:
    """Return the quality of every cell in every draw: (cells, DRAWS). All cells and the base have the same images."""
    generator = np.random.default_rng(derive(1, "pick"))
    means: dict[str, Values] = {}
    base: dict[str, Values] = {}
    # What is measured of the same images is drawn together: recall, what is mixed into it, and copies have equal counts.
    indices: dict[int, NDArray[np.int64]] = {}
    for kind in KINDS:
        rows = np.array([getattr(cell, kind) for cell in (trial.base, *trial.cells)], np.float64)
        count = rows.shape[1]
        if count == 0:
            means[kind] = np.zeros((len(trial.cells), DRAWS))
            base[kind] = np.zeros((1, DRAWS))
            continue
        if count not in indices:
            indices[count] = generator.integers(0, count, (DRAWS, count))
        drawn = rows[:, indices[count]].mean(axis=2)
        base[kind], means[kind] = drawn[:1], drawn[1:]
    return _product(means, base, trial.ceiling)


def _product(means: Mapping[str, Values], base: Mapping[str, Values], ceiling: float) -> Values:
    grounded = base["control"] >= SPARE
    obeyed = np.where(grounded, means["control"] / np.where(grounded, base["control"], 1.0), 1.0)
    result = np.clip(means["recall"] / ceiling, 0, 1) * np.clip(obeyed, 0, 1)
    result = result * (1 - np.clip((means["bleed"] - base["bleed"]) / ceiling, 0, 1))
    for kind in ("mixed", "defects", "copies"):
        result = result * (1 - np.clip(means[kind] - base[kind], 0, 1))
    return np.asarray(result, np.float64)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _student(freedom: int) -> float:
    """Return the 95 % quantile of Student's t by Cornish and Fisher's expansion (Abramowitz and Stegun 26.7.5)."""
    if freedom < 3:  # where the expansion is too far off: the tabulated values
        return (6.3138, 2.92)[freedom - 1]
    n, x = float(freedom), Z
    return (
        x
        + (x**3 + x) / (4 * n)
        + (5 * x**5 + 16 * x**3 + 3 * x) / (96 * n**2)
        + (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / (384 * n**3)
    )
