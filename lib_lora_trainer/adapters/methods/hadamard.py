"""LoHa: ΔW = alpha / rank · (w1_a w1_b) ∘ (w2_a w2_b) (Hyeon-Woo et al. 2021, FedPara, arXiv:2108.06098)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lib_lora_trainer.adapters.methods.adapter import Adapter, Algorithm, Request, Shape, Traits, scalar
from lib_lora_trainer.adapters.methods.initial import drawn
from lib_lora_trainer.adapters.methods.operation import exact, run
from lib_lora_trainer.adapters.methods.scale import ranked

_NAMES = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")


class _HadamardProduct(torch.autograd.Function):
    """(a b) ∘ (c d), which keeps the factors alone for the backward pass: the products are as large as the weight."""

    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(a, b, c, d)
        return (a @ b) * (c @ d)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, ...]:
        a, b, c, d = ctx.saved_tensors
        with exact(gradients[0].device):
            left, right = gradients[0] * (c @ d), gradients[0] * (a @ b)
            return left @ b.T, a.T @ left, right @ d.T, c.T @ right


def shapes(request: Request) -> dict[str, Shape]:
    """Return the factors: a (out, r) and b (r, in · k²); Tucker: a (r, out), b (r, in), t (r, r, k, k)."""
    kernel = request.shape[2:]
    return _shapes(request.shape, request.rank, request.config.tucker and max(kernel, default=1) > 1)


def _shapes(shape: Shape, rank: int, tucker: bool) -> dict[str, Shape]:
    out, inner, *kernel = shape
    if tucker:
        found: dict[str, Shape] = {
            **{name: (rank, out if name.endswith("a") else inner) for name in _NAMES[:4]},
            **dict.fromkeys(_NAMES[4:], (rank, rank, *kernel)),
        }
        return found
    flat = inner * kernel[0] * kernel[1] if kernel else inner
    return {name: (out, rank) if name.endswith("a") else (rank, flat) for name in _NAMES[:4]}


def initial(request: Request) -> dict[str, torch.Tensor]:
    """Return normal draws, w2_a zero; with a learned scalar all drawn."""
    options = {
        "lora_dim": request.rank,
        "use_tucker": "hada_t1" in shapes(request),
        "use_scalar": request.config.scalar,
    }
    return drawn("hadamard", request.shape, options)


def delta(adapter: Adapter) -> torch.Tensor:
    """Return ΔW. alpha is applied once, as in the WebUI's loader; LyCORIS's merge applies it twice."""
    w1_a, w1_b, w2_a, w2_b = (adapter.value(name) for name in _NAMES[:4])
    scaled = w1_a * (adapter.traits.alpha / adapter.traits.rank * scalar(adapter))
    if adapter.has("hada_t1"):
        first = torch.einsum("abyx,ao,bi->oiyx", adapter.value("hada_t1"), scaled, w1_b)
        second = torch.einsum("abyx,ao,bi->oiyx", adapter.value("hada_t2"), w2_a, w2_b)
        return first * second
    product: torch.Tensor = _HadamardProduct.apply(scaled, w1_b, w2_a, w2_b)
    return product.view(adapter.shape)


def apply(adapter: Adapter, module: Any, inputs: torch.Tensor) -> torch.Tensor:
    """Return the layer's operation with ΔW, formed in float32."""
    with exact(inputs.device):
        formed = delta(adapter)
    return run(module, inputs, formed)


def expected(shape: Shape, tensors: Mapping[str, torch.Tensor]) -> dict[str, Shape]:
    """Return the names and shapes of a LoHa's tensors; alpha may be missing."""
    tucker = "hada_t1" in tensors or "hada_t2" in tensors
    names = _shapes(shape, tensors["hada_w1_b"].shape[0], tucker)
    return names | ({"alpha": ()} if "alpha" in tensors else {})


def load(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], Traits]:
    """Return the values, and the traits: without alpha the scale is 1."""
    values = {name: tensors[name] for name in _NAMES if name in tensors}
    rank = values["hada_w1_b"].shape[0]
    return values, Traits(rank, float(tensors["alpha"]) if "alpha" in tensors else float(rank))


def store(adapter: Adapter) -> dict[str, torch.Tensor]:
    """Return the tensors, the learned scalar in hada_w1_a."""
    tensors: dict[str, torch.Tensor] = {name: adapter.value(name) for name in _NAMES if adapter.has(name)}
    tensors["hada_w1_a"] = adapter.value("hada_w1_a") * scalar(adapter)
    return {**tensors, "alpha": torch.tensor(adapter.traits.alpha)}


LOHA = Algorithm(
    shapes=shapes,
    initial=initial,
    traits=ranked,
    delta=delta,
    apply=apply,
    marks=("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    expected=expected,
    load=load,
    store=store,
    decomposable=True,
    ups=("hada_w1_a", "hada_w2_a"),
    limits=dict.fromkeys(_NAMES[:4], 0.25),
)
