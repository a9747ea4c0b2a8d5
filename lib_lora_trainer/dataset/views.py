"""Every picture at every resolution it is trained at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lib_lora_trainer.config.data import DataConfig, SourceConfig
from lib_lora_trainer.dataset.buckets import Placement, place
from lib_lora_trainer.dataset.items import Scan


@dataclass(frozen=True)
class View:
    """One picture at one training resolution.

    item: index into the scan's items; placement: where it lands, before anything drawn for a single exposure.
    repeats: exposures per epoch, in thousandths; regularization, concept: as of the item; mirrored: it may be shown
    mirrored.
    """

    item: int
    placement: Placement
    repeats: float = 1
    regularization: bool = False
    mirrored: bool = False
    concept: str = ""


def views(scan: Scan, data: DataConfig) -> tuple[View, ...]:
    """Return the views of a scan's pictures, in their order.

    A source's resolution takes the place of all others; else there is one view for `data.resolution` and one for each
    of `data.more_resolutions`, equal ones once, each with the picture's repeats. With `no_upscale` a picture too small
    for the larger ones has equal views, so that small and large pictures keep their shares.
    Raises ConfigError for impossible sizes.
    """
    return tuple(
        View(
            item=index,
            placement=place(item.width, item.height, data, resolution),
            repeats=item.repeats,
            regularization=item.regularization,
            mirrored=_mirrored(data.sources[item.source], data),
            concept=item.concept,
        )
        for index, item in enumerate(scan.items)
        for resolution in sizes_of(data.sources[item.source], data)
    )


def _mirrored(source: SourceConfig, data: DataConfig) -> bool:
    return data.flip if source.flip is None else source.flip


def sizes_of(source: SourceConfig, data: DataConfig) -> tuple[int, ...]:
    """Return the resolutions at which a source's pictures are trained."""
    if source.resolution is not None:
        return (source.resolution,)
    return tuple(dict.fromkeys((data.resolution, *data.more_resolutions)))


def histogram(views: Sequence[View]) -> dict[tuple[int, int], int]:
    """Return how many views each bucket has, by (width, height), sorted."""
    return dict(sorted(Counter((view.placement.bucket.width, view.placement.bucket.height) for view in views).items()))
