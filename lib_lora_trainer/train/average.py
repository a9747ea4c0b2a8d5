"""A running average of the adapter's weights (EMA), which is what is saved and shown when it is on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from lib_lora_trainer.adapters.targets import Layer

Averages = dict[str, torch.Tensor]


def name(layer: Layer, parameter: str) -> str:
    """Return the key of one trained value: part, path and its name in the adapter."""
    return f"{layer.part}/{layer.path}/{parameter}"


def start(adapters: Mapping[Layer, torch.nn.Module]) -> Averages:
    """Return the averages before the first step: the weights themselves."""
    return {
        name(layer, each): value.detach().clone()
        for layer, adapter in adapters.items()
        for each, value in adapter.named_parameters()
    }


def decay_at(step: int, decay: float) -> float:
    """Return the decay after `step` steps, counted from 1: min(decay, (1 + step) / (10 + step)).

    The rise keeps the untrained beginning from weighing on short runs (TensorFlow's ExponentialMovingAverage with
    `num_updates`).
    """
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def update(averages: Mapping[str, torch.Tensor], adapters: Mapping[Layer, torch.nn.Module], decay: float) -> None:
    """Move every average towards its weight: average = decay · average + (1 - decay) · weight."""
    for layer, adapter in adapters.items():
        for each, value in adapter.named_parameters():
            averages[name(layer, each)].lerp_(value.detach(), 1 - decay)


@contextmanager
def shown(averages: Mapping[str, torch.Tensor], adapters: Mapping[Layer, torch.nn.Module]) -> Iterator[None]:
    """Have the averages in the weights' place inside the block; the weights are afterwards bit for bit what they were."""
    before: Averages = {}
    try:
        with torch.no_grad():
            for layer, adapter in adapters.items():
                for each, value in adapter.named_parameters():
                    key = name(layer, each)
                    before[key] = value.detach().clone()
                    value.copy_(averages[key])
        yield
    finally:
        with torch.no_grad():
            for layer, adapter in adapters.items():
                for each, value in adapter.named_parameters():
                    if name(layer, each) in before:
                        value.copy_(before[name(layer, each)])
