"""Adapters of single layers: made, applied, measured, written and read, whatever their method.

LyCORIS draws the initial values; forward passes and weights are computed here, so that training, merging and the
WebUI's built-in loader agree whichever version of LyCORIS is installed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from lib_lora_trainer.adapters.methods import (
    decompose,
    glora,
    hadamard,
    kronecker,
    low_rank,
    rotation,
    scaling,
    whole,
)
from lib_lora_trainer.adapters.methods.adapter import Adapter, Algorithm, Drops, Request
from lib_lora_trainer.adapters.methods.drop import drop, skips
from lib_lora_trainer.adapters.methods.operation import channel_axis, exact, full_weight, is_autocast, weight_shape
from lib_lora_trainer.adapters.methods.reading import restored
from lib_lora_trainer.adapters.methods.settings import DECOMPOSED, SCALED, problems
from lib_lora_trainer.adapters.methods.sizes import butterfly, shape_of
from lib_lora_trainer.adapters.targets import Assignment, Layer, Target
from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.base.seeds import derive
from lib_lora_trainer.config.adapter import AdapterConfig

__all__ = [
    "Adapter",
    "bias_delta",
    "build",
    "dylora_ranks",
    "file_tensors",
    "limit_norm",
    "output_delta",
    "parameter_count",
    "problems",
    "restore",
    "supports",
    "up_parameters",
    "weight_delta",
]

_ALGORITHMS: dict[str, Algorithm] = {
    "lora": low_rank.LORA,
    "locon": low_rank.LORA,
    "loha": hadamard.LOHA,
    "lokr": kronecker.LOKR,
    "ia3": scaling.IA3,
    "dylora": low_rank.DYLORA,
    "oft": rotation.OFT,
    "boft": rotation.BOFT,
    "glora": glora.GLORA,
    "full": whole.FULL,
}


def supports(layer: Layer, method: str) -> bool:
    """Tell whether a method can adapt a layer: glora convolutions cannot, boft odd numbers of outputs."""
    if layer.norm:
        return True
    if method == "glora":
        return not layer.conv
    return method != "boft" or butterfly(layer.outputs, 1) is not None


def build(target: Target, assignment: Assignment, config: AdapterConfig, seed: int) -> Adapter:
    """Return a new adapter for one layer, float32 on the CPU, in training mode, whose delta is zero.

    Draws are addressed by `seed` and the layer's path; the process's generators stay as they are. Norms get the
    differences of weight and bias whatever the method. Options that a method lacks, which only a rule for some layers
    can bring together with it, do not act there.
    Raises UserError when lycoris-lora is missing, ConfigError when the method cannot adapt the layer.
    """
    request = _request(target.layer, weight_shape(target.module), assignment, config)
    algorithm = _algorithm(request)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, f"adapter {target.layer.part}.{target.layer.path}"))
        values = algorithm.initial(request)
    if _decomposes(request):
        values["dora_scale"] = decompose.magnitudes(full_weight(target.module, torch.device("cpu")))
    _compare(values, _shapes(request), target.layer)
    return Adapter(target, algorithm, algorithm.traits(request), values, _drops(config)).train()


def restore(target: Target, tensors: Mapping[str, torch.Tensor], config: AdapterConfig | None = None) -> Adapter:
    """Return the adapter whose tensors in a file these are, by their names without the layer's key; ready to train.

    Method, rank and options are read off the names and shapes; DyLoRA's files are LoRA's. config: where its dropout
    comes from, for the file has none.
    Raises DataError that names the layer when a tensor is missing, unknown or of another shape than the layer's.
    """
    algorithms = (*dict.fromkeys(_ALGORITHMS.values()), whole.NORM)
    return restored(target, tensors, algorithms, _drops(config) if config else Drops()).train()


def output_delta(adapter: torch.nn.Module, module: Any, inputs: torch.Tensor, strength: float) -> torch.Tensor:
    """Return what the adapter adds to its layer's output for the layer's inputs.

    module: the layer, whose weight is read at each call, so it may be a view. Changes of weights are formed in float32
    and never added to the base weight, where half precision would round small ones away; products run in autocast's
    type where it is on, else in float32, also for half-precision inputs (the WebUI's --upcast-sampling).
    A call that module_dropout leaves out returns a zero without dimensions.
    """
    adapter = _own(adapter)
    if skips(adapter):
        return next(adapter.parameters()).flatten()[0] * 0  # keeps a graph when every layer is left out
    if inputs.dtype in (torch.float16, torch.bfloat16) and not is_autocast(inputs.device):
        inputs = inputs.float()
    if adapter.has("dora_scale"):
        rest, inputs = decompose.apply(adapter, module, inputs)
        added = _applied(adapter, module, inputs) + rest
    else:
        added = _applied(adapter, module, inputs)
    return added if strength == 1 else added * strength


def _applied(adapter: Adapter, module: Any, inputs: torch.Tensor) -> torch.Tensor:
    added = adapter.algorithm.apply(adapter, module, inputs)
    return added if adapter.algorithm.drops_inside else drop(adapter, added, channel_axis(module))


def weight_delta(adapter: torch.nn.Module) -> torch.Tensor:
    """Return the change of the layer's weight at strength 1, in its shape, float32; without dropout."""
    adapter = _own(adapter)
    with exact(next(adapter.parameters()).device):
        if adapter.has("dora_scale"):
            return decompose.weight_delta(adapter)
        return adapter.algorithm.delta(adapter)


def bias_delta(adapter: torch.nn.Module) -> torch.Tensor | None:
    """Return the change of the layer's bias at strength 1 (full, norms), None for methods that leave it alone."""
    return whole.bias_delta(_own(adapter))


@torch.no_grad()
def file_tensors(adapter: torch.nn.Module, rank: int | None = None) -> dict[str, torch.Tensor]:
    """Return the adapter's tensors by their names in a file, as the WebUI's loader reads them; float32 but on_input.

    The learned scalar is part of a factor. rank: of DyLoRA, the rank whose file this is.
    """
    adapter = _own(adapter)
    tensors = adapter.algorithm.store(adapter)
    if rank is not None and adapter.traits.unit:
        tensors = low_rank.store_at(adapter, rank)
    if adapter.has("dora_scale"):
        tensors["dora_scale"] = adapter.value("dora_scale")
    return {name: tensor.detach() for name, tensor in tensors.items()}


def parameter_count(layer: Layer, assignment: Assignment, config: AdapterConfig) -> int:
    """Return how many values `build` will train for a layer, by formula."""
    request = _request(layer, shape_of(layer), assignment, config)
    return sum(math.prod(shape) for shape in _shapes(request).values())


def up_parameters(adapter: torch.nn.Module) -> tuple[torch.nn.Parameter, ...]:
    """Return the factors that LoRA+ (Hayou et al. 2024, arXiv:2402.12354) trains faster: those on the output side.

    That is what its argument is about: their products sum over the rank, those of the others over the layer's inputs.
    lora: up; loha: w1_a, w2_a; lokr: w1_a, w2_a where a factor is of low rank; glora: a2, b2; the rest has none.
    sd-scripts and LyCORIS raise lora's up alone.
    """
    adapter = _own(adapter)
    return tuple(adapter.value(name) for name in adapter.algorithm.ups if adapter.has(name))


@torch.no_grad()
def limit_norm(adapter: torch.nn.Module, largest: float) -> bool:
    """Scale the adapter down so that the Frobenius norm of its delta is at most `largest`; tell whether it was above.

    As sd-scripts' max norm (networks/lora.py, apply_max_norm_regularization): the factors share the reduction evenly.
    Of DoRA the norm is that of ΔW before it is normalized; biases and learned scalars stay. oft and boft have no scale
    to reduce: they stay as they are, `oft_constraint` limits them.
    """
    adapter = _own(adapter)
    if adapter.algorithm.limits is None:
        return False
    with exact(next(adapter.parameters()).device):
        norm = adapter.algorithm.delta(adapter).norm()
    if not bool(norm > largest):
        return False
    for name, power in adapter.algorithm.limits.items():
        if adapter.has(name):
            adapter.value(name).mul_((largest / norm) ** power)
    return True


def dylora_ranks(adapter: torch.nn.Module) -> tuple[int, ...]:
    """Return the ranks at which a DyLoRA can be used, its own last; none for other methods."""
    traits = _own(adapter).traits
    return tuple(range(traits.unit, traits.rank + 1, traits.unit)) if traits.unit else ()


def _own(adapter: torch.nn.Module) -> Adapter:
    if not isinstance(adapter, Adapter):
        raise TypeError(f"{type(adapter).__name__} is no adapter of this package; make one with `build` or `restore`.")
    return adapter


def _request(layer: Layer, shape: tuple[int, ...], assignment: Assignment, config: AdapterConfig) -> Request:
    return Request(layer, shape, assignment.method, assignment.rank, assignment.alpha, config)


def _algorithm(request: Request) -> Algorithm:
    layer = request.layer
    if layer.norm:
        return whole.NORM
    if not supports(layer, request.method):
        raise ConfigError(
            f"{layer.part} {layer.path}: {request.method} cannot adapt this layer ({' × '.join(map(str, request.shape))}). "
            "Choose other layers or another method for it."
        )
    return _ALGORITHMS[request.method]


def _decomposes(request: Request) -> bool:
    return request.config.weight_decompose and request.method in DECOMPOSED and not request.layer.norm


def _shapes(request: Request) -> dict[str, tuple[int, ...]]:
    shapes = _algorithm(request).shapes(request)
    if request.config.scalar and request.method in SCALED and not request.layer.norm:
        shapes["scalar"] = ()
    if _decomposes(request):
        shapes["dora_scale"] = decompose.shape_of(request.shape)
    return shapes


def _compare(values: Mapping[str, torch.Tensor], wanted: Mapping[str, tuple[int, ...]], layer: Layer) -> None:
    made = {name: tuple(value.shape) for name, value in values.items()}
    if made != dict(wanted):
        raise ConfigError(
            f"{layer.part} {layer.path}: the installed lycoris-lora makes {made} instead of {dict(wanted)}. Install "
            "version 3.4.0 or 4.1.3."
        )


def _drops(config: AdapterConfig) -> Drops:
    return Drops(config.dropout, config.rank_dropout, config.module_dropout)
