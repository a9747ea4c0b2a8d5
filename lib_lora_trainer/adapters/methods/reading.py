"""From a layer's tensors in an adapter file to its adapter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from lib_lora_trainer.adapters.methods import decompose
from lib_lora_trainer.adapters.methods.adapter import Adapter, Algorithm, Drops, Shape
from lib_lora_trainer.adapters.methods.operation import weight_shape
from lib_lora_trainer.adapters.targets import Target
from lib_lora_trainer.base.errors import DataError

_PEFT = {"lora_A.weight": "lora_down.weight", "lora_B.weight": "lora_up.weight"}
_MAGNITUDES = "dora_scale"


def restored(
    target: Target, tensors: Mapping[str, torch.Tensor], algorithms: Iterable[Algorithm], drops: Drops
) -> Adapter:
    """Return the adapter with these tensors, by the first algorithm of whose marks one is among them.

    Trailing dimensions of size 1 do not count: some files have 1×1 convolutions as matrices, or matrices as those.
    Raises DataError naming the layer.
    """
    where = f"{target.layer.part} {target.layer.path}"
    named = {_PEFT.get(name, name): tensor for name, tensor in tensors.items()}
    algorithm = next((each for each in algorithms if not named.keys().isdisjoint(each.marks)), None)
    if algorithm is None:
        raise DataError(f"{where}: {', '.join(sorted(named))} is no adapter that can be read. Use another file.")
    shape = weight_shape(target.module)
    wanted = _wanted(where, algorithm, shape, named)
    missing, unknown = sorted(set(wanted) - set(named)), sorted(set(named) - set(wanted))
    if missing:
        raise DataError(f"{where}: {', '.join(missing)} is missing. The file is damaged; use another.")
    if unknown:
        raise DataError(f"{where}: {', '.join(unknown)} cannot be read beside {', '.join(wanted)}. Use another file.")
    given = {name: _fitted(where, name, tensor, wanted[name]) for name, tensor in named.items()}
    values, traits = algorithm.load(given)
    magnitudes = {name: given[name] for name in (_MAGNITUDES,) if name in given}
    return Adapter(target, algorithm, traits, {**values, **magnitudes}, drops)


def _wanted(where: str, algorithm: Algorithm, shape: Shape, named: Mapping[str, torch.Tensor]) -> Mapping[str, Shape]:
    try:
        wanted = algorithm.expected(shape, named)
    except KeyError as error:
        raise DataError(f"{where}: {error.args[0]} is missing. The file is damaged; use another.") from error
    except (ValueError, IndexError) as error:
        raise DataError(f"{where}: {error}. The file is for another model.") from error
    if algorithm.decomposable and _MAGNITUDES in named:
        return {**wanted, _MAGNITUDES: decompose.shape_of(shape)}
    return wanted


def _fitted(where: str, name: str, tensor: torch.Tensor, shape: Shape) -> torch.Tensor:
    if _core(tuple(tensor.shape)) == _core(shape):
        return tensor.reshape(shape)
    text = f"{where}: {name} is {tuple(tensor.shape)} instead of {shape}"
    if name == _MAGNITUDES and len(tensor.shape) > 1 and _core(tuple(tensor.shape)) == tuple(tensor.shape[:1]):
        raise DataError(f"{text}: DoRA of outputs, which the WebUI reads wrongly. Use a file with DoRA of inputs.")
    raise DataError(f"{text}. The file is for another model.")


def _core(shape: Shape) -> Shape:
    """Return a shape without the ones at its end."""
    sizes = list(shape)
    while sizes and sizes[-1] == 1:
        sizes.pop()
    return tuple(sizes)
