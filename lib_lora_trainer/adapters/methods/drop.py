"""Dropout of an adapter: of values, of the rank, and of the adapter as a whole; in training alone.

Draws come from torch's generators, which the training loop seeds for each batch. Masks are drawn on the CPU, so that a
run on a GPU drops the same as one on the CPU; dropped values are drawn where they are.
"""

from __future__ import annotations

import torch

from lib_lora_trainer.adapters.methods.adapter import Adapter


def skips(adapter: Adapter) -> bool:
    """Draw whether this call goes without the adapter."""
    share = adapter.drops.module
    return adapter.training and share > 0 and bool(torch.rand(()) < share)


def drop(adapter: Adapter, values: torch.Tensor, axis: int) -> torch.Tensor:
    """Return values with `dropout` of them and `rank_dropout` of their channels at zero, the rest scaled up.

    values: what enters the up factor, or the output for methods without an inner rank: (B, …), channels at `axis`.
    Each example has its own mask of channels, and what stays is divided by 1 - share, as in sd-scripts'
    networks/lora.py; LyCORIS has one mask for the batch and does not divide, so its rank dropout weakens the adapter
    that is trained (test_rank_dropout_keeps_the_mean).
    """
    drops = adapter.drops
    if not adapter.training:
        return values
    if drops.values:
        values = torch.nn.functional.dropout(values, drops.values)
    if drops.rank:
        axis %= values.dim()
        shape = [size if place in (0, axis) else 1 for place, size in enumerate(values.shape)]
        kept = (torch.rand(shape) >= drops.rank).to(device=values.device, dtype=values.dtype)
        values = values * (kept / (1 - drops.rank))
    return values
