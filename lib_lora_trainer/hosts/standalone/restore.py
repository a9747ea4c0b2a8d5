"""What a lease must put back, and the blocks of the networks that it may wrap while it lasts."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from lib_lora_trainer.base.errors import TrainerError

_OWN_MARK = "_lora_trainer"


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Put back the state of every global random generator (torch, CUDA, numpy, random) after the block."""
    numbers, arrays, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002  kept, not used
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(numbers)
        np.random.set_state(arrays)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if devices:
            torch.cuda.set_rng_state_all(devices)


@contextmanager
def kept_flags(networks: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Freeze networks in evaluation mode inside the block; put back every `requires_grad` and `training` flag after it.

    Gradients that were collected on the networks' own parameters are dropped.
    """
    networks = tuple(networks)
    modules = [(module, module.training) for network in networks for module in network.modules()]
    parameters = [(value, value.requires_grad, value.grad) for network in networks for value in network.parameters()]
    for network in networks:
        network.eval().requires_grad_(requires_grad=False)
    try:
        yield
    finally:
        for module, training in modules:
            module.training = training
        for parameter, required, gradient in parameters:
            parameter.requires_grad_(required)
            parameter.grad = gradient


@contextmanager
def kept_attachments(networks: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Put back instance-level `forward`s, hooks and submodules after the block.

    Whoever attaches an adapter also takes it off; one that is found afterwards is removed and, unless another exception
    is on its way, reported as TrainerError.
    """
    before = [(module, _attachments(module)) for network in networks for module in network.modules()]
    yielded = False
    try:
        yield
        yielded = True
    finally:
        left = [type(module).__name__ for module, state in before if _undo(module, state)]
        if left and yielded:
            raise TrainerError(f"{len(left)} modules had something attached when the lease ended, e.g. a {left[0]}.")


def _attachments(module: torch.nn.Module) -> tuple[dict[Any, Any], ...]:
    own = {name: value for name, value in vars(module).items() if name == "forward" or name.startswith(_OWN_MARK)}
    return own, *(dict(table) for table in _tables(module))


def _tables(module: torch.nn.Module) -> tuple[dict[Any, Any], ...]:
    return module._modules, module._forward_hooks, module._forward_pre_hooks, module._backward_hooks


def _undo(module: torch.nn.Module, state: tuple[dict[Any, Any], ...]) -> bool:
    """Return whether anything had to be undone."""
    found = _attachments(module)
    if all(_same(now, then) for now, then in zip(found, state, strict=True)):
        return False
    for name in found[0]:
        del module.__dict__[name]
    module.__dict__.update(state[0])
    for table, content in zip(_tables(module), state[1:], strict=True):
        table.clear()
        table.update(content)
    return True


def _same(first: dict[Any, Any], second: dict[Any, Any]) -> bool:
    return first.keys() == second.keys() and all(first[name] is second[name] for name in first)


@contextmanager
def in_dtype(networks: Iterable[torch.nn.Module], dtype: torch.dtype) -> Iterator[None]:
    """Hold networks in a wider dtype inside the block and round back after it, which restores every bit."""
    networks = tuple(networks)
    before = [next(network.parameters()).dtype for network in networks]
    for network in networks:
        network.to(dtype)
    try:
        yield
    finally:
        for network, narrow in zip(networks, before, strict=True):
            network.to(narrow)


def unet_blocks(unet: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the UNet's transformer and residual blocks."""
    from diffusers.models.attention import BasicTransformerBlock
    from diffusers.models.resnet import ResnetBlock2D

    return [module for module in unet.modules() if isinstance(module, (BasicTransformerBlock, ResnetBlock2D))]


def text_blocks(encoder: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the layers of a text encoder."""
    from transformers.models.clip.modeling_clip import CLIPEncoderLayer

    return [module for module in encoder.modules() if isinstance(module, CLIPEncoderLayer)]
