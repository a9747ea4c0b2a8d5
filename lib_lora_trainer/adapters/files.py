"""Adapters to the tensors of an adapter file, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from lib_lora_trainer.adapters import methods
from lib_lora_trainer.adapters.keys import file_key
from lib_lora_trainer.adapters.targets import Layer, Target
from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.base.families import Family


def to_tensors(
    adapters: Mapping[Layer, torch.nn.Module], family: Family, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """Return the tensors of an adapter file by their full keys, contiguous, on the CPU.

    alpha stays float32, so that alpha / rank is exact whatever the file's precision.
    """
    tensors = {}
    for layer, adapter in adapters.items():
        key = file_key(layer, family)
        for name, tensor in methods.file_tensors(adapter).items():
            kept = torch.float32 if name == "alpha" else dtype
            tensors[f"{key}.{name}"] = tensor.to(device="cpu", dtype=kept, copy=True).contiguous()
    return tensors


def from_tensors(
    tensors: Mapping[str, torch.Tensor], targets: Sequence[Target], family: Family
) -> dict[Layer, torch.nn.Module]:
    """Return float32 adapters with an adapter file's tensors, for the targets it names.

    Raises DataError when the file names layers that the model does not have.
    """
    by_key = {file_key(target.layer, family): target for target in targets}
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        key, _, part = name.partition(".")
        parts.setdefault(key, {})[part] = tensor
    unknown = sorted(set(parts) - set(by_key))
    if unknown:
        raise DataError(f"the adapter has {len(unknown)} layers that this model lacks, e.g. {unknown[0]}.")
    return {by_key[key].layer: methods.restore(by_key[key], content) for key, content in parts.items()}
