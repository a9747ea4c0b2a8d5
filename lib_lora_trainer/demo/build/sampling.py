"""Draws pictures with the toy checkpoint's modules: Euler a with classifier-free guidance."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderKL, EulerAncestralDiscreteScheduler, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer


@torch.no_grad()
def encode_captions(text: CLIPTextModel, tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Return (N, 77, 64) float32 hidden states, after the final layer norm, of ``captions``."""
    tokens = tokenizer(captions, padding="max_length", truncation=True, max_length=77, return_tensors="pt").input_ids
    hidden: Tensor = text(tokens).last_hidden_state.float()
    return hidden


@torch.no_grad()
def sample_latents(
    unet: UNet2DConditionModel, context: Tensor, empty: Tensor, seed: int, steps: int = 20, guidance: float = 5.0
) -> Tensor:
    """Return scaled latents (N, 4, 16, 16) float32 for ``context`` (N, 77, 64), away from ``empty`` (1, 77, 64)."""
    generator = torch.Generator().manual_seed(seed)
    scheduler = EulerAncestralDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="linspace"
    )
    scheduler.set_timesteps(steps)
    latents = torch.randn((len(context), 4, 16, 16), generator=generator) * scheduler.init_noise_sigma
    both = torch.cat([context, empty.expand(len(context), -1, -1)])
    for time in scheduler.timesteps:
        scaled = scheduler.scale_model_input(latents, time)
        prompted, unprompted = unet(scaled.repeat(2, 1, 1, 1), time, both).sample.float().chunk(2)
        noise = unprompted + guidance * (prompted - unprompted)
        latents = scheduler.step(noise, time, latents, generator=generator).prev_sample
    return latents


@torch.no_grad()
def decode_latents(autoencoder: AutoencoderKL, latents: Tensor, scale_factor: float) -> NDArray[np.uint8]:
    """Return pictures (N, 128, 128, 3) uint8 RGB of scaled ``latents``."""
    images = autoencoder.decode(latents / scale_factor).sample
    return to_pictures(images)


def to_pictures(images: Tensor) -> NDArray[np.uint8]:
    """Return (N, 3, H, W) float in [-1, 1] as (N, H, W, 3) uint8, clipped and rounded."""
    scaled = (images.float().clamp(-1, 1) + 1) * 127.5
    pictures: NDArray[np.uint8] = scaled.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return pictures
