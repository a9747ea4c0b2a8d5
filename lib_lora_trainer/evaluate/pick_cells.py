"""From the images of one adapter at one weight to a Cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib_lora_trainer.captions.lexicon import key
from lib_lora_trainer.evaluate import measures
from lib_lora_trainer.evaluate.measures import Span, Traces, Vector
from lib_lora_trainer.evaluate.pick import Cell
from lib_lora_trainer.evaluate.pick_options import Shot
from lib_lora_trainer.evaluate.pick_subject import Looking


@dataclass(frozen=True)
class Seen:
    """One image of a cell: as it is, and what the tagger says about it, (labels,) float32 in [0, 1]."""

    image: Image.Image
    scores: NDArray[np.float32]


@dataclass(frozen=True)
class Reference:
    """What the images are compared with. pictures: thumbnails of the dataset, `apart` as `measures.apart` has it.

    mean: (labels,) mean scores of the dataset; span: of images in order; base: the base model's images, by shot.
    """

    looking: Looking
    pictures: tuple[Vector, ...]
    apart: float
    mean: NDArray[np.float32]
    span: Span
    base: tuple[Image.Image, ...]


@dataclass(frozen=True)
class Place:
    """Which adapter at which weight; label "" and weight 0 for the base model."""

    label: str = ""
    step: int = 0
    epoch: int = 0
    weight: float = 0.0


def cell(place: Place, shots: Sequence[Shot], seen: Sequence[Seen], reference: Reference) -> Cell:
    """Return what the images of a cell show, in the order of the shots."""
    shares: dict[str, list[float]] = {"recall": [], "control": [], "bleed": [], "mixed": []}
    shown = [reference.looking.shown(each.scores) for each in seen]
    alone = [number for number, shot in enumerate(shots) if shot.kind == "recall"]
    for shot, tags in zip(shots, shown, strict=True):
        shares[shot.kind].append(_share(shot.tags, tags))
        if shot.kind == "recall" and shot.others:
            shares["mixed"].append(_share(shot.others, tags))
    if len(shares["mixed"]) < len(alone):  # a trigger beside which no other has traits of its own
        shares["mixed"] = [_share(shots[number].others, shown[number]) for number in alone] if shares["mixed"] else []
    shape = shots[0].request.width, shots[0].request.height
    far = [
        measures.nearest(measures.thumbnail(each.image, shape), reference.pictures, reference.apart)
        for number, each in enumerate(seen)
        if number in alone
    ]
    changes = [measures.change(each.image, base) for each, base in zip(seen, reference.base, strict=True)]
    alike = [measures.similarity(seen[number].scores, reference.mean, reference.looking.labels) for number in alone]
    damaged = [bool(measures.defects(measures.traces(each.image), reference.span)) for each in seen]
    return Cell(
        label=place.label,
        step=place.step,
        epoch=place.epoch,
        weight=place.weight,
        recall=tuple(shares["recall"]),
        control=tuple(shares["control"]),
        bleed=tuple(shares["bleed"]),
        mixed=tuple(shares["mixed"]),
        defects=tuple(map(float, damaged)),
        copies=tuple(float(each < measures.COPY) for each in far),
        similarity=sum(alike) / len(alike),
        nearest=sum(far) / len(far),
        change=sum(changes) / len(changes),
        traits=_by_trait(shots, shown),
    )


def span_of(base: Sequence[Image.Image], dataset: Sequence[Traces]) -> Span:
    """Return the range in which an image is in order: that of the base model's and the dataset's."""
    drawn = (found for each in base if (found := measures.traces(each)).contrast >= measures.BLANK)
    return measures.span((*drawn, *dataset))


def _share(wanted: Sequence[str], shown: frozenset[str]) -> float:
    return sum(key(tag) in shown for tag in wanted) / len(wanted) if wanted else 0.0


def _by_trait(shots: Sequence[Shot], shown: Sequence[frozenset[str]]) -> Mapping[str, float]:
    counts: dict[str, list[bool]] = {}
    for shot, tags in zip(shots, shown, strict=True):
        for tag in shot.tags if shot.kind == "recall" else ():
            counts.setdefault(tag, []).append(key(tag) in tags)
    return {tag: sum(found) / len(found) for tag, found in counts.items()}
