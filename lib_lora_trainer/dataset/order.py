"""The order in which a run shows the pictures, computed from the seed and the epoch alone."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lib_lora_trainer.base.seeds import derive
from lib_lora_trainer.config.data import DataConfig
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.dataset.buckets import Bucket
from lib_lora_trainer.dataset.exposures import Rotation, rotation
from lib_lora_trainer.dataset.views import View


@dataclass(frozen=True)
class Example:
    """One exposure of one picture.

    view: index into the views; flipped: shown mirrored; exposure: which one of this epoch, from 0.
    """

    view: int
    flipped: bool
    exposure: int


@dataclass(frozen=True)
class Batch:
    """Pictures of one size that are shown together; 1 to batch_size of them."""

    bucket: Bucket
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Step:
    """One optimizer step: accumulation × processes batches, fewer at the end of an epoch.

    number and epoch count from 1; first_image: how many images the run had seen before.
    """

    number: int
    epoch: int
    last_of_epoch: bool
    first_image: int
    batches: tuple[Batch, ...]

    @property
    def images(self) -> int:
        """Images in this step."""
        return sum(len(batch.examples) for batch in self.batches)


@dataclass(frozen=True)
class Length:
    """How long a run is. images: seen over all epochs, cut at the step limit; epochs: those that it begins."""

    images: int
    steps: int
    epochs: int


def epoch_batches(views: Sequence[View], data: DataConfig, batch_size: int, seed: int, epoch: int) -> tuple[Batch, ...]:
    """Return one epoch's batches: its exposures, batches within one bucket, short ones kept.

    How often each view is shown: see `exposures`. Equal arguments give equal batches on every machine.
    Flips are addressed by (epoch, view, exposure): switching them on changes no order.
    Raises ValueError when batch_size < 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; 1 is the least")
    return _batches(views, rotation(views, data, seed), batch_size, seed, epoch)


def _batches(views: Sequence[View], shown: Rotation, batch_size: int, seed: int, epoch: int) -> tuple[Batch, ...]:
    by_bucket: dict[Bucket, list[tuple[int, int]]] = {}
    for view, count in enumerate(shown.counts(epoch)):
        by_bucket.setdefault(views[view].placement.bucket, []).extend((view, exposure) for exposure in range(count))
    shuffler = random.Random(derive(seed, "order", epoch))
    batches = []
    for bucket, exposures in sorted(by_bucket.items()):
        shuffler.shuffle(exposures)
        for start in range(0, len(exposures), batch_size):
            examples = tuple(
                Example(view, views[view].mirrored and bool(derive(seed, "flip", epoch, view, exposure) & 1), exposure)
                for view, exposure in exposures[start : start + batch_size]
            )
            batches.append(Batch(bucket, examples))
    shuffler.shuffle(batches)
    return tuple(batches)


def steps(views: Sequence[View], config: RunConfig, processes: int = 1) -> Iterator[Step]:
    """Yield the steps of the whole run; the same for every call with the same arguments.

    A step gathers `training.accumulation` batches for each process, so that two processes do the steps that one does
    with twice the accumulation.
    """
    training = config.training
    gathered = training.accumulation * processes
    shown = rotation(views, config.data, training.seed)
    number = images = 0
    for epoch in range(1, training.epochs + 1):
        batches = _batches(views, shown, training.batch_size, training.seed, epoch)
        for start in range(0, len(batches), gathered):
            group = batches[start : start + gathered]
            number += 1
            step = Step(number, epoch, start + len(group) == len(batches), images, group)
            yield step
            images += step.images
            if number == training.max_steps:
                return


def mine(step: Step, rank: int, count: int) -> tuple[tuple[int, Batch], ...]:
    """Return the batches that process `rank` of `count` computes, each with the place of its first image in the run.

    Every draw is addressed by that place, so it is the same whichever process computes the batch.
    """
    placed = []
    first_image = step.first_image
    for batch in step.batches:
        placed.append((first_image, batch))
        first_image += len(batch.examples)
    return tuple(placed[rank::count])


def length(views: Sequence[View], config: RunConfig, processes: int = 1) -> Length:
    """Return what iterating over `steps` would add up to; epochs whose make-up repeats are counted once."""
    if not views:
        return Length(0, 0, 0)
    training = config.training
    shown = rotation(views, config.data, training.seed)
    limit = training.max_steps
    round_ = []
    images = count = 0
    for epoch in range(1, min(shown.period, training.epochs) + 1):
        epoch_images, epoch_steps = _size(views, shown.counts(epoch), config, processes)
        if limit and count + epoch_steps >= limit:
            return _cut(views, shown, config, processes, Length(images, count, epoch))
        round_.append((epoch_images, epoch_steps))
        images, count = images + epoch_images, count + epoch_steps
    whole = training.epochs // len(round_)
    if limit and count:
        whole = min(whole, (limit - 1) // count)
    images, count, epoch = images * whole, count * whole, len(round_) * whole
    while epoch < training.epochs:
        epoch_images, epoch_steps = round_[epoch % len(round_)]
        epoch += 1
        if limit and count + epoch_steps >= limit:
            return _cut(views, shown, config, processes, Length(images, count, epoch))
        images, count = images + epoch_images, count + epoch_steps
    return Length(images, count, training.epochs)


def _size(views: Sequence[View], counts: Sequence[int], config: RunConfig, processes: int) -> tuple[int, int]:
    """Return the images and the steps of one epoch."""
    by_bucket: Counter[Bucket] = Counter()
    for view, count in zip(views, counts, strict=True):
        by_bucket[view.placement.bucket] += count
    batches = sum(-(-count // config.training.batch_size) for count in by_bucket.values())
    return sum(counts), -(-batches // (config.training.accumulation * processes))


def _cut(views: Sequence[View], shown: Rotation, config: RunConfig, processes: int, before: Length) -> Length:
    """Return the length of a run that ends within an epoch, or with it; before: images, steps; epochs: that epoch."""
    training = config.training
    batches = _batches(views, shown, training.batch_size, training.seed, before.epochs)
    rest = (training.max_steps - before.steps) * training.accumulation * processes
    seen = sum(len(batch.examples) for batch in batches[:rest])
    return Length(before.images + seen, training.max_steps, before.epochs)
