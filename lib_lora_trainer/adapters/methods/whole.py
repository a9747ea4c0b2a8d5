"""The change of a weight and bias itself: of Linear and Conv2d (`full`), and of norms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from lib_lora_trainer.adapters.methods.adapter import Adapter, Algorithm, Request, Shape, Traits
from lib_lora_trainer.adapters.methods.operation import exact, run
from lib_lora_trainer.adapters.targets import Layer

_WITHOUT_BIAS = re.compile(r"\.(attn[12]\.to_[qkv]|self_attn\.[qkv]_proj)$")


def has_bias(layer: Layer) -> bool:
    """Tell whether `full` trains a layer's bias: of all but attention's queries, keys and values.

    UNets have none there. Of OpenCLIP's text encoders the WebUI's loader drops them, so those of CLIP are left alone
    too: a key's bias changes nothing in attention, and a value's comes to the same as the out projection's.
    """
    return not layer.norm and _WITHOUT_BIAS.search(f".{layer.path}") is None


def shapes(request: Request) -> dict[str, Shape]:
    """Return the differences of the weight and, where `has_bias`, of the bias (out,)."""
    bias: dict[str, Shape] = {"diff_b": request.shape[:1]} if has_bias(request.layer) else {}
    return {"diff": request.shape} | bias


def norm_shapes(request: Request) -> dict[str, Shape]:
    """Return the differences of weight and bias (channels,): both always, for the WebUI's loader asks for both."""
    return {"w_norm": request.shape, "b_norm": request.shape}


def initial(request: Request) -> dict[str, torch.Tensor]:
    """Return zeros."""
    wanted = norm_shapes(request) if request.layer.norm else shapes(request)
    return {name: torch.zeros(shape) for name, shape in wanted.items()}


def traits(_: Request) -> Traits:
    """Return nothing fixed."""
    return Traits()


def delta(adapter: Adapter) -> torch.Tensor:
    """Return the difference of the weight."""
    return adapter.value("w_norm" if adapter.has("w_norm") else "diff")


def bias_delta(adapter: Adapter) -> torch.Tensor | None:
    """Return the difference of the bias, None when there is none."""
    found = [adapter.value(name) for name in ("diff_b", "b_norm") if adapter.has(name)]
    return found[0] if found else None


def apply(adapter: Adapter, module: Any, inputs: torch.Tensor) -> torch.Tensor:
    """Return the layer's operation with the differences as weight and bias."""
    return run(module, inputs, adapter.value("diff"), bias_delta(adapter))


def norm_apply(adapter: Adapter, module: Any, inputs: torch.Tensor) -> torch.Tensor:
    """Return the normalized inputs times the weight's difference plus the bias's, in float32 as norms are computed."""
    weight, bias = adapter.value("w_norm"), adapter.value("b_norm")
    with exact(inputs.device):
        if isinstance(module, torch.nn.GroupNorm):
            return F.group_norm(inputs.float(), module.num_groups, weight, bias, module.eps)
        return F.layer_norm(inputs.float(), module.normalized_shape, weight, bias, module.eps)


def expected(shape: Shape, tensors: Mapping[str, torch.Tensor]) -> dict[str, Shape]:
    """Return the names and shapes of the tensors; a bias may be missing."""
    bias: dict[str, Shape] = {"diff_b": shape[:1]} if "diff_b" in tensors else {}
    return {"diff": shape} | bias


def norm_expected(shape: Shape, _: Mapping[str, torch.Tensor]) -> dict[str, Shape]:
    """Return the names and shapes of a norm's tensors."""
    return {"w_norm": shape, "b_norm": shape}


def load(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], Traits]:
    """Return the values."""
    return dict(tensors), Traits()


def store(adapter: Adapter) -> dict[str, torch.Tensor]:
    """Return the tensors."""
    return dict(adapter.named_parameters())


FULL = Algorithm(
    shapes=shapes,
    initial=initial,
    traits=traits,
    delta=delta,
    apply=apply,
    marks=("diff", "diff_b"),
    expected=expected,
    load=load,
    store=store,
    limits={"diff": 1.0},
)
NORM = Algorithm(
    shapes=norm_shapes,
    initial=initial,
    traits=traits,
    delta=delta,
    apply=norm_apply,
    marks=("w_norm", "b_norm"),
    expected=norm_expected,
    load=load,
    store=store,
    limits={"w_norm": 1.0},
)
