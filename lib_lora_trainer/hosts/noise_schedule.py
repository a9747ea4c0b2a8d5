"""Noise schedules as checkpoints have them."""

from __future__ import annotations

import torch

_NO_SIGNAL = 1e-4  # Stable Diffusion's own schedule ends with 0.0047


def ends_in_noise(alphas_cumprod: torch.Tensor) -> bool:
    """Tell whether a schedule (T,) ends in pure noise, as that of models trained with zero terminal SNR."""
    return float(alphas_cumprod[-1]) < _NO_SIGNAL
