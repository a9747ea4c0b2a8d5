"""Which blocks of an adapter matter: what each does when it alone is off, and when it alone is on.

Two comparisons, at the same prompts and seeds: the adapter with all its blocks against the adapter without one, and the
base model against the model with one block. lora-block-weight's Effective Block Analyzer makes the first alone, for one
prompt and seed, and counts pixels (the share of channel values that differ by more than 20). A block may change many
pixels and bring nothing that the trigger is to bring, or the other way round, so that here three things are measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib_lora_trainer.captions.lexicon import key
from lib_lora_trainer.evaluate import measures
from lib_lora_trainer.evaluate.blocks_options import Shot
from lib_lora_trainer.evaluate.blocks_style import drift
from lib_lora_trainer.evaluate.pick import Gain, gain
from lib_lora_trainer.evaluate.pick_subject import Looking


@dataclass(frozen=True)
class Seen:
    """One image: as it is, and what the tagger says about it, (labels,) float32 in [0, 1]."""

    image: Image.Image
    scores: NDArray[np.float32]


@dataclass(frozen=True)
class Cell:
    """What the images of one set of blocks show.

    recall: share of the trigger's traits in each image with the trigger, in [0, 1]; drift: distance of the style of each
    image without the trigger from the base model's, grey levels, see `blocks_style.drift`. from_base, from_full: mean
    difference of all pixels from the base model's images and from those of all blocks, grey levels of 255. traits: rate
    of each trait. images: their names.
    """

    blocks: tuple[str, ...]
    recall: tuple[float, ...]
    drift: tuple[float, ...]
    from_base: float
    from_full: float
    traits: Mapping[str, float] = field(default_factory=dict)
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class Analysis:
    """All cells. blocks: those that the file has, in the model's order; off, alone: by the block that is."""

    blocks: tuple[str, ...]
    base: Cell
    full: Cell
    off: Mapping[str, Cell]
    alone: Mapping[str, Cell]

    @property
    def gained(self) -> Gain:
        """The recall that the adapter adds to the base model's."""
        return gain(self.full.recall, self.base.recall)


@dataclass(frozen=True)
class Row:
    """What one block does.

    lost: of the recall when it is off; brought: when it alone is on, over the base model's. share: the mean of both as a
    share of what the adapter adds. pixels_off: difference from the images of all blocks when it is off; pixels_alone:
    from the base model's when it alone is on. drift_off: how much less the style drifts when it is off; drift_alone: how
    much it drifts when it alone is on. Pixels and drift in grey levels.
    """

    block: str
    lost: Gain
    brought: Gain
    share: float
    pixels_off: float
    pixels_alone: float
    drift_off: float
    drift_alone: float


def recall(shots: Sequence[Shot], seen: Sequence[Seen], looking: Looking) -> tuple[float, ...]:
    """Return the share of its trigger's traits that the tagger sees in each image with a trigger."""
    shown = [looking.shown(each.scores) for each in seen]
    return tuple(
        sum(key(tag) in tags for tag in shot.tags) / len(shot.tags)
        for shot, tags in zip(shots, shown, strict=True)
        if shot.kind == "recall"
    )


@dataclass(frozen=True)
class Reference:
    """What cells are compared with: the images of the base model and of all blocks, by shot."""

    looking: Looking
    base: tuple[Image.Image, ...]
    full: tuple[Image.Image, ...]


def cell(
    blocks: Sequence[str], shots: Sequence[Shot], seen: Sequence[Seen], names: Sequence[str], to: Reference
) -> Cell:
    """Return what the images of a set of blocks show, in the order of the shots; names: the images' own."""
    numbered = list(enumerate(shots))
    rates: dict[str, list[bool]] = {}
    for number, shot in numbered:
        tags = to.looking.shown(seen[number].scores)
        for tag in shot.tags:
            rates.setdefault(tag, []).append(key(tag) in tags)
    return Cell(
        tuple(blocks),
        recall(shots, seen, to.looking),
        tuple(drift(seen[number].image, to.base[number]) for number, shot in numbered if shot.kind == "drift"),
        _mean([measures.change(each.image, other) for each, other in zip(seen, to.base, strict=True)]),
        _mean([measures.change(each.image, other) for each, other in zip(seen, to.full, strict=True)]),
        {tag: sum(found) / len(found) for tag, found in rates.items()},
        tuple(names),
    )


def rows(analysis: Analysis) -> tuple[Row, ...]:
    """Return what each block does, the one that matters most to the recall first; equal ones by the pixels.

    A block's share is the mean of what it adds as the first block and as the last one. Where what blocks do together
    is the sum of what they do alone and in pairs, that is their Shapley value (Shapley 1953; for sums over pairs:
    Grabisch 1997, "k-order additive discrete fuzzy measures"), by which the shares add up to 1; of higher orders it knows
    nothing (test_shares_are_shapleys_where_blocks_act_in_pairs).
    """
    whole = analysis.gained.mean
    found = []
    for block in analysis.blocks:
        off, alone = analysis.off[block], analysis.alone[block]
        lost, brought = gain(analysis.full.recall, off.recall), gain(alone.recall, analysis.base.recall)
        found.append(
            Row(
                block=block,
                lost=lost,
                brought=brought,
                share=(lost.mean + brought.mean) / 2 / whole if whole > 0 else 0.0,
                pixels_off=off.from_full,
                pixels_alone=alone.from_base,
                drift_off=_mean(analysis.full.drift) - _mean(off.drift),
                drift_alone=_mean(alone.drift),
            )
        )
    places = {block: number for number, block in enumerate(analysis.blocks)}
    # Rounded, so that sums that differ by the order of adding do not decide.
    return tuple(sorted(found, key=lambda row: (-round(row.share, 9), -round(row.pixels_off, 6), places[row.block])))


def kept(some: Sequence[float], full: Sequence[float], base: Sequence[float]) -> float:
    """Return the share of what the adapter adds to the recall that some of its blocks add: 0 as the base model, 1 as all.

    (recall - base's) / (full's - base's). A set that keeps 90 % of it keeps at least 90 % of the recall itself, too.
    Where all blocks add nothing, 1 for a set that recalls no less than they do, and 0 else.
    """
    have, most, least = (_mean(each) for each in (some, full, base))
    if most <= least:
        return float(have >= most)
    return (have - least) / (most - least)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
