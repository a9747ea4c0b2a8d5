"""LoKr: ΔW = alpha / rank · w1 ⊗ w2, each factor whole or of low rank (Yeh et al. 2023, arXiv:2309.14859)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lib_lora_trainer.adapters.methods.adapter import Adapter, Algorithm, Request, Shape, Traits, scalar
from lib_lora_trainer.adapters.methods.initial import drawn
from lib_lora_trainer.adapters.methods.operation import exact, groups, run
from lib_lora_trainer.adapters.methods.scale import ranked
from lib_lora_trainer.adapters.methods.sizes import pair

_NAMES = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_t2", "lokr_w2_a", "lokr_w2_b")


def shapes(request: Request) -> dict[str, Shape]:
    """Return the factors of w1 (o1, i1) and w2 (o2, i2, k, k), where o1 · o2 = out and i1 · i2 = in.

    A factor is whole where half its larger side is not above the rank, as in LyCORIS: w1 then, or without
    `lokr_decompose_both`, is `lokr_w1`, else w1_a (o1, r), w1_b (r, i1); w2 is `lokr_w2`, else w2_a (o2, r),
    w2_b (r, i2 · k²), or with Tucker decomposition t2 (r, r, k, k), w2_a (r, o2), w2_b (r, i2).
    """
    config, rank = request.config, request.rank
    out, inner, *kernel = request.shape
    (o1, o2), (i1, i2) = pair(out, config.lokr_factor), pair(inner, config.lokr_factor)
    low = (config.lokr_decompose_both and rank < max(o1, i1) / 2, rank < max(o2, i2) / 2)
    if config.lokr_full_matrix:
        low = (False, False)
    found: dict[str, Shape] = {"lokr_w1_a": (o1, rank), "lokr_w1_b": (rank, i1)} if low[0] else {"lokr_w1": (o1, i1)}
    if not low[1]:
        return found | {"lokr_w2": (o2, i2, *kernel)}
    return found | _second((o2, i2, *kernel), rank, config.tucker and max(kernel, default=1) > 1)


def _second(shape: Shape, rank: int, tucker: bool) -> dict[str, Shape]:
    out, inner, *kernel = shape
    if tucker:
        return {"lokr_t2": (rank, rank, *kernel), "lokr_w2_a": (rank, out), "lokr_w2_b": (rank, inner)}
    flat = inner * kernel[0] * kernel[1] if kernel else inner
    return {"lokr_w2_a": (out, rank), "lokr_w2_b": (rank, flat)}


def traits(request: Request) -> Traits:
    """Return rank and alpha; where both factors are whole alpha is the rank, as LyCORIS writes it."""
    wanted = shapes(request)
    if "lokr_w1" in wanted and "lokr_w2" in wanted:
        return Traits(request.rank, float(request.rank))
    return ranked(request)


def initial(request: Request) -> dict[str, torch.Tensor]:
    """Return Kaiming draws, w2 (or its last factor) zero; with a learned scalar all drawn."""
    config, wanted = request.config, shapes(request)
    options = {
        "lora_dim": request.rank,
        "factor": config.lokr_factor,
        "decompose_both": config.lokr_decompose_both,
        # Said also where the rank alone makes both factors whole: LyCORIS would write that to the log for each layer.
        "full_matrix": "lokr_w1" in wanted and "lokr_w2" in wanted,
        "use_tucker": "lokr_t2" in wanted,
        "use_scalar": config.scalar,
    }
    return drawn("kronecker", request.shape, options)


def _factors(adapter: Adapter) -> tuple[torch.Tensor, torch.Tensor]:
    """Return w1 (o1, i1), scaled, and w2 (o2, i2, k, k): small matrices."""
    value = adapter.value
    w1 = value("lokr_w1") if adapter.has("lokr_w1") else value("lokr_w1_a") @ value("lokr_w1_b")
    scaled = w1 * (_scale(adapter) * scalar(adapter))
    if adapter.has("lokr_w2"):
        return scaled, value("lokr_w2")
    if adapter.has("lokr_t2"):
        w2 = torch.einsum("abyx,ao,bi->oiyx", value("lokr_t2"), value("lokr_w2_a"), value("lokr_w2_b"))
        return scaled, w2
    w2 = value("lokr_w2_a") @ value("lokr_w2_b")
    inner = adapter.shape[1] // w1.shape[1]
    return scaled, w2.view(w2.shape[0], inner, *adapter.shape[2:])


def _scale(adapter: Adapter) -> float:
    """Return alpha / rank, and 1 where both factors are whole: so the WebUI's loader has it, whatever alpha is."""
    if adapter.has("lokr_w1") and adapter.has("lokr_w2"):
        return 1.0
    return adapter.traits.alpha / adapter.traits.rank


