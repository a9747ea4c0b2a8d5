"""GLoRA: ΔW = b2 b1 + W a2 a1 (Chavan et al. 2023, arXiv:2306.07967), named and scaled as the WebUI's loader reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lib_lora_trainer.adapters.methods.adapter import Adapter, Algorithm, Request, Shape, Traits, scalar
from lib_lora_trainer.adapters.methods.drop import drop
from lib_lora_trainer.adapters.methods.initial import drawn
from lib_lora_trainer.adapters.methods.operation import frozen_weight, full_weight
from lib_lora_trainer.adapters.methods.scale import ranked

# LyCORIS (3.4.0, 4.1.3) calls the first of each pair what the WebUI's loader calls the second: its files do not load
# there (test_glora_has_the_loaders_names_not_lycoris_ones).
_LYCORIS = {"a1": "a2.weight", "a2": "a1.weight", "b1": "b2.weight", "b2": "b1.weight"}


def shapes(request: Request) -> dict[str, Shape]:
    """Return a1 (r, in), a2 (in, r), b1 (r, in), b2 (out, r); of linear layers only, as the paper has it."""
    return _shapes(request.shape, request.rank)


def _shapes(shape: Shape, rank: int) -> dict[str, Shape]:
    if len(shape) != 2:
        raise ValueError("glora is for linear layers alone; the WebUI's loader fails on convolutions")
    out, inner = shape
    return {"a1": (rank, inner), "a2": (inner, rank), "b1": (rank, inner), "b2": (out, rank)}


def initial(request: Request) -> dict[str, torch.Tensor]:
    """Return Kaiming draws, a1 and b1 zero; with a learned scalar all drawn."""
    values = drawn("glora", request.shape, {"lora_dim": request.rank, "use_scalar": request.config.scalar})
    wanted = {name: values[theirs] for name, theirs in _LYCORIS.items()}
    return wanted | ({"scalar": values["scalar"]} if "scalar" in values else {})


def _scale(adapter: Adapter) -> torch.Tensor | float:
    return adapter.traits.alpha / adapter.traits.rank * scalar(adapter)


def delta(adapter: Adapter) -> torch.Tensor:
    """Return ΔW."""
    value = adapter.value
    through = (full_weight(adapter.base, value("a2").device) @ value("a2")) @ value("a1")
    return (value("b2") @ value("b1") + through) * _scale(adapter)


def apply(adapter: Adapter, module: Any, inputs: torch.Tensor) -> torch.Tensor:
    """Return scale · (b2 b1 x + W a2 a1 x)."""
    linear, value = torch.nn.functional.linear, adapter.value
    beside = linear(drop(adapter, linear(inputs, value("b1")), -1), value("b2"))
    before = linear(drop(adapter, linear(inputs, value("a1")), -1), value("a2"))
    return (beside + linear(before, frozen_weight(module, before))) * _scale(adapter)


def expected(shape: Shape, tensors: Mapping[str, torch.Tensor]) -> dict[str, Shape]:
    """Return the names and shapes of GLoRA's tensors; the WebUI's loader asks for alpha and does not use it."""
    named = {f"{name}.weight": each for name, each in _shapes(shape, tensors["a1.weight"].shape[0]).items()}
    return named | {"alpha": ()}


def load(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], Traits]:
    """Return the values, and the traits: the scale is 1, as in the WebUI's loader."""
    values = {name: tensors[f"{name}.weight"] for name in _LYCORIS}
    rank = values["a1"].shape[0]
    return values, Traits(rank, float(rank))


def store(adapter: Adapter) -> dict[str, torch.Tensor]:
    """Return the tensors with the scale in a1 and b1: the WebUI's loader applies none, Forge's alpha / rank, here 1."""
    factor = _scale(adapter)
    scaled = {name: adapter.value(name) * factor if name in ("a1", "b1") else adapter.value(name) for name in _LYCORIS}
    tensors: dict[str, torch.Tensor] = {f"{name}.weight": value for name, value in scaled.items()}
    return {**tensors, "alpha": torch.tensor(float(adapter.traits.rank))}


GLORA = Algorithm(
    shapes=shapes,
    initial=initial,
    traits=ranked,
    delta=delta,
    apply=apply,
    marks=("a1.weight", "a2.weight", "b1.weight", "b2.weight"),
    expected=expected,
    load=load,
    store=store,
    drops_inside=True,
    ups=("a2", "b2"),
    limits=dict.fromkeys(_LYCORIS, 0.5),
)
