"""An adapter of one layer: its trained values, and the functions of its method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from lib_lora_trainer.adapters.targets import Layer, Target
from lib_lora_trainer.config.adapter import AdapterConfig

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Drops:
    """Shares left out at random in training: of the inner values, of the rank, and of calls of the whole adapter."""

    values: float = 0.0
    rank: float = 0.0
    module: float = 0.0


@dataclass(frozen=True)
class Traits:
    """What of an adapter is fixed. alpha: as in the file, exactly representable in float32, so that a loader's
    alpha / rank is the scale of training.

    unit, stabilized: dylora's step of ranks, and whether its scale is alpha / √rank; constraint: oft's and boft's;
    on_input: ia3 scales inputs instead of outputs.
    """

    rank: int = 1
    alpha: float = 1.0
    unit: int = 0
    stabilized: bool = False
    constraint: float = 0.0
    on_input: bool = False


@dataclass(frozen=True)
class Request:
    """What a new adapter is asked for. shape: of the layer's weight; rank, alpha: of this layer."""

    layer: Layer
    shape: Shape
    method: str
    rank: int
    alpha: float
    config: AdapterConfig


@dataclass(frozen=True, eq=False)
class Algorithm:
    """A method as functions.

    shapes(request): the trained values by name; initial(request): they, as training starts, on the CPU;
    traits(request): what is fixed.
    delta(adapter): the change of the weight before DoRA, in the weight's shape, in float32;
    apply(adapter, module, inputs): the layer's operation on inputs with that change alone, bias included.
    drops_inside: `apply` drops inner values itself; decomposable: DoRA can be on top.
    marks: names by which a file's tensors are known to be of this method; expected(shape, tensors): their names and
    shapes for a weight of this shape, KeyError for a missing one, ValueError with a sentence for what does not fit;
    load(tensors): values and traits of them; store(adapter): the tensors of a file.
    ups: the factors on the output side (LoRA+); limits: to which power of a factor each value is multiplied to
    multiply the change by it.
    """

    shapes: Callable[[Request], dict[str, Shape]]
    initial: Callable[[Request], dict[str, torch.Tensor]]
    traits: Callable[[Request], Traits]
    delta: Callable[[Adapter], torch.Tensor]
    apply: Callable[[Adapter, Any, torch.Tensor], torch.Tensor]
    marks: tuple[str, ...]
    expected: Callable[[Shape, Mapping[str, torch.Tensor]], dict[str, Shape]]
    load: Callable[[Mapping[str, torch.Tensor]], tuple[dict[str, torch.Tensor], Traits]]
    store: Callable[[Adapter], dict[str, torch.Tensor]]
    drops_inside: bool = False
    decomposable: bool = False
    ups: tuple[str, ...] = ()
    limits: Mapping[str, float] | None = None


class Adapter(torch.nn.Module):
    """Trained values of one layer, float32, as parameters. The base module is known but is no submodule."""

    def __init__(
        self,
        target: Target,
        algorithm: Algorithm,
        traits: Traits,
        values: Mapping[str, torch.Tensor],
        drops: Drops = Drops(),
    ) -> None:
        super().__init__()
        self.layer = target.layer
        self.algorithm = algorithm
        self.traits = traits
        self.drops = drops
        self._base = (target.module,)
        for name, value in values.items():
            copied = value.detach().to(device="cpu", dtype=torch.float32, copy=True).contiguous()
            self.register_parameter(name, torch.nn.Parameter(copied))

    @property
    def base(self) -> Any:
        """The layer's module."""
        return self._base[0]

    @property
    def shape(self) -> Shape:
        """The shape of the layer's weight."""
        return tuple(self.base.weight.shape)

    def has(self, name: str) -> bool:
        """Tell whether there is a trained value of this name."""
        return name in self._parameters

    def value(self, name: str) -> torch.nn.Parameter:
        """Return a trained value."""
        found = self._parameters[name]
        assert found is not None
        return found


def scalar(adapter: Adapter) -> torch.Tensor | float:
    """Return the learned factor of a layer, 1 where there is none."""
    return adapter.value("scalar") if adapter.has("scalar") else 1.0
