"""The contract between training and whatever has the model loaded: Host, Lease and the values they exchange."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, Protocol

import torch

from lib_lora_trainer.adapters.targets import Layer, Target
from lib_lora_trainer.dataset.tools.upscale import NamedUpscaler
from lib_lora_trainer.hosts.values import (
    Conditioning,
    ImageRequest,
    MadeImage,
    ModelInfo,
    Needs,
    PictureSize,
    Posterior,
    TextRequest,
)

__all__ = [
    "Conditioning",
    "Host",
    "Idle",
    "ImageRequest",
    "Lease",
    "MadeImage",
    "ModelInfo",
    "NamedUpscaler",
    "Needs",
    "PictureSize",
    "Posterior",
    "TextRequest",
]

Idle = Literal["vae", "text"]


class Lease(AbstractContextManager["Lease"], Protocol):
    """Exclusive use of the model. When it ends, also by an exception, the host is bit for bit what it was."""

    @property
    def info(self) -> ModelInfo:
        """What is loaded."""

    @property
    def device(self) -> torch.device:
        """Where the model computes."""

    @property
    def alphas_cumprod(self) -> torch.Tensor:
        """Products of 1 - beta of the training schedule, as the checkpoint has them: (1000,) float32 on the CPU."""

    def targets(self) -> Sequence[Target]:
        """Return every Linear, Conv2d and norm of the UNet and the text encoders with its module, in model order."""

    def identity(self, part: Literal["vae", "text"]) -> str:
        """Return a digest of the VAE's or all text encoders' weights: equal weights, equal digest, 64 hex digits."""

    def idle(self, *parts: Idle) -> None:
        """Say which parts are not needed until the next call; they may leave the device. Using one brings it back."""

    def encode_images(self, pixels: torch.Tensor) -> Posterior:
        """Encode pixels (B, 3, H, W) float32 in [-1, 1], H and W multiples of 8, in float32.

        Raises NumericalError on NaN.
        """

    def count_chunks(self, captions: Sequence[str], emphasis: bool = False) -> tuple[int, ...]:
        """Return how many 75-token chunks each caption takes, at least 1."""

    def encode_text(self, request: TextRequest) -> Conditioning:
        """Encode captions; differentiable when gradients are enabled. Longer ones are cut at 75·chunks tokens."""

    def predict(self, latents: torch.Tensor, timesteps: torch.Tensor, text: Conditioning) -> torch.Tensor:
        """Return the UNet's output (B, 4, h, w) float32 for noisy latents (B, 4, h, w) and timesteps (B,) int64."""

    def generate(
        self, requests: Sequence[ImageRequest], go_on: Callable[[], bool] = lambda: True
    ) -> Iterator[MadeImage]:
        """Make images with the model as it is now, attached adapters included; random state is put back.

        go_on: asked between sampling steps; once it says no, the image in work is left out, and so are the others.
        """


class Host(Protocol):
    """Where the model lives."""

    def info(self) -> ModelInfo:
        """Return what is loaded. Raises HostRefusal when nothing trainable is, with the reason and the next step."""

    def layers(self) -> Sequence[Layer]:
        """Return every Linear, Conv2d and norm that `Lease.targets` will offer, without taking the model."""

    def lease(self, needs: Needs) -> Lease:
        """Return exclusive use of the model, to be entered with `with`. Raises HostRefusal on what cannot be met."""

    def samplers(self) -> tuple[str, ...]:
        """Return the names `ImageRequest.sampler` can have."""

    def upscalers(self) -> tuple[NamedUpscaler, ...]:
        """Return what can enlarge pictures beside Lanczos, each waiting for its turn at the host's device by itself.

        One may be asked while nothing leases the model; it raises DataError when it cannot enlarge a picture.
        """

    def adapter_folder(self) -> str:
        """Return the folder in which the host looks for adapters."""

    def preset_files(self, name: str) -> tuple[Path, ...]:
        """Return the files of this name (`lbwpresets.txt`, …) in which prompts here find block weights; the last one counts."""

    def announce(self, path: str) -> None:
        """Tell the host that an adapter file is new, so that its own list shows it."""
