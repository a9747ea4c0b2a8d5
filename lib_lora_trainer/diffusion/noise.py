"""Addressed draws: each example's noise, timestep and VAE sample depend on its place in the run alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lib_lora_trainer.base.seeds import derive


def normal(shape: Sequence[int], run_seed: int, purpose: str, positions: Sequence[int]) -> torch.Tensor:
    """Return standard normal values (B, *shape) float32 on the CPU, one address per example."""
    draws = []
    for position in positions:
        generator = torch.Generator().manual_seed(derive(run_seed, purpose, position))
        draws.append(torch.randn(tuple(shape), generator=generator))
    return torch.stack(draws)


def timesteps(count: int, run_seed: int, positions: Sequence[int]) -> torch.Tensor:
    """Return timesteps (B,) int64, uniform in [0, count), one address per example."""
    return torch.tensor([derive(run_seed, "timestep", position) % count for position in positions])
