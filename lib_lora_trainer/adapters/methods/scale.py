"""The scale of methods that have a rank: alpha / rank, or alpha / √rank."""

from __future__ import annotations

import math

import torch

from lib_lora_trainer.adapters.methods.adapter import Request, Traits


def float32(value: float) -> float:
    """Return the float32 nearest to a number: what a file keeps of it."""
    return float(torch.tensor(value, dtype=torch.float32))


def ranked(request: Request) -> Traits:
    """Return rank and alpha. Loaders compute alpha / rank.

    So a rank-stabilized adapter (Kalajdzievski 2023, arXiv:2312.03732), whose scale is alpha / √rank, has alpha · √rank
    in its file.
    """
    factor = math.sqrt(request.rank) if request.config.rank_stabilized else 1.0
    return Traits(request.rank, float32(request.alpha * factor))
