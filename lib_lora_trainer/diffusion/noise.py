"""Addressed draws: each example's noise, timestep and VAE sample depend on its place in the run alone.

Every draw is made on the CPU, by a generator of its own that is seeded with (run seed, purpose, position). So neither
the other examples of a batch, nor the device, nor an option that is switched on or off changes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch

from lib_lora_trainer.base.seeds import derive
from lib_lora_trainer.config.loss import NoiseConfig


@dataclass(frozen=True)
class NoisePair:
    """Noise of a batch: `target` is what is to be predicted, `input` what is added to the latents.

    Both (B, C, h, w) float32 on the latents' device; they are the same tensor without input perturbation.
    """

    target: torch.Tensor
    input: torch.Tensor


def normal(shape: Sequence[int], run_seed: int, purpose: str, positions: Sequence[int]) -> torch.Tensor:
    """Return standard normal values (B, *shape) float32 on the CPU, one address per example."""
    return torch.stack([_normal(shape, run_seed, purpose, position) for position in positions])


def timesteps(count: int, config: NoiseConfig, run_seed: int, positions: Sequence[int]) -> torch.Tensor:
    """Return timesteps (B,) int64 on the CPU, one address per example.

    count: steps of the schedule. They lie in [minimum, maximum), where `maximum` is config.maximum_timestep or, in a
    shorter schedule, count. For the distributions other than uniform, the address gives u in (0, 1), which becomes a
    place t in the interval:
    logit-normal: t = sigmoid(bias + Φ⁻¹(u)); cosine: t = 1 - 1 / (tan(π u / 2) + 1). Both from Esser et al. 2024,
    arXiv:2403.03206, section 3.1 (logit-normal with scale 1; CosMap).
    Raises ValueError for an empty interval; `combinations.problems` names it before a run.
    """
    start, end = config.minimum_timestep, min(config.maximum_timestep, count)
    if start >= end:
        raise ValueError(f"no timestep lies from {start} to below {end}")
    places = [derive(run_seed, "timestep", position) for position in positions]
    if config.timesteps == "uniform":
        return torch.tensor([start + place % (end - start) for place in places])
    # The upper 52 bits, so that u is exact and never 0 or 1.
    found = [start + math.floor((end - start) * _quantile(((place >> 11) + 0.5) / 2**52, config)) for place in places]
    return torch.tensor([min(timestep, end - 1) for timestep in found])  # a place may round up to 1


def sample(latents: torch.Tensor, config: NoiseConfig, run_seed: int, positions: Sequence[int]) -> NoisePair:
    """Return the noise of a batch with offset, pyramid and input perturbation, as configured.

    latents: (B, C, h, w), of which only the shape and, for the adaptive offset, the mean are used. Each example is
    computed alone, so its noise is bit for bit the same in every batch. Here sd-scripts differs: it draws a random
    strength once per batch and divides pyramid noise by the standard deviation of the batch
    (tests: test_an_example_has_the_same_noise_alone_and_in_a_batch, test_noise_is_sd_scripts).
    """
    pairs = [
        _example(example.detach().to(device="cpu", dtype=torch.float32), config, run_seed, position)
        for example, position in zip(latents, positions, strict=True)
    ]
    target = torch.stack([pair.target for pair in pairs]).to(latents.device)
    if not config.input_perturbation:
        return NoisePair(target, target)
    return NoisePair(target, torch.stack([pair.input for pair in pairs]).to(latents.device))


def _example(latent: torch.Tensor, config: NoiseConfig, run_seed: int, position: int) -> NoisePair:
    target = _normal(latent.shape, run_seed, "noise", position)
    if config.offset:
        target = target + _offset(latent, config, run_seed, position)
    if config.pyramid_iterations:
        target = _pyramid(target, config, _generator(run_seed, "pyramid", position))
    if not config.input_perturbation:
        return NoisePair(target, target)
    gamma = config.input_perturbation
    if config.input_perturbation_random:
        gamma *= _uniform(run_seed, "input-perturbation-strength", position)
    return NoisePair(target, target + gamma * _normal(latent.shape, run_seed, "input-perturbation", position))


def _offset(latent: torch.Tensor, config: NoiseConfig, run_seed: int, position: int) -> torch.Tensor:
    """Return what the offset adds, (C, 1, 1): per channel one normal value times max(0, offset + adaptive·|mean|).

    Source: crosslabs.org, "Diffusion with offset noise"; the adaptive term is sd-scripts'.
    """
    offset = config.offset
    if config.offset_random:
        offset *= _uniform(run_seed, "offset-strength", position)
    mean = latent.mean(dim=(1, 2), keepdim=True).abs()
    strength = (offset + config.adaptive_offset * mean).clamp(min=0.0)
    return strength * _normal((latent.shape[0], 1, 1), run_seed, "offset", position)


def _pyramid(noise: torch.Tensor, config: NoiseConfig, generator: torch.Generator) -> torch.Tensor:
    """Return noise (C, h, w) with ever coarser layers added, divided by its standard deviation.

    Layer i is normal noise of size (h / r^i, w / r^i), r uniform in [2, 4) and drawn anew for each layer, enlarged
    bilinearly and multiplied by discount^i; the first layer with a side of 1 is the last. Source: J. Whitaker,
    "Multi-resolution noise for diffusion model training", in sd-scripts' form.
    """
    channels, height, width = noise.shape
    for layer in range(config.pyramid_iterations):
        ratio = 2 + 2 * torch.rand((), generator=generator).item()
        size = (max(1, int(height / ratio**layer)), max(1, int(width / ratio**layer)))
        coarse = torch.randn((1, channels, *size), generator=generator)
        fine = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")[0]
        noise = noise + config.pyramid_discount**layer * fine
        if 1 in size:
            break
    return noise / noise.std()


def _quantile(u: float, config: NoiseConfig) -> float:
    """Return the place in [0, 1] at which the configured distribution has the share u in (0, 1) of its draws before."""
    if config.timesteps == "logit-normal":
        return 1 / (1 + math.exp(-(config.timestep_bias + NormalDist().inv_cdf(u))))
    return 1 - 1 / (math.tan(math.pi * u / 2) + 1)


def _generator(run_seed: int, purpose: str, position: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive(run_seed, purpose, position))


def _normal(shape: Sequence[int], run_seed: int, purpose: str, position: int) -> torch.Tensor:
    return torch.randn(tuple(shape), generator=_generator(run_seed, purpose, position))


def _uniform(run_seed: int, purpose: str, position: int) -> float:
    return torch.rand((), generator=_generator(run_seed, purpose, position)).item()
