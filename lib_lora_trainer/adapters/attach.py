"""Attachment: adapters act on a model without touching a weight of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from lib_lora_trainer.adapters import methods
from lib_lora_trainer.adapters.targets import Layer, Target
from lib_lora_trainer.base.errors import RunConflict

_MARK = "_lora_trainer_adapter"


class Attachment:
    """Adapters in force on a model's layers, from `attach` to `detach`.

    strength: factor of every delta; 0 is the unmodified model. Leaving the `with` block detaches.
    """

    def __init__(self, targets: Sequence[Target], adapters: Mapping[Layer, torch.nn.Module]) -> None:
        self.strength = 1.0
        self.adapters = dict(adapters)
        self._targets = tuple(target for target in targets if target.layer in self.adapters)
        self._attached: list[torch.nn.Module] = []
        if len(self._targets) != len(self.adapters):
            missing = set(self.adapters) - {target.layer for target in self._targets}
            raise RunConflict(f"{len(missing)} adapters have no layer in this model, e.g. {next(iter(missing)).path}.")

    def attach(self) -> None:
        """Put every adapter in force. Raises RunConflict, with nothing attached, when a layer has one already."""
        taken = [target.layer.path for target in self._targets if hasattr(target.module, _MARK)]
        if taken:
            raise RunConflict(f"{len(taken)} layers carry an adapter, e.g. {taken[0]}. End the other run first.")
        for target in self._targets:
            target.module.__dict__[_MARK] = (self.adapters[target.layer], target.module.__dict__.get("forward"))
            target.module.__dict__["forward"] = self._forward_of(target.module)
            self._attached.append(target.module)

    def detach(self) -> None:
        """Leave every layer as it was before `attach`; doing it twice is harmless."""
        for module in self._attached:
            _, before = module.__dict__.pop(_MARK)
            if before is None:
                del module.__dict__["forward"]
            else:
                module.__dict__["forward"] = before
        self._attached.clear()

    def _forward_of(self, module: torch.nn.Module) -> Callable[..., torch.Tensor]:
        adapter, before = module.__dict__[_MARK]

        def forward(inputs: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
            # The class's forward is looked up at each call: the WebUI's Lora extension patches and unpatches it.
            output = (
                type(module).forward(module, inputs, *arguments, **options)
                if before is None
                else before(inputs, *arguments, **options)
            )
            if self.strength == 0:
                return output
            added = methods.output_delta(adapter, module, inputs, self.strength)
            return output + added.to(output.dtype)

        return forward

    def __enter__(self) -> Attachment:
        self.attach()
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    @contextmanager
    def at_strength(self, strength: float) -> Iterator[None]:
        """Use another strength inside the block."""
        before, self.strength = self.strength, strength
        try:
            yield
        finally:
            self.strength = before
