"""Where training puts every picture: its bucket, what is cut off, what is enlarged; and whether there are too many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.config.data import DataConfig
from lib_lora_trainer.dataset.buckets import Placement, bucket_problems
from lib_lora_trainer.dataset.items import Scan
from lib_lora_trainer.dataset.pixels import load_pixels
from lib_lora_trainer.dataset.tools.operations import shown
from lib_lora_trainer.dataset.views import histogram, sizes_of, views

WANTED = 5  # buckets at most (the guide on baking: four or five; many buckets blur)


@dataclass(frozen=True)
class Placed:
    """One picture at one training resolution, placed as training places it, before anything drawn for one exposure.

    lacking: fewer pixels than resolution², or without buckets a side shorter than it: it must be upscaled.
    """

    path: Path
    concept: str
    resolution: int
    placement: Placement
    lacking: bool

    @property
    def factor(self) -> float:
        """By how much its sides are scaled; above 1 it is enlarged."""
        width, height = self.placement.original
        return max(self.placement.scaled[0] / width, self.placement.scaled[1] / height)

    @property
    def cut_off(self) -> float:
        """The share of the picture that lies outside of its bucket, 0 to 1."""
        across, down = self.placement.scaled
        return 1 - self.placement.bucket.width * self.placement.bucket.height / (across * down)

    def facts(self) -> dict[str, Any]:
        """Return it in JSON's types."""
        return {
            "concept": self.concept,
            "resolution": self.resolution,
            "width": self.placement.original[0],
            "height": self.placement.original[1],
            "bucket": f"{self.placement.bucket.width}x{self.placement.bucket.height}",
            "scaled": list(self.placement.scaled),
            "crop": list(self.placement.crop),
            "cut_off": round(self.cut_off, 4),
            "factor": round(self.factor, 4),
            "must_be_upscaled": self.lacking,
        }


@dataclass(frozen=True)
class BucketReport:
    """All pictures, how many views each bucket has, and what is to be said about it."""

    placed: tuple[Placed, ...]
    histogram: dict[tuple[int, int], int]
    problems: tuple[Problem, ...]

    @property
    def lacking(self) -> tuple[Placed, ...]:
        """Return those that must be upscaled."""
        return tuple(view for view in self.placed if view.lacking)

    def facts(self, root: Path) -> dict[str, Any]:
        """Return it in JSON's types, without its problems; root: the dataset's folder."""
        return {
            "buckets": {f"{width}x{height}": count for (width, height), count in self.histogram.items()},
            "must_be_upscaled": [shown(view.path, root) for view in self.lacking],
            "pictures": [{"file": shown(view.path, root), **view.facts()} for view in self.placed],
        }


def placed(scan: Scan, data: DataConfig) -> tuple[Placed, ...]:
    """Return every view of the scan's pictures in their order. Raises ConfigError for impossible sizes."""
    found = views(scan, data)
    resolutions = [size for item in scan.items for size in sizes_of(data.sources[item.source], data)]
    result = []
    for view, resolution in zip(found, resolutions, strict=True):
        item = scan.items[view.item]
        lacking = item.width * item.height < resolution**2 if data.bucket else min(item.width, item.height) < resolution
        result.append(Placed(item.path, item.concept, resolution, view.placement, lacking))
    return tuple(result)


def preview(view: Placed) -> NDArray[np.uint8]:
    """Return the pixels that training sees of a picture: (H, W, 3) uint8 RGB, 0 to 255. Raises DataError."""
    return load_pixels(view.path, view.placement)


def report(scan: Scan, data: DataConfig) -> BucketReport:
    """Return where training puts every picture of a scan."""
    seen = views(scan, data)
    return BucketReport(placed(scan, data), histogram(seen), tuple(advice(scan, data)))


def advice(scan: Scan, data: DataConfig) -> Iterable[Problem]:
    """Yield a note when a resolution has more than five buckets, with the least step that leaves five at most."""
    for resolution in sorted({size for source in data.sources for size in sizes_of(source, data)}):
        used = _used(scan, data, resolution)
        if len(used) <= WANTED:
            continue
        text = f"{len(used)} buckets are in use at {resolution} px; four or five learn more sharply than many."
        lonely = sum(count == 1 for count in used.values())
        if lonely:
            text = f"{text} {lonely} of them hold a single picture."
        yield Problem("note", "data.bucket_step", text, _step_for(scan, data, resolution))


def _step_for(scan: Scan, data: DataConfig, resolution: int) -> str:
    """Return which step would leave few buckets, and what that costs."""
    for step in range(data.bucket_step + 64 - data.bucket_step % 64, resolution + 1, 64):
        coarser = replace(data, bucket_step=step)
        if bucket_problems(coarser) or len(_used(scan, coarser, resolution)) > WANTED:
            continue
        lost = _mean_cut(scan, coarser, resolution) - _mean_cut(scan, data, resolution)
        return (
            f"Set it to {step} for {len(_used(scan, coarser, resolution))} buckets; {max(0.0, lost):.1%} more of the "
            "pictures is cut off. Or crop the pictures to fewer shapes."
        )
    return "Crop the pictures to fewer shapes."


def _used(scan: Scan, data: DataConfig, resolution: int) -> Counter[tuple[int, int]]:
    return Counter(
        (view.placement.bucket.width, view.placement.bucket.height)
        for view in placed(scan, data)
        if view.resolution == resolution
    )


def _mean_cut(scan: Scan, data: DataConfig, resolution: int) -> float:
    shares = [view.cut_off for view in placed(scan, data) if view.resolution == resolution]
    return sum(shares) / len(shares)
