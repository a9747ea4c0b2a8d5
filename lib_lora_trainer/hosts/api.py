"""The contract between training and whatever has the model loaded: Host, Lease and the values they exchange."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from PIL import Image

from lib_lora_trainer.adapters.targets import Layer, Target
from lib_lora_trainer.base.families import Family, Part, Prediction


@dataclass(frozen=True)
class ModelInfo:
    """The loaded model, as far as training and its report need to know.

    title: as the host shows it; name: file stem; sha256: of the checkpoint file, "" if not computed; text_encoders:
    the parts that can be adapted; latent_scale: factor from VAE output to latents; clip_skip: what the host is set to.
    """

    host: str
    family: Family
    prediction: Prediction
    title: str
    name: str
    file: str
    sha256: str
    vae: str
    text_encoders: tuple[Part, ...]
    latent_scale: float
    clip_skip: int
    dtype: str
    device: str


@dataclass(frozen=True)
class Needs:
    """What the lease is for. compute_dtype: arithmetic of the frozen model (float32, float16 or bfloat16)."""

    compute_dtype: torch.dtype = torch.float32
    text_encoder_gradient: bool = False
    gradient_checkpointing: bool = False


@dataclass(frozen=True)
class Posterior:
    """What the VAE makes of pictures. mean, std: (B, 4, H/8, W/8) float32 on the CPU, already scaled."""
    mean: torch.Tensor
    std: torch.Tensor


@dataclass(frozen=True)
class PictureSize:
    """SDXL's micro-conditioning, in pixels: (height, width) or (top, left)."""
    original: tuple[int, int]
    crop: tuple[int, int]
    target: tuple[int, int]


@dataclass(frozen=True)
class TextRequest:
    """Captions to encode as plain text, each padded to `chunks` chunks of 75 tokens; SDXL reads one size per caption."""

    captions: tuple[str, ...]
    clip_skip: int
    chunks: int
    sizes: tuple[PictureSize, ...]


@dataclass(frozen=True)
class Conditioning:
    """context: (B, 77·chunks, width); vector: (B, 2816) for SDXL, else None. float32, on the lease's device."""
    context: torch.Tensor
    vector: torch.Tensor | None = None


@dataclass(frozen=True)
class ImageRequest:
    """One image to generate with the host's own sampler; the prompt is read as the host reads prompts."""

    prompt: str
    negative: str = ""
    seed: int = 1
    steps: int = 20
    guidance: float = 7.0
    width: int = 512
    height: int = 512
    sampler: str = "Euler a"
    clip_skip: int = 1


@dataclass(frozen=True)
class MadeImage:
    """A generated image. infotext: the WebUI's parameter text, with which txt2img repeats it."""

    image: Image.Image
    infotext: str
    request: ImageRequest


class Lease(AbstractContextManager["Lease"], Protocol):
    """Exclusive use of the model. When it ends, also by an exception, the host is bit for bit what it was."""
    @property
    def info(self) -> ModelInfo: ...  # noqa: D102
    @property
    def device(self) -> torch.device: ...  # noqa: D102
    @property
    def alphas_cumprod(self) -> torch.Tensor: ...  # noqa: D102  (1000,) float32, CPU: of the training schedule
    def targets(self) -> Sequence[Target]:
        """Return every Linear and Conv2d of the UNet and the text encoders with its module, in the model's order."""

    def encode_images(self, pixels: torch.Tensor) -> Posterior:
        """Encode pixels (B, 3, H, W) float32 in [-1, 1], H and W multiples of 8. Raises NumericalError on NaN."""

    def count_chunks(self, captions: Sequence[str]) -> tuple[int, ...]:
        """Return how many 75-token chunks each caption takes, at least 1."""

    def encode_text(self, request: TextRequest) -> Conditioning:
        """Encode captions; differentiable when gradients are enabled. Longer ones are cut at 75·chunks tokens."""

    def predict(self, latents: torch.Tensor, timesteps: torch.Tensor, text: Conditioning) -> torch.Tensor:
        """Return the UNet's output (B, 4, h, w) float32 for noisy latents (B, 4, h, w) and timesteps (B,) int64."""

    def generate(self, requests: Sequence[ImageRequest]) -> Iterator[MadeImage]:
        """Make images with the model as it is now, attached adapters included; random state is put back."""


class Host(Protocol):
    """Where the model lives."""
    def info(self) -> ModelInfo:
        """Return what is loaded. Raises HostRefusal when nothing trainable is, with the reason and the next step."""

    def layers(self) -> Sequence[Layer]:
        """Return every Linear and Conv2d that `Lease.targets` will offer, without taking the model."""

    def lease(self, needs: Needs) -> Lease:
        """Return exclusive use of the model, to be entered with `with`. Raises HostRefusal on what cannot be met."""

    def samplers(self) -> tuple[str, ...]:
        """Return the names `ImageRequest.sampler` can have."""

    def adapter_folder(self) -> str:
        """Return the folder in which the host looks for adapters."""

    def announce(self, path: str) -> None:
        """Tell the host that an adapter file is new, so that its own list shows it."""