def delta(adapter: Adapter) -> torch.Tensor:
    """Return the Kronecker product; a kernel stays whole in it."""
    w1, w2 = _factors(adapter)
    return torch.einsum("ab,cd...->acbd...", w1, w2).reshape(adapter.shape)


def apply(adapter: Adapter, module: Any, inputs: torch.Tensor) -> torch.Tensor:
    """Return (w1 ⊗ w2) applied as w2 within each of i1 groups of inputs, then w1 across the groups."""
    with exact(inputs.device):
        w1, w2 = _factors(adapter)
    if groups(module) > 1:
        with exact(inputs.device):
            formed = delta(adapter)
        return run(module, inputs, formed)
    if w2.dim() == 4:
        batch, channels = inputs.shape[:2]
        within = run(module, inputs.reshape(batch * w1.shape[1], channels // w1.shape[1], *inputs.shape[2:]), w2)
        places = within.shape[2:]
        across = w1 @ within.reshape(batch, w1.shape[1], -1)
        return across.reshape(batch, -1, *places)
    within = run(module, inputs.unflatten(-1, (w1.shape[1], -1)), w2)
    return torch.nn.functional.linear(within.transpose(-1, -2), w1).transpose(-1, -2).flatten(-2)


def expected(shape: Shape, tensors: Mapping[str, torch.Tensor]) -> dict[str, Shape]:
    """Return the names and shapes of a LoKr's tensors; alpha may be missing."""
    out, inner, *kernel = shape
    names: dict[str, Shape] = {}
    if "lokr_w1" in tensors:
        o1, i1 = _sizes(tensors["lokr_w1"])
        names["lokr_w1"] = (o1, i1)
    else:
        o1, rank = _sizes(tensors["lokr_w1_a"])
        i1 = tensors["lokr_w1_b"].shape[-1]
        names |= {"lokr_w1_a": (o1, rank), "lokr_w1_b": (rank, i1)}
    if out % o1 or inner % i1:
        raise ValueError(f"lokr_w1 of {o1} × {i1} does not divide a weight of {out} × {inner}")
    second = (out // o1, inner // i1, *kernel)
    if "lokr_w2" in tensors:
        names["lokr_w2"] = second
    else:
        names |= _second(second, tensors["lokr_w2_b"].shape[0], "lokr_t2" in tensors)
    return names | ({"alpha": ()} if "alpha" in tensors else {})


def _sizes(tensor: torch.Tensor) -> tuple[int, int]:
    if tensor.dim() != 2:
        raise ValueError(f"a factor of shape {tuple(tensor.shape)} is no matrix")
    return tensor.shape[0], tensor.shape[1]


def load(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], Traits]:
    """Return the values, and the traits: the rank is w2's, or w1's where w2 is whole, as in the WebUI's loader."""
    values = {name: tensors[name] for name in _NAMES if name in tensors}
    last = next((values[name] for name in ("lokr_w2_b", "lokr_w1_b") if name in values), None)
    rank = 1 if last is None else last.shape[0]
    return values, Traits(rank, float(tensors["alpha"]) if "alpha" in tensors else float(rank))


def store(adapter: Adapter) -> dict[str, torch.Tensor]:
    """Return the tensors, the learned scalar in w1."""
    tensors: dict[str, torch.Tensor] = {name: adapter.value(name) for name in _NAMES if adapter.has(name)}
    first = "lokr_w1" if adapter.has("lokr_w1") else "lokr_w1_a"
    tensors[first] = adapter.value(first) * scalar(adapter)
    return {**tensors, "alpha": torch.tensor(adapter.traits.alpha)}


LOKR = Algorithm(
    shapes=shapes,
    initial=initial,
    traits=traits,
    delta=delta,
    apply=apply,
    marks=("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b"),
    expected=expected,
    load=load,
    store=store,
    decomposable=True,
    ups=("lokr_w1_a", "lokr_w2_a"),
    limits={
        "lokr_w1": 0.5,
        "lokr_w1_a": 0.25,
        "lokr_w1_b": 0.25,
        "lokr_w2": 0.5,
        "lokr_w2_a": 0.25,
        "lokr_w2_b": 0.25,
    },
)
