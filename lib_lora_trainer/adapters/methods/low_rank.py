"""LoRA, LoCon and DyLoRA: ΔW = alpha / rank · up · down (Hu et al. 2021, arXiv:2106.09685)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from lib_lora_trainer.adapters.methods.adapter import Adapter, Algorithm, Request, Shape, Traits, scalar
from lib_lora_trainer.adapters.methods.drop import drop
from lib_lora_trainer.adapters.methods.initial import drawn
from lib_lora_trainer.adapters.methods.operation import channel_axis, exact, groups, point, run
from lib_lora_trainer.adapters.methods.scale import float32, ranked
from lib_lora_trainer.base.errors import ConfigError

_FILE = {"lora_down": "lora_down.weight", "lora_mid": "lora_mid.weight", "lora_up": "lora_up.weight"}


def shapes(request: Request) -> dict[str, Shape]:
    """Return down, up and, with Tucker decomposition of larger kernels, mid.

    Linear (out, in): down (r, in), up (out, r). Conv2d (out, in, k, k): down (r, in, k, k), up (out, r, 1, 1); Tucker:
    down (r, in, 1, 1), mid (r, r, k, k).
    """
    return _shapes(request.shape, request.rank, request.config.tucker and request.method != "dylora")


def _shapes(shape: Shape, rank: int, tucker: bool) -> dict[str, Shape]:
    out, inner, *kernel = shape
    ones = (1,) * len(kernel)
    if tucker and max(kernel, default=1) > 1:
        return {
            "lora_down": (rank, inner, *ones),
            "lora_mid": (rank, rank, *kernel),
            "lora_up": (out, rank, *ones),
        }
    return {"lora_down": (rank, inner, *kernel), "lora_up": (out, rank, *ones)}


def initial(request: Request) -> dict[str, torch.Tensor]:
    """Return down as Kaiming draws it and up zero; with a learned scalar both drawn."""
    options = {
        "lora_dim": request.rank,
        "use_tucker": "lora_mid" in shapes(request),
        "use_scalar": request.config.scalar,
    }
    values = drawn("low rank", request.shape, options)
    return {name.removesuffix(".weight"): value for name, value in values.items()}


def dynamic_initial(request: Request) -> dict[str, torch.Tensor]:
    """Return down with each block of `dylora_unit` rows drawn for itself, and up zero."""
    unit = request.config.dylora_unit
    if request.rank % unit:
        raise ConfigError(
            f"{request.layer.part} {request.layer.path}: rank {request.rank} is no multiple of adapter.dylora_unit = "
            f"{unit}. Choose ranks that are."
        )
    values = drawn("dylora", request.shape, {"lora_dim": request.rank, "block_size": unit})
    blocks = range(request.rank // unit)
    wanted = shapes(request)
    return {
        "lora_down": torch.cat([values[f"down_list.{block}"] for block in blocks]).reshape(wanted["lora_down"]),
        "lora_up": torch.cat([values[f"up_list.{block}"] for block in blocks], dim=1).reshape(wanted["lora_up"]),
    }


def dynamic_traits(request: Request) -> Traits:
    """Return the traits of DyLoRA: those of LoRA, and its step of ranks."""
    config = request.config
    traits = ranked(request)
    return Traits(traits.rank, traits.alpha, config.dylora_unit, config.rank_stabilized)


def delta(adapter: Adapter) -> torch.Tensor:
    """Return alpha / rank · up · down over the whole rank, also for DyLoRA."""
    factor = adapter.traits.alpha / adapter.traits.rank * scalar(adapter)
    return _product(adapter, adapter.value("lora_down"), adapter.value("lora_up")) * factor


def _product(adapter: Adapter, down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    if adapter.has("lora_mid"):
        return torch.einsum("oa,abyx,bi->oiyx", up.flatten(1), adapter.value("lora_mid"), down.flatten(1))
    return (up.flatten(1) @ down.flatten(1)).view(adapter.shape)


def apply(adapter: Adapter, module: Any, inputs: torch.Tensor) -> torch.Tensor:
    """Return scale · up(down(inputs)), dropping what lies between; ΔW itself is formed for grouped convolutions alone."""
    traits = adapter.traits
    down: torch.Tensor = adapter.value("lora_down")
    up: torch.Tensor = adapter.value("lora_up")
    factor = traits.alpha / traits.rank * scalar(adapter)
    if traits.unit and adapter.training:
        rank = traits.unit * int(torch.randint(1, traits.rank // traits.unit + 1, ()))
        down = torch.cat([down[: rank - traits.unit].detach(), down[rank - traits.unit : rank]])
        up = torch.cat([up[:, : rank - traits.unit].detach(), up[:, rank - traits.unit : rank]], dim=1)
        factor = alpha_at(traits, rank) / rank
    if groups(module) > 1:
        with exact(inputs.device):
            formed = _product(adapter, down, up)
        return drop(adapter, run(module, inputs, formed), channel_axis(module)) * factor
    if adapter.has("lora_mid"):
        inner = run(module, point(module, inputs, down), adapter.value("lora_mid"))
    else:
        inner = run(module, inputs, down)
    # Scaled where the values are few: the output has many times as many channels as the rank.
    return point(module, drop(adapter, inner, channel_axis(module)) * factor, up)


def alpha_at(traits: Traits, rank: int) -> float:
    """Return the alpha that a file of a smaller rank of DyLoRA has.

    The scale at each rank b is alpha / b, as in the paper (Valipour et al. 2022, arXiv:2210.07558, equation 7) and as
    sd-scripts' extract_lora_from_dylora.py has it, so that alpha is the same in the file of every rank; sd-scripts
    trains with alpha / √(rank · b) instead and its extracted files differ from that training
    (test_dylora_files_are_what_was_trained_at_their_rank). Rank-stabilized: alpha / √b.
    """
    if traits.stabilized:
        return float32(traits.alpha / math.sqrt(traits.rank) * math.sqrt(rank))
    return traits.alpha


def expected(shape: Shape, tensors: Mapping[str, torch.Tensor]) -> dict[str, Shape]:
    """Return the names and shapes of a LoRA's tensors in its file; alpha may be missing."""
    rank = tensors["lora_down.weight"].shape[0]
    wanted = _shapes(shape, rank, "lora_mid.weight" in tensors)
    names = {_FILE[name]: each for name, each in wanted.items()}
    return names | ({"alpha": ()} if "alpha" in tensors else {})


