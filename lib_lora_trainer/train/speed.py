"""How fast this machine multiplies matrices, for the plan's estimate of time."""

from __future__ import annotations

import time

import torch

# Share of a large matrix product's speed that a training step of a UNet reaches; convolutions, norms and attention at
# batch 1 are slower. Between what fp32 (0.75) and bf16 (0.42) reached on a CPU, benchmarks/real_size.md.
REACHED = 0.6


def flops_per_second(device: torch.device, dtype: torch.dtype) -> float:
    """Return the operations per second a training step may expect, measured by a short matrix product (under 1 s)."""
    side = 1024 if device.type == "cpu" else 8192
    left = torch.full((side, side), 1e-3, device=device, dtype=dtype)  # random numbers would move the host's generator
    product = left @ left
    repeats, began = 3, time.perf_counter()
    for _ in range(repeats):
        product = left @ left
    product.sum().item()  # waits for the device
    return REACHED * repeats * 2 * side**3 / (time.perf_counter() - began)
