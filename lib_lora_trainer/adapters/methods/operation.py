"""A layer's own operation with another weight, and the precision in which changes of weights are formed."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F


def run(module: Any, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return what a Linear or Conv2d computes with another weight: its stride, padding, dilation and groups hold.

    The convolution is the module's own, so that the WebUI's tiling (circular padding) holds for the change as well.
    """
    if isinstance(module, torch.nn.Conv2d):
        if bias is None and _is_pointwise(module):
            return point(module, inputs, weight)
        return module._conv_forward(inputs, weight, bias)
    return F.linear(inputs, weight, bias)


def point(module: Any, inputs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return inputs (B, C, H, W) or (…, C) mapped by a 1×1 weight with as many dimensions.

    A product of matrices and no convolution: on the CPU a 1×1 convolution of few channels takes several times as long
    in the backward pass (benchmarks/step.md).
    """
    if not isinstance(module, torch.nn.Conv2d):
        return F.linear(inputs, weight)
    return (weight.flatten(1) @ inputs.flatten(2)).unflatten(2, inputs.shape[2:])


def _is_pointwise(module: torch.nn.Conv2d) -> bool:
    """Tell whether each pixel of the output depends on the same pixel of the input alone, and on all its channels."""
    ones = all(size == 1 for size in (*module.kernel_size, *module.stride, module.groups))
    return ones and module.padding in ((0, 0), "valid", "same")


def weight_shape(module: Any) -> tuple[int, ...]:
    """Return the shape of a layer's weight."""
    return tuple(module.weight.shape)


def groups(module: Any) -> int:
    """Return the number of groups of a convolution, 1 for other layers."""
    return module.groups if isinstance(module, torch.nn.Conv2d) else 1


def channel_axis(module: Any) -> int:
    """Return the axis of channels in a layer's input and output: 1 for Conv2d and GroupNorm, else the last."""
    return 1 if isinstance(module, (torch.nn.Conv2d, torch.nn.GroupNorm)) else -1


def is_autocast(device: torch.device) -> bool:
    """Tell whether autocast is on for a device."""
    if hasattr(torch, "get_autocast_dtype"):  # torch 2.4 and later ask by device
        return torch.is_autocast_enabled(device.type)
    return torch.is_autocast_cpu_enabled() if device.type == "cpu" else torch.is_autocast_enabled()


def exact(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which float32 stays float32 under autocast as well."""
    return torch.autocast(device.type, enabled=False) if is_autocast(device) else nullcontext()


def full_weight(module: Any, device: torch.device) -> torch.Tensor:
    """Return the base weight in float32 on a device, without gradient, whatever it is kept in, 8 bits included."""
    weight: torch.Tensor = module.weight.detach()
    return weight.to(device=device, dtype=torch.float32)


def frozen_weight(module: Any, inputs: torch.Tensor) -> torch.Tensor:
    """Return the base weight for a product with inputs: as it is where autocast brings both together, else float32."""
    weight: torch.Tensor = module.weight.detach()
    fits = weight.dtype in (torch.float32, torch.float16, torch.bfloat16) and is_autocast(inputs.device)
    return weight.to(inputs.device) if fits else weight.to(device=inputs.device, dtype=inputs.dtype)
