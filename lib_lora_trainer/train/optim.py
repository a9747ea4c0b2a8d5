"""The optimizer over an adapter's parameters, one group per part with its own learning rate."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from lib_lora_trainer.adapters.targets import Layer
from lib_lora_trainer.config.training import OptimizerConfig


def build(adapters: Mapping[Layer, torch.nn.Module], config: OptimizerConfig) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) with the groups `unet` and `text` that have parameters.

    Each group holds its base learning rate under `base`; `set_rates` derives `lr` from it.
    """
    groups: dict[str, list[torch.nn.Parameter]] = {"unet": [], "text": []}
    for layer, adapter in adapters.items():
        groups["unet" if layer.part == "unet" else "text"] += list(adapter.parameters())
    rates = {"unet": config.unet_learning_rate, "text": config.text_learning_rate}
    return torch.optim.AdamW(
        [
            {"params": params, "lr": rates[name], "base": rates[name], "name": name}
            for name, params in groups.items()
            if params
        ],
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        weight_decay=config.weight_decay,
    )


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> dict[str, float]:
    """Set every group's learning rate to its base times `factor`; return the rates by group name."""
    for group in optimizer.param_groups:
        group["lr"] = group["base"] * factor
    return {group["name"]: group["lr"] for group in optimizer.param_groups}


def parameters(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    """Return all parameters in the optimizer's order."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
