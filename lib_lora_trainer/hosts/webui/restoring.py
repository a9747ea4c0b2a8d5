"""Every change a lease makes to the WebUI, as context managers that undo themselves exactly."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from modules import devices, lowvram, sd_hijack, sd_models, shared

from lib_lora_trainer.hosts.offload import slots

_ABSENT = object()
_MERGEABLE = (
    torch.nn.Linear,
    torch.nn.Conv2d,
    torch.nn.GroupNorm,
    torch.nn.LayerNorm,
    torch.nn.MultiheadAttention,
)
_HYPERTILE = "__webui_hypertile_params"


@contextmanager
def job_shown(name: str) -> Iterator[None]:
    """Show a job in the WebUI's progress state; afterwards no job runs and no interruption is pending."""
    shared.state.begin(job=name)
    try:
        yield
    finally:
        clear_interruption()
        shared.state.end()


def clear_interruption() -> None:
    """Forget presses of Interrupt and Skip, which were meant for an image in the queue."""
    shared.state.interrupted = shared.state.skipped = shared.state.stopping_generation = False


@contextmanager
def attributes_kept(owner: Any, *names: str, **values: Any) -> Iterator[None]:
    """Put `values` in place of attributes; afterwards those and `names` are what they were, or absent if they were."""
    before = {name: getattr(owner, name, _ABSENT) for name in (*names, *values)}
    try:
        for name, value in values.items():
            setattr(owner, name, value)
        yield
    finally:
        for name, value in before.items():
            if value is not _ABSENT:
                setattr(owner, name, value)
            elif hasattr(owner, name):
                delattr(owner, name)


@contextmanager
def options_set(**values: Any) -> Iterator[None]:
    """Put `values` in place of options. One that the user changes meanwhile keeps the user's value.

    Written to `opts.data`, because `opts.set` refuses under --freeze-settings and runs what belongs to the option.
    """
    data = shared.opts.data
    before = {name: data.get(name, _ABSENT) for name in values}
    try:
        data.update(values)
        yield
    finally:
        for name, value in before.items():
            if data.get(name, _ABSENT) != values[name]:
                continue
            if value is _ABSENT:
                data.pop(name, None)
            else:
                data[name] = value


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Put the generators of torch, CUDA, numpy and Python back where they were."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    before = (torch.get_rng_state(), np.random.get_state(), random.getstate())  # noqa: NPY002
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        random.setstate(before[2])
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


@contextmanager
def frozen(model: torch.nn.Module) -> Iterator[None]:
    """Switch off every parameter's gradient and the training mode of every module."""
    gradients = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    training = [module for module in model.modules() if module.training]
    try:
        for parameter, _ in gradients:
            parameter.requires_grad_(False)
        for module in training:
            module.training = False
        yield
    finally:
        for parameter, wanted in gradients:
            parameter.requires_grad_(wanted)
        for module in training:
            module.training = True


@contextmanager
def forwards_kept(model: torch.nn.Module) -> Iterator[None]:
    """Put back the instance-level `forward` that each module had, or none: an adapter left attached is removed."""
    before = [(module, module.__dict__.get("forward")) for module in model.modules()]
    try:
        yield
    finally:
        for module, forward in before:
            if forward is not None:
                module.__dict__["forward"] = forward
            else:
                module.__dict__.pop("forward", None)


@contextmanager
def precision_kept(model: torch.nn.Module) -> Iterator[None]:
    """Put tensors back to their type and device; half precision survives the way to float32 and back unchanged."""
    tensors = ((module, name, getattr(module, name)) for module, name in slots(model))
    before = [(module, name, tensor.dtype, tensor.device) for module, name, tensor in tensors]
    try:
        yield
    finally:
        for module, name, dtype, device in before:
            tensor = getattr(module, name)
            if (tensor.dtype, tensor.device) != (dtype, device) and not tensor.is_meta:
                tensor.data = tensor.data.to(device=device, dtype=dtype)


def place(model: Any) -> None:
    """Hold UNet and text encoders on the device together; with --medvram the WebUI keeps one at a time there."""
    if model.lowvram:
        lowvram.send_everything_to_cpu()
        model.model.to(devices.device)
        model.cond_stage_model.to(devices.device)


@contextmanager
def placed(model: Any) -> Iterator[None]:
    """As `place`; afterwards, with --medvram, everything is in main memory, where the WebUI takes it from."""
    if model.lowvram:
        lowvram.send_everything_to_cpu()
    with precision_kept(model):
        try:
            place(model)
            yield
        finally:
            if model.lowvram:
                lowvram.send_everything_to_cpu()


def take_out_networks(model: torch.nn.Module) -> None:
    """Undo what `<lora:…>` tags of the last generation merged into the weights.

    The built-in Lora extension does the same at the next generation without tags, and merges anew at the next one
    with tags; so nothing is put back afterwards.
    """
    networks = lora_extension()
    if networks is None:
        return
    networks.load_networks([])
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, _MERGEABLE) and hasattr(module, "network_layer_name"):
                networks.network_apply_weights(module)


def lora_extension() -> Any:
    """Return the built-in Lora extension's module `networks`, or None if the user switched the extension off."""
    networks = sys.modules.get("networks")
    return networks if hasattr(networks, "network_apply_weights") else None


@contextmanager
def without_hypernetworks() -> Iterator[None]:
    """Take the hypernetworks of the last generation out of every attention layer."""
    before = list(shared.loaded_hypernetworks)
    shared.loaded_hypernetworks.clear()
    try:
        yield
    finally:
        shared.loaded_hypernetworks[:] = before


@contextmanager
def without_tricks(model: torch.nn.Module) -> Iterator[None]:
    """Switch off what generations leave behind: tiling, token merging and hypertile."""
    circular = sd_hijack.model_hijack.circular_enabled
    merged = getattr(model, "applied_token_merged_ratio", 0)
    tiles = [module.__dict__[_HYPERTILE] for module in model.modules() if _HYPERTILE in module.__dict__]
    enabled = [tile.enabled for tile in tiles]
    try:
        switch_off_tricks(model)
        for tile in tiles:
            tile.enabled = False
        yield
    finally:
        sd_hijack.model_hijack.apply_circular(circular)
        sd_models.apply_token_merging(model, merged)
        for tile, value in zip(tiles, enabled, strict=True):
            tile.enabled = value


def switch_off_tricks(model: torch.nn.Module) -> None:
    """Switch off tiling and token merging, which every generation sets as its options say."""
    sd_hijack.model_hijack.apply_circular(False)
    sd_models.apply_token_merging(model, 0)
