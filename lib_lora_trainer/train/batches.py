"""Which pictures each step sees, and the tensors made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from lib_lora_trainer.base.seeds import derive
from lib_lora_trainer.captions.variants import vary
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.dataset.buckets import Placement
from lib_lora_trainer.dataset.items import Item
from lib_lora_trainer.dataset.order import Batch, epoch_batches
from lib_lora_trainer.diffusion import noise
from lib_lora_trainer.hosts.api import PictureSize
from lib_lora_trainer.train.cache import Cache


@dataclass(frozen=True)
class Step:
    """One optimizer step: `accumulation` batches, fewer at the end of an epoch.

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
class Loaded:
    """A batch as the loop needs it. latents, noise: (B, 4, h, w) float32; timesteps: (B,) int64; all on the CPU."""

    latents: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor
    captions: tuple[str, ...]
    sizes: tuple[PictureSize, ...]


@dataclass(frozen=True)
class Material:
    """The dataset after scanning, placing and caching; items and placements run in parallel."""

    items: tuple[Item, ...]
    placements: tuple[Placement, ...]
    cache: Cache


def steps(placements: Sequence[Placement], repeats: Sequence[int], config: RunConfig) -> Iterator[Step]:
    """Yield the steps of the whole run; the same for every call with the same arguments."""
    training = config.training
    number = images = 0
    for epoch in range(1, training.epochs + 1):
        batches = epoch_batches(placements, repeats, config.data, training.batch_size, training.seed, epoch)
        for start in range(0, len(batches), training.accumulation):
            group = batches[start : start + training.accumulation]
            number += 1
            step = Step(number, epoch, start + len(group) == len(batches), images, group)
            yield step
            images += step.images
            if number == training.max_steps:
                return


def load(batch: Batch, first_image: int, material: Material, config: RunConfig) -> Loaded:
    """Return a batch's tensors and captions; every draw is addressed by the image's place in the run."""
    seed = config.training.seed
    positions = range(first_image, first_image + len(batch.examples))
    posteriors = [material.cache[example.item, example.flipped] for example in batch.examples]
    mean = torch.cat([posterior.mean for posterior in posteriors])
    std = torch.cat([posterior.std for posterior in posteriors])
    shape = mean.shape[1:]
    return Loaded(
        latents=mean + std * noise.normal(shape, seed, "posterior", positions),
        noise=noise.normal(shape, seed, "noise", positions),
        timesteps=noise.timesteps(1000, seed, positions),
        captions=tuple(
            vary(material.items[example.item].caption, config.data.caption, derive(seed, "caption", position))
            for example, position in zip(batch.examples, positions, strict=True)
        ),
        sizes=tuple(_size(material.placements[example.item]) for example in batch.examples),
    )


def _size(placement: Placement) -> PictureSize:
    width, height = placement.original
    left, top = placement.crop
    return PictureSize((height, width), (top, left), (placement.bucket.height, placement.bucket.width))
