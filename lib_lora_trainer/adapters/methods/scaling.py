"""IA³: one factor per output, or per input, of a layer (Liu et al. 2022, arXiv:2205.05638)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from lib_lora_trainer.adapters.methods.adapter import Adapter, Algorithm, Request, Shape, Traits
from lib_lora_trainer.adapters.methods.operation import frozen_weight, full_weight, groups, run

_ON_INPUT = re.compile(r"\.(ff\.net\.2|mlp\.fc2)$")


def on_input(request: Request) -> bool:
    """Tell whether inputs are scaled: of each MLP's second layer, as in the paper and LyCORIS's preset `ia3`.

    Of convolutions as well: the WebUI's loader fails on factors of their outputs.
    """
    return len(request.shape) == 4 or bool(_ON_INPUT.search(request.layer.path))


def shapes(request: Request) -> dict[str, Shape]:
    """Return the factors' differences from 1: (out,) or (in,), of convolutions (1, in, 1, 1)."""
    return {"weight": _shape(request.shape, on_input(request))}


def _shape(shape: Shape, inputs: bool) -> Shape:
    if len(shape) == 4:
        return (1, shape[1], 1, 1)
    return (shape[1],) if inputs else (shape[0],)


def initial(request: Request) -> dict[str, torch.Tensor]:
    """Return zeros."""
    return {name: torch.zeros(shape) for name, shape in shapes(request).items()}


def traits(request: Request) -> Traits:
    """Return the axis."""
    return Traits(on_input=on_input(request))


def delta(adapter: Adapter) -> torch.Tensor:
    """Return W with each row, or column, multiplied."""
    factors = adapter.value("weight")
    return full_weight(adapter.base, factors.device) * (factors if adapter.traits.on_input else factors.unsqueeze(-1))


def apply(adapter: Adapter, module: Any, inputs: torch.Tensor) -> torch.Tensor:
    """Return the layer's operation without bias, its inputs or its outputs multiplied."""
    factors: torch.Tensor = adapter.value("weight")
    if not adapter.traits.on_input:
        return run(module, inputs, frozen_weight(module, inputs)) * factors
    if groups(module) > 1:  # the weight has one column for each input of a group
        factors = factors.repeat(1, groups(module), 1, 1)
    scaled = inputs * factors
    return run(module, scaled, frozen_weight(module, scaled))


def expected(shape: Shape, tensors: Mapping[str, torch.Tensor]) -> dict[str, Shape]:
    """Return the names and shapes of IA³'s tensors."""
    inputs = bool(tensors["on_input"])
    if len(shape) == 4 and not inputs:
        raise ValueError("the WebUI's loader fails on IA³ of a convolution's outputs")
    return {"weight": _shape(shape, inputs), "on_input": ()}


def load(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], Traits]:
    """Return the factors and the axis."""
    return {"weight": tensors["weight"]}, Traits(on_input=bool(tensors["on_input"]))


def store(adapter: Adapter) -> dict[str, torch.Tensor]:
    """Return the tensors; on_input is 1 or 0."""
    return {"weight": adapter.value("weight"), "on_input": torch.tensor(int(adapter.traits.on_input))}


IA3 = Algorithm(
    shapes=shapes,
    initial=initial,
    traits=traits,
    delta=delta,
    apply=apply,
    marks=("weight", "on_input"),
    expected=expected,
    load=load,
    store=store,
    limits={"weight": 1.0},
)
