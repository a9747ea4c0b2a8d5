"""VAE and text encoders in main memory while they are not needed, on the device when they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch

from lib_lora_trainer.hosts.api import Idle

Move = Callable[[torch.Tensor, torch.device], None]
MAIN_MEMORY = torch.device("cpu")


def slots(network: torch.nn.Module) -> Iterator[tuple[torch.nn.Module, str]]:
    """Yield where parameters and buffers are: the module and the name. `Module.to` puts new objects in buffers' places."""
    for module in network.modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                yield module, name


def move(tensor: torch.Tensor, device: torch.device) -> None:
    """Bring a tensor to a device; it stays the same object. One on the meta device was unloaded, and stays there."""
    if tensor.device != device and not tensor.is_meta:
        tensor.data = tensor.data.to(device)


class Offload:
    """Which parts are away, from entering to leaving; then every tensor is again on the device that it was on.

    active: whether anything moves at all. move: how one tensor moves. moved: called after every movement.
    """

    def __init__(
        self,
        parts: Mapping[Idle, Sequence[torch.nn.Module]],
        active: bool,
        moved: Callable[[], None] = lambda: None,
        move: Move = move,
    ) -> None:
        self._parts = parts
        self._active = active
        self._moved = moved
        self._move = move
        self._homes: dict[Idle, list[tuple[torch.nn.Module, str, torch.device]]] = {}
        self._idle: set[Idle] = set()
        self._away: set[Idle] = set()

    def __enter__(self) -> Offload:
        for part, networks in self._parts.items():
            places = [place for network in networks for place in slots(network)]
            self._homes[part] = [(module, name, getattr(module, name).device) for module, name in places]
        return self

    def __exit__(self, *_: object) -> None:
        self._idle.clear()
        self.use(*self._parts)

    def idle(self, *parts: Idle) -> None:
        """Send parts away that are not needed until the next call. Others come back when they are used."""
        self._idle = set(parts)
        if self._active:
            self._send(self._idle - self._away)

    def use(self, *parts: Idle) -> None:
        """Have parts where they compute; they stay there until `idle` names them again."""
        wanted = [part for part in parts if part in self._away]
        for part in wanted:
            for module, name, home in self._homes[part]:
                self._move(getattr(module, name), home)
            self._away.discard(part)
        if wanted:
            self._moved()

    @contextmanager
    def lent(self, *parts: Idle) -> Iterator[None]:
        """Have parts where they compute inside the block; those of them that are idle then go away again."""
        self.use(*parts)
        try:
            yield
        finally:
            if self._active:
                self._send(self._idle.intersection(parts) - self._away)

    def _send(self, parts: set[Idle]) -> None:
        for part in sorted(parts):
            for module, name, _ in self._homes[part]:
                self._move(getattr(module, name), MAIN_MEMORY)
            self._away.add(part)
        if parts:
            self._moved()