def load(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], Traits]:
    """Return the values, and the traits: without alpha the scale is 1, as in the WebUI's loader."""
    values = {name: tensors[file] for name, file in _FILE.items() if file in tensors}
    rank = values["lora_down"].shape[0]
    return values, Traits(rank, float(tensors["alpha"]) if "alpha" in tensors else float(rank))


def store(adapter: Adapter) -> dict[str, torch.Tensor]:
    """Return a LoRA's tensors, the learned scalar in up."""
    return store_at(adapter, adapter.traits.rank)


def store_at(adapter: Adapter, rank: int) -> dict[str, torch.Tensor]:
    """Return the tensors of DyLoRA at a rank; where that is above the layer's own, all of them."""
    traits = adapter.traits
    kept = min(rank, traits.rank)
    tensors = {
        "lora_down.weight": adapter.value("lora_down")[:kept],
        "lora_up.weight": (adapter.value("lora_up") * scalar(adapter))[:, :kept],
        "alpha": torch.tensor(alpha_at(traits, kept)),
    }
    if adapter.has("lora_mid"):
        tensors["lora_mid.weight"] = adapter.value("lora_mid")
    return tensors


LORA = Algorithm(
    shapes=shapes,
    initial=initial,
    traits=ranked,
    delta=delta,
    apply=apply,
    marks=("lora_up.weight", "lora_down.weight"),
    expected=expected,
    load=load,
    store=store,
    drops_inside=True,
    decomposable=True,
    ups=("lora_up",),
    limits={"lora_up": 0.5, "lora_down": 0.5},
)
DYLORA = Algorithm(
    shapes=shapes,
    initial=dynamic_initial,
    traits=dynamic_traits,
    delta=delta,
    apply=apply,
    marks=(),  # its files are LoRA's
    expected=expected,
    load=load,
    store=store,
    drops_inside=True,
    ups=("lora_up",),
    limits={"lora_up": 0.5, "lora_down": 0.5},
)
