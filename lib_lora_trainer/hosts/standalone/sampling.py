"""Samplers: noise to latents by diffusers' schedulers, every draw from the image's own generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.base.families import Prediction
from lib_lora_trainer.hosts.api import ImageRequest

SAMPLERS = ("Euler a", "Euler", "DPM++ 2M Karras", "DDIM")

Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Unwanted(Exception):
    """Ends the sampling of images that nobody waits for any more."""


def check_request(request: ImageRequest) -> None:
    """Raise ConfigError for a sampler, size or number of steps that cannot be used."""
    if request.sampler not in SAMPLERS:
        raise ConfigError(f"sampler = {request.sampler!r} is unknown here. Choose one of: {', '.join(SAMPLERS)}.")
    if min(request.width, request.height) < 64 or request.width % 8 or request.height % 8:
        raise ConfigError(f"size = {request.width}×{request.height}: use multiples of 8, 64 or more.")
    if request.steps < 1:
        raise ConfigError(f"steps = {request.steps}: use 1 or more.")


def make_scheduler(sampler: str, betas: torch.Tensor, prediction: Prediction) -> Any:
    """Return diffusers' scheduler for a name of `SAMPLERS`, with the timesteps of the WebUI's sampler of that name."""
    from diffusers import (
        DDIMScheduler,
        DPMSolverMultistepScheduler,
        EulerAncestralDiscreteScheduler,
        EulerDiscreteScheduler,
    )

    schedule = {
        "num_train_timesteps": len(betas),
        "trained_betas": betas.tolist(),
        "prediction_type": "v_prediction" if prediction == "v" else "epsilon",
    }
    if sampler == "Euler a":
        return EulerAncestralDiscreteScheduler(**schedule, timestep_spacing="linspace")
    if sampler == "Euler":
        return EulerDiscreteScheduler(**schedule, timestep_spacing="linspace")
    if sampler == "DPM++ 2M Karras":
        return DPMSolverMultistepScheduler(**schedule, use_karras_sigmas=True)
    return DDIMScheduler(
        **schedule, clip_sample=False, set_alpha_to_one=False, steps_offset=1, timestep_spacing="leading"
    )


@torch.no_grad()
def sample(requests: Sequence[ImageRequest], scheduler: Any, predict: Predict, device: torch.device) -> torch.Tensor:
    """Return latents (B, 4, H/8, W/8) float32 for requests of one size, sampler and number of steps.

    predict: noisy latents (B, 4, h, w) and one timestep (0-dimensional, may be fractional) to the guided output.
    Noise is drawn per image from a CPU generator with its seed, so that neither the batch nor the device changes it.
    """
    generators = [torch.Generator().manual_seed(request.seed) for request in requests]
    shape = (1, 4, requests[0].height // 8, requests[0].width // 8)
    noise = torch.cat([torch.randn(shape, generator=generator) for generator in generators])
    scheduler.set_timesteps(requests[0].steps, device=device)
    if hasattr(scheduler, "set_begin_index"):
        # Found by its timestep, the first step would be the second one where a zero-terminal schedule repeats 999.
        scheduler.set_begin_index(0)
    latents = noise.to(device) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        output = predict(scheduler.scale_model_input(latents, timestep), timestep)
        latents = scheduler.step(output, timestep, latents, generator=generators).prev_sample
    return latents.float()
