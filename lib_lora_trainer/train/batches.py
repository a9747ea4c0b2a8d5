"""Which pictures each step sees, and the tensors made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from lib_lora_trainer.base.seeds import derive
from lib_lora_trainer.captions.variants import Moment, effective, vary
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.dataset import order
from lib_lora_trainer.dataset.augment import Address
from lib_lora_trainer.dataset.buckets import Placement
from lib_lora_trainer.dataset.items import Item
from lib_lora_trainer.dataset.order import Batch, Length, Step, mine
from lib_lora_trainer.dataset.views import View
from lib_lora_trainer.diffusion import noise
from lib_lora_trainer.hosts.api import PictureSize
from lib_lora_trainer.train.cache import Encoded, Exposure, LatentCache

__all__ = ["Batch", "Loaded", "Material", "Step", "load", "mine", "size_of", "steps"]


@dataclass(frozen=True)
class Material:
    """The dataset after scanning, placing and caching. length: of the whole run."""

    items: Sequence[Item]
    views: Sequence[View]
    latents: LatentCache
    length: Length


@dataclass(frozen=True)
class Loaded:
    """A batch as the loop needs it, all on the CPU.

    latents: (B, 4, h, w) float32; masks: (B, 1, h, w) float32 in [0, 1], None when all of every picture is learned;
    weights: (B,) float32, the prior weight for regularization images; preserved: (B,) bool, whether the goal is the
    model's own prediction without the adapter; positions: of the images in the run, which address every draw.
    """

    latents: torch.Tensor
    masks: torch.Tensor | None
    captions: tuple[str, ...]
    sizes: tuple[PictureSize, ...]
    weights: torch.Tensor
    preserved: torch.Tensor
    positions: tuple[int, ...]
    names: tuple[str, ...]


def steps(material: Material, config: RunConfig, processes: int = 1) -> Iterator[Step]:
    """Yield the steps of the whole run; the same for every call with the same arguments.

    Where pictures are encoded anew each time, the next step's are decoded while this one is computed.
    """
    coming = order.steps(material.views, config, processes)
    step = next(coming, None)
    while step is not None:
        following = next(coming, None)
        material.latents.expect(_coming([step, following], material, config))
        yield step
        step = following


def _coming(soon: Sequence[Step | None], material: Material, config: RunConfig) -> Iterator[Exposure]:
    for step in soon:
        for first_image, batch in mine(step, *material.latents.share) if step else ():
            yield from _exposures(batch, first_image, config)


def _exposures(batch: Batch, first_image: int, config: RunConfig) -> list[Exposure]:
    return [
        Exposure(example.view, example.flipped, Address(config.training.seed, position))
        for position, example in enumerate(batch.examples, first_image)
    ]


def load(batch: Batch, step: Step, first_image: int, material: Material, config: RunConfig) -> Loaded:
    """Return a batch's tensors and captions; every draw is addressed by the image's place in the run."""
    seed = config.training.seed
    exposures = _exposures(batch, first_image, config)
    positions = tuple(exposure.address.position for exposure in exposures)
    items = [material.items[material.views[exposure.view].item] for exposure in exposures]
    sources = [config.data.sources[item.source] for item in items]
    encoded = [material.latents.get(exposure) for exposure in exposures]
    mean = torch.cat([each.posterior.mean for each in encoded])
    std = torch.cat([each.posterior.std for each in encoded])
    weights = [config.loss.prior_weight if item.regularization else 1.0 for item in items]
    return Loaded(
        latents=mean + std * noise.normal(mean.shape[1:], seed, "posterior", positions),
        masks=_masks(encoded, mean.shape),
        captions=tuple(
            vary(
                item.caption,
                effective(config.data.caption, source),
                derive(seed, "caption", position),
                _moment(position, step, material.length),
            )
            for item, source, position in zip(items, sources, positions, strict=True)
        ),
        sizes=tuple(
            size_of(each.placement, exposure.flipped) for each, exposure in zip(encoded, exposures, strict=True)
        ),
        weights=torch.tensor(weights, dtype=torch.float32),
        preserved=torch.tensor([source.prior_preservation for source in sources]),
        positions=positions,
        names=tuple(item.path.name for item in items),
    )


def _moment(position: int, step: Step, length: Length) -> Moment:
    return Moment(position / max(1, length.images), step.number - 1, length.steps, step.epoch)


def _masks(encoded: Sequence[Encoded], shape: Sequence[int]) -> torch.Tensor | None:
    if all(each.mask is None for each in encoded):
        return None
    whole = torch.ones(1, 1, *shape[2:])
    return torch.cat([whole if each.mask is None else each.mask for each in encoded])


def size_of(placement: Placement, flipped: bool) -> PictureSize:
    """Return SDXL's micro-conditioning of a picture: its size, what was really cut off, and the size trained at.

    The crop is counted in the scaled picture. Of a mirrored picture it is what is missing at the left of the mirrored
    one, that is at the right of the original. sd-scripts (`BucketManager.get_crop_ltrb` at 48d368f) reckons as if
    the picture had been fitted into the bucket, which puts the crop on the wrong axis (`test_the_crop_on_the_right_axis`).
    """
    width, height = placement.original
    left, top = placement.crop
    if flipped:
        left = placement.scaled[0] - placement.bucket.width - left
    return PictureSize((height, width), (top, left), (placement.bucket.height, placement.bucket.width))
