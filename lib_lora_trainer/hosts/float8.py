"""The UNet's weights kept in 8 bits: what is stored is rounded, the arithmetic is that of the lease."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

_NAME = "float8_e4m3fn"
_LARGEST = 448.0  # of that format; torch 2.1 turns what is larger into NaN


def reason_against() -> str:
    """Return why weights cannot be kept in 8 bits here; empty if they can."""
    if not hasattr(torch, _NAME):
        return f"torch {torch.__version__} has no 8-bit numbers ({_NAME}); torch 2.1 is the first that has them"
    return ""


def is_float8(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor is stored in one of the 8-bit floating-point formats."""
    return "float8" in str(tensor.dtype)


@contextmanager
def kept_in_8_bits(network: torch.nn.Module) -> Iterator[None]:
    """Keep the weights of every Linear and Conv2d as float8_e4m3fn inside the block, without a scale, as A1111 does.

    Biases and norms stay as they are. A layer computes through an instance-level `forward` with the weight cast to the
    arithmetic of the moment; the gradient reaches its input alone. The weights themselves are put aside in main memory,
    where those on the CPU are already, and put back into the same parameters bit for bit. Weights that are in 8 bits
    before, as with A1111's "FP8 weight", are computed with in the same way.
    """
    layers = [module for module in network.modules() if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d))]
    aside: list[tuple[torch.Tensor, torch.Tensor]] = []
    forwards: list[tuple[torch.nn.Module, Any]] = []
    try:
        for layer in layers:
            weight = layer.weight
            if not is_float8(weight):
                aside.append((weight, weight.data.cpu()))
                weight.data = _rounded(weight.data)
            forwards.append((layer, layer.__dict__.get("forward")))
            layer.__dict__["forward"] = _forward_of(layer)
        yield
    finally:
        for module, forward in forwards:
            if forward is None:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = forward
        for weight, original in aside:
            if not weight.is_meta:
                weight.data = original.to(weight.device)


def _rounded(values: torch.Tensor) -> torch.Tensor:
    return values.clamp(-_LARGEST, _LARGEST).to(getattr(torch, _NAME))


def _forward_of(layer: torch.nn.Linear | torch.nn.Conv2d) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a layer's forward that casts its weight at each call and keeps no cast copy for the backward pass."""
    compute = _conv2d if isinstance(layer, torch.nn.Conv2d) else _linear

    def forward(inputs: torch.Tensor) -> torch.Tensor:
        # The compiler plans itself what to keep for the backward pass; to it the cast is as cheap as it is.
        tracing = _is_compiling()
        dtype = inputs.dtype if tracing else _arithmetic(inputs)
        bias = None if layer.bias is None else layer.bias.to(dtype)
        return compute(layer, inputs.to(dtype), bias, tracing)

    return forward


def _linear(layer: Any, inputs: torch.Tensor, bias: torch.Tensor | None, tracing: bool) -> torch.Tensor:
    if tracing:
        return F.linear(inputs, layer.weight.to(inputs.dtype), bias)
    output: torch.Tensor = _Linear.apply(inputs, layer.weight, bias)
    return output


def _conv2d(layer: Any, inputs: torch.Tensor, bias: torch.Tensor | None, tracing: bool) -> torch.Tensor:
    padding = layer.padding
    if layer.padding_mode != "zeros":  # tiling images
        inputs = F.pad(inputs, layer._reversed_padding_repeated_twice, mode=layer.padding_mode)
        padding = (0, 0)
    geometry = (layer.stride, padding, layer.dilation, layer.groups)
    if tracing:
        return F.conv2d(inputs, layer.weight.to(inputs.dtype), bias, *geometry)
    output: torch.Tensor = _Conv2d.apply(inputs, layer.weight, bias, geometry)
    return output


class _Linear(torch.autograd.Function):
    """x · Wᵀ + b for a frozen W in 8 bits. Ordinary autograd would keep W's cast copy until the backward pass."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(weight)
        return F.linear(inputs, weight.to(inputs.dtype), bias)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return gradient @ weight.to(gradient.dtype), None, None


class _Conv2d(torch.autograd.Function):
    """The convolution with a frozen kernel in 8 bits, as `_Linear`. geometry: stride, padding, dilation, groups."""

    @staticmethod
    def forward(
        ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, geometry: tuple[Any, ...]
    ) -> torch.Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.geometry = inputs.shape, geometry
        return F.conv2d(inputs, weight.to(inputs.dtype), bias, *geometry)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        kernel = weight.to(gradient.dtype)
        return conv2d_input(ctx.shape, kernel, gradient, *ctx.geometry), None, None, None


def _is_compiling() -> bool:
    if hasattr(torch.compiler, "is_compiling"):
        return torch.compiler.is_compiling()
    return bool(torch._utils.is_compiling())  # torch 2.1


def _arithmetic(inputs: torch.Tensor) -> torch.dtype:
    """Return the type in which a matrix product of `inputs` is computed now: autocast's, else their own."""
    kind = inputs.device.type
    if hasattr(torch, "get_autocast_dtype"):
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else inputs.dtype
    if kind == "cpu":
        return torch.get_autocast_cpu_dtype() if torch.is_autocast_cpu_enabled() else inputs.dtype
    return torch.get_autocast_gpu_dtype() if torch.is_autocast_enabled() else inputs.dtype
