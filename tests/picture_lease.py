"""A lease with a small VAE and text encoder of its own, for tests of what is kept and loaded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch

from fake_host import INFO
from lib_lora_trainer.base.errors import NumericalError
from lib_lora_trainer.hosts.api import Conditioning, Posterior, TextRequest


@dataclass
class Waiting:
    """One of several processes; counts how often it waited for the others."""

    rank: int = 0
    count: int = 1
    waited: int = 0

    def wait(self) -> None:
        self.waited += 1


class PictureLease:
    """encoded, texts: what was asked for, in order. Another seed is another VAE and other text encoders."""

    def __init__(self, seed: int = 1, family: str = "sd1", latent_scale: float = 0.5) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.weights = torch.randn(4, 3, 8, 8, generator=generator)
        self.table = torch.randn(256, 6, generator=generator)
        self.info = replace(INFO, family=family, latent_scale=latent_scale)
        self.device = torch.device("cpu")
        self.encoded: list[torch.Tensor] = []
        self.texts: list[TextRequest] = []

    def identity(self, part: str) -> str:
        tensor = self.weights if part == "vae" else self.table
        return hashlib.sha256(tensor.numpy().tobytes()).hexdigest()

    def encode_images(self, pixels: torch.Tensor) -> Posterior:
        assert pixels.dtype == torch.float32 and pixels.ndim == 4
        self.encoded.append(pixels)
        mean = torch.nn.functional.conv2d(pixels, self.weights, stride=8) * self.info.latent_scale
        if not torch.isfinite(mean).all():
            raise NumericalError("The VAE's latents are not finite.")
        return Posterior(mean, mean.abs() * 0.1)

    def encode_text(self, request: TextRequest) -> Conditioning:
        self.texts.append(request)
        rows = [(caption.encode() + b" " * 77)[:77] * request.chunks for caption in request.captions]
        context = self.table[torch.tensor([list(row) for row in rows])] / request.clip_skip
        context = context * (1.5 if request.emphasis else 1.0)
        if self.info.family != "sdxl":
            return Conditioning(context)
        sizes = torch.tensor([[*size.original, *size.crop, *size.target] for size in request.sizes])
        return Conditioning(context, torch.cat([context.mean(1), sizes.float()], 1))
