"""Which pictures each epoch shows, and how often: whole repeats, fractional ones, and regularization in rotation.

All of it is a function of the seed and the epoch, counted from 1, so that any epoch can be asked for alone.

Fractional repeats. A picture with repeats r, number k of the n pictures of its folder in a shuffled order, has been
shown ⌈e·r - k/n⌉ times after e epochs. So with 0.5 every picture is shown in every second epoch, one half of the folder
in the odd epochs and the other half in the even ones; with 2.5 each is shown twice, and half of them a third time. The
folder as a whole has been shown ⌈n·e·r⌉ times (Hermite's identity): never more than one exposure off its due. EveryDream
draws the fractional part at random in every epoch, which leaves some pictures out for long; here none is
(`test_fractions_give_every_picture_its_due`).

Balanced regularization. The regularization pictures stand in one shuffled circle, a picture with more repeats more
often; each epoch takes as many as it shows training pictures, from where the epoch before ended. So surplus ones come in
later epochs, and too few are repeated with counts that differ by one at most. sd-scripts (library/train_util.py,
`DreamBoothDataset`, at 48d368f) never uses the surplus (`test_surplus_regularization_images_are_used`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from lib_lora_trainer.base.seeds import derive
from lib_lora_trainer.config.data import DataConfig
from lib_lora_trainer.dataset.views import View

UNIT = 1000  # repeats are counted in thousandths


@dataclass(frozen=True)
class _Due:
    """What one view is to be shown. repeats: in thousandths; number: k of n, its place among the folder's pictures."""

    repeats: int
    number: int
    of: int

    def until(self, epoch: int) -> int:
        """Return how often it has been shown when an epoch ends."""
        numerator = epoch * self.repeats * self.of - UNIT * self.number
        return -(-numerator // (UNIT * self.of))

    def within(self, epoch: int) -> int:
        """Return how often one epoch shows it."""
        return self.until(epoch) - self.until(epoch - 1)


@dataclass(frozen=True)
class Rotation:
    """The exposures of every epoch of a run.

    due: of each view; taken: whether it is shown as it is due, in parallel; else it stands in `circle`.
    circle: views in the order in which balanced regularization takes them, a view as often as it is due in a round.
    """

    due: tuple[_Due, ...]
    taken: tuple[bool, ...]
    circle: tuple[int, ...]

    def counts(self, epoch: int) -> list[int]:
        """Return how often an epoch shows each view."""
        counts = [due.within(epoch) if taken else 0 for due, taken in zip(self.due, self.taken, strict=True)]
        if self.circle:
            begin, wanted = self._taken_until(epoch - 1), sum(counts)
            rounds, rest = divmod(wanted, len(self.circle))
            if rounds:
                for view in self.circle:
                    counts[view] += rounds
            for place in range(begin, begin + rest):
                counts[self.circle[place % len(self.circle)]] += 1
        return counts

    @property
    def period(self) -> int:
        """After how many epochs the counts repeat; 1 when nothing rotates."""
        shown = [due for due, taken in zip(self.due, self.taken, strict=True) if taken]
        epochs = _shared_period(shown)
        if not self.circle:
            return epochs
        in_all = sum(due.repeats for due in shown) * epochs // UNIT
        return epochs * (len(self.circle) // math.gcd(in_all, len(self.circle)))

    def _taken_until(self, epoch: int) -> int:
        return sum(due.until(epoch) for due, taken in zip(self.due, self.taken, strict=True) if taken)


def rotation(views: Sequence[View], data: DataConfig, seed: int) -> Rotation:
    """Return what every epoch shows of the views."""
    due = _dues(views, seed)
    balanced = data.balance_regularization and any(view.regularization for view in views)
    taken = tuple(not (balanced and view.regularization) for view in views)
    return Rotation(due, taken, _circle(due, [index for index, yes in enumerate(taken) if not yes], seed))


def _dues(views: Sequence[View], seed: int) -> tuple[_Due, ...]:
    folders: dict[str, list[int]] = {}
    for view in views:
        if round(view.repeats * UNIT) % UNIT:
            folders.setdefault(view.concept, []).append(view.item)
    numbers: dict[int, tuple[int, int]] = {}
    for concept, items in sorted(folders.items()):
        once = sorted(set(items))
        random.Random(derive(seed, f"fractions of {concept}")).shuffle(once)
        numbers |= {item: (number, len(once)) for number, item in enumerate(once)}
    return tuple(_Due(round(view.repeats * UNIT), *numbers.get(view.item, (0, 1))) for view in views)


def _circle(due: Sequence[_Due], views: list[int], seed: int) -> tuple[int, ...]:
    """Return one round of the views: in each of its epochs all that are due, then all that are due twice, and so on.

    Views of equal repeats alternate strictly in it, so that any stretch of the circle shows them equally often, give or
    take one.
    """
    order = list(views)
    random.Random(derive(seed, "regularization")).shuffle(order)
    circle: list[int] = []
    for epoch in range(1, _shared_period([due[view] for view in order]) + 1):
        counts = {view: due[view].within(epoch) for view in order}
        for time in range(max(counts.values(), default=0)):
            circle += [view for view in order if counts[view] > time]
    return tuple(circle)


def _shared_period(dues: Sequence[_Due]) -> int:
    return math.lcm(*(UNIT // math.gcd(due.repeats, UNIT) for due in dues))
