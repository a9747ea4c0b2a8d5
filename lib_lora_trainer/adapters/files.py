"""Adapters to the tensors of an adapter file, and back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from lib_lora_trainer.adapters import methods
from lib_lora_trainer.adapters.keys import file_key, is_open_clip
from lib_lora_trainer.adapters.methods import Adapter
from lib_lora_trainer.adapters.targets import Layer, Target
from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.base.families import Family
from lib_lora_trainer.config.adapter import AdapterConfig

# alpha / rank has to be exact; the others multiply the whole weight, whose rounding would drown what was learned
# (test_files_in_half_precision_keep_what_multiplies_the_weight).
_FLOAT32 = ("alpha", "dora_scale", "rescale")
_ATTENTION = re.compile(r"(.*\.self_attn)\.(q|k|v|out)_proj")


def to_tensors(
    adapters: Mapping[Layer, torch.nn.Module], family: Family, dtype: torch.dtype, dylora_rank: int | None = None
) -> dict[str, torch.Tensor]:
    """Return the tensors of an adapter file by their full keys, contiguous, on the CPU.

    Numbers are of `dtype`, but alpha, dora_scale and rescale float32 and IA³'s on_input a whole number.
    dylora_rank: the rank, one of `dylora_ranks`, whose file this is; None: the whole adapter.
    Of OpenCLIP's attention the WebUI's loader reads q, k, v and out together or not at all: what was not trained of
    them is there as a LoRA of zeros, which `from_tensors` passes over.
    """
    tensors = {}
    for layer, adapter in adapters.items():
        key = file_key(layer, family)
        for name, tensor in methods.file_tensors(adapter, dylora_rank).items():
            kept = torch.float32 if name in _FLOAT32 else dtype if tensor.is_floating_point() else tensor.dtype
            tensors[f"{key}.{name}"] = tensor.to(device="cpu", dtype=kept, copy=True).contiguous()
    for layer in _absent(tuple(adapters), family):
        key = file_key(layer, family)
        tensors[f"{key}.lora_down.weight"] = torch.zeros(1, layer.inputs, dtype=dtype)
        tensors[f"{key}.lora_up.weight"] = torch.zeros(layer.outputs, 1, dtype=dtype)
        tensors[f"{key}.alpha"] = torch.tensor(1.0)
    return tensors


def dylora_ranks(adapters: Mapping[Layer, torch.nn.Module]) -> tuple[int, ...]:
    """Return the ranks below the largest at which DyLoRA's adapters can be written: unit, 2 · unit and so on.

    The largest one is the adapter itself. A layer whose rank is smaller is written whole in the files of higher ranks.
    Empty for other methods.
    """
    found = {rank for adapter in adapters.values() for rank in methods.dylora_ranks(adapter)}
    return tuple(sorted(found))[:-1]


def from_tensors(
    tensors: Mapping[str, torch.Tensor],
    targets: Sequence[Target],
    family: Family,
    config: AdapterConfig | None = None,
) -> dict[Layer, Adapter]:
    """Return float32 adapters with an adapter file's tensors, for the targets it names; config: for dropout alone.

    Raises DataError when the file names layers that the model does not have, or has others' tensors for them.
    """
    by_key = {file_key(target.layer, family): target for target in targets}
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        key, _, part = name.partition(".")
        parts.setdefault(key, {})[part] = tensor
    unknown = sorted(set(parts) - set(by_key))
    if unknown:
        raise DataError(f"the adapter has {len(unknown)} layers that this model lacks, e.g. {unknown[0]}.")
    return {
        by_key[key].layer: methods.restore(by_key[key], content, config)
        for key, content in parts.items()
        if not _is_placeholder(by_key[key].layer, family, content)
    }


def _absent(layers: Sequence[Layer], family: Family) -> Iterator[Layer]:
    """Yield the projections of OpenCLIP's attention that are not among the layers while others of theirs are."""
    there = set(layers)
    for layer in layers:
        match = _ATTENTION.fullmatch(layer.path)
        if match is None or not is_open_clip(layer, family):
            continue
        for name in ("q", "k", "v", "out"):
            other = replace(layer, path=f"{match[1]}.{name}_proj")
            if other not in there:
                there.add(other)
                yield other


def _is_placeholder(layer: Layer, family: Family, content: Mapping[str, torch.Tensor]) -> bool:
    """Tell whether a layer's tensors are the zeros that `to_tensors` writes for a projection that was not trained."""
    factors = [content.get(f"lora_{name}.weight") for name in ("down", "up")]
    if not is_open_clip(layer, family) or len(content) != 3:
        return False
    return all(factor is not None and min(factor.shape) == 1 and not bool(factor.any()) for factor in factors)
