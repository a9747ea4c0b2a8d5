"""The processes that train together: one per device under `accelerate launch`, else this one alone."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch

from lib_lora_trainer.base import launch
from lib_lora_trainer.base.control import Wish
from lib_lora_trainer.base.errors import UserError

_WISHES: tuple[Wish, ...] = ("go", "pause", "stop")


class Processes(Protocol):
    """What training needs to know of the other processes. rank 0 writes files and makes samples."""

    @property
    def rank(self) -> int:
        """The number of this process, from 0."""

    @property
    def count(self) -> int:
        """How many processes there are."""

    def sum(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor by its sum over all processes; all processes call it with equal shapes."""

    def agree(self, wish: Wish) -> Wish:
        """Return the wish of rank 0 to every process."""

    def wait(self) -> None:
        """Return when every process has come here."""


class Alone:
    """The usual case: one process."""

    rank = 0
    count = 1

    def sum(self, tensors: Sequence[torch.Tensor]) -> None:
        """Leave the tensors as they are."""

    def agree(self, wish: Wish) -> Wish:
        """Return the wish."""
        return wish

    def wait(self) -> None:
        """Return at once."""


class Several:
    """Processes of one torch.distributed group, which has been opened before."""

    def __init__(self, device: torch.device) -> None:
        self.rank = torch.distributed.get_rank()
        self.count = torch.distributed.get_world_size()
        self._device = device

    def sum(self, tensors: Sequence[torch.Tensor]) -> None:
        """Sum tensors over all processes in place, in one message."""
        if not tensors:
            return
        flat = torch.cat([tensor.detach().flatten().to(self._device, torch.float32) for tensor in tensors])
        torch.distributed.all_reduce(flat)
        start = 0
        with torch.no_grad():
            for tensor in tensors:
                part = flat[start : start + tensor.numel()].view(tensor.shape)
                tensor.copy_(part)
                start += tensor.numel()

    def agree(self, wish: Wish) -> Wish:
        """Return what rank 0 wishes."""
        number = torch.tensor([_WISHES.index(wish)], device=self._device)
        torch.distributed.broadcast(number, src=0)
        return _WISHES[int(number.item())]

    def wait(self) -> None:
        """Wait for the others; a sum, because gloo and nccl both know it on every device."""
        torch.distributed.all_reduce(torch.zeros(1, device=self._device))


def processes(device: torch.device) -> Processes:
    """Return the processes of the distributed group, or this process alone when there is none."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        return Several(device)
    return Alone()


@contextmanager
def joined() -> Iterator[None]:
    """Open the group of processes that `accelerate launch` started, and close it at the end; alone, do nothing.

    Raises UserError when accelerate is missing.
    """
    if launch.count() == 1:
        yield
        return
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise UserError(f"Training in several processes needs accelerate ({error}): pip install accelerate.") from error
    # The functions of this module keep the group that is open when it is first imported as their default argument, and
    # optimizers import it (through torch._dynamo). A group kept so outlives destroy_process_group, and its threads abort
    # the process when Python ends: so it is imported while there is none (test_processes.py).
    importlib.import_module("torch.distributed.nn.functional")
    PartialState()
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()
