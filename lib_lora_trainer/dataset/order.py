"""The order in which one epoch shows the pictures, computed from the seed and the epoch alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from lib_lora_trainer.base.seeds import derive
from lib_lora_trainer.config.data import DataConfig
from lib_lora_trainer.dataset.buckets import Bucket, Placement


@dataclass(frozen=True)
class Example:
    """One exposure of one picture.

    item: index into the scan's items; exposure: which of its repeats, from 0; flipped: shown mirrored.
    """

    item: int
    flipped: bool
    exposure: int


@dataclass(frozen=True)
class Batch:
    """Pictures of one size that are shown together; 1 to batch_size of them."""

    bucket: Bucket
    examples: tuple[Example, ...]


def epoch_batches(
    placements: Sequence[Placement],
    repeats: Sequence[int],
    data: DataConfig,
    batch_size: int,
    seed: int,
    epoch: int,
) -> tuple[Batch, ...]:
    """Return one epoch's batches: every picture `repeats` times, batches within one bucket, short ones kept.

    placements, repeats: one per item, in the order of the scan. Equal arguments give equal batches on every machine.
    Flips are addressed by (epoch, item, exposure): switching them on changes no order.
    Raises ValueError when the lengths differ or batch_size < 1.
    """
    shuffler = random.Random(derive(seed, "order", epoch))
    batches = []
    for bucket, exposures in sorted(_exposures(placements, repeats, batch_size).items()):
        shuffler.shuffle(exposures)
        for start in range(0, len(exposures), batch_size):
            examples = tuple(
                Example(item, data.flip and bool(derive(seed, "flip", epoch, item, exposure) & 1), exposure)
                for item, exposure in exposures[start : start + batch_size]
            )
            batches.append(Batch(bucket, examples))
    shuffler.shuffle(batches)
    return tuple(batches)


def batches_per_epoch(placements: Sequence[Placement], repeats: Sequence[int], batch_size: int) -> int:
    """Return the number of batches in any epoch. Raises ValueError as `epoch_batches`."""
    return sum(-(-len(exposures) // batch_size) for exposures in _exposures(placements, repeats, batch_size).values())


def _exposures(
    placements: Sequence[Placement], repeats: Sequence[int], batch_size: int
) -> dict[Bucket, list[tuple[int, int]]]:
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; 1 is the least")
    by_bucket: dict[Bucket, list[tuple[int, int]]] = {}
    for item, (placement, count) in enumerate(zip(placements, repeats, strict=True)):
        by_bucket.setdefault(placement.bucket, []).extend((item, exposure) for exposure in range(count))
    return by_bucket
