"""Convolutions laid out channels last, as tensor cores read them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def laid_out_channels_last(network: torch.nn.Module) -> Iterator[None]:
    """Hold the weights of every convolution channels last inside the block; afterwards their strides are as before."""
    weights = [module.weight for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    before = [(weight, weight.stride()) for weight in weights]
    try:
        for weight in weights:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        yield
    finally:
        for weight, strides in before:
            if weight.stride() != strides and not weight.is_meta:
                laid_out = torch.empty_strided(weight.shape, strides, dtype=weight.dtype, device=weight.device)
                weight.data = laid_out.copy_(weight.data)
