"""An adapter file to go on from: which layers it has and how large they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from lib_lora_trainer.adapters.keys import file_key
from lib_lora_trainer.adapters.targets import Layer
from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.base.families import Family

_UNTRAINED = (".alpha", ".on_input")


def read(path: Path) -> dict[str, torch.Tensor]:
    """Return an adapter file's tensors. Raises DataError naming the file when it cannot be read."""
    try:
        with safe_open(str(path), framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: cannot be read as an adapter ({error}). Choose a .safetensors file.") from error


def layers_in(path: Path, layers: Sequence[Layer], family: Family) -> Mapping[Layer, int]:
    """Return the model's layers that a file adapts, in the model's order, with the number of values it has for each.

    Only the file's header is read. Raises DataError when it cannot be, or names layers that the model lacks.
    """
    counts: dict[str, int] = {}
    try:
        with safe_open(str(path), framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                key = name.partition(".")[0]
                trained = 0 if name.endswith(_UNTRAINED) else math.prod(file.get_slice(name).get_shape())
                counts[key] = counts.get(key, 0) + trained
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: cannot be read as an adapter ({error}). Choose a .safetensors file.") from error
    found = {layer: counts.pop(key) for layer in layers if (key := file_key(layer, family)) in counts}
    if counts:
        raise DataError(
            f"{path}: {len(counts)} of its layers are not in this {family} model, e.g. {min(counts)}. Choose an adapter "
            "for a model of this family."
        )
    return found
