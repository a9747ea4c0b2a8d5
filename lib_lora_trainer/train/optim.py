"""The optimizer over an adapter's parameters, in groups with a learning rate each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from lib_lora_trainer.adapters.targets import Layer
from lib_lora_trainer.base.errors import ConfigError, Problem, ProblemsFound
from lib_lora_trainer.config.optimizer import OptimizerConfig
from lib_lora_trainer.train.optimizer_arguments import keywords, takes_rate
from lib_lora_trainer.train.optimizer_rules import problems
from lib_lora_trainer.train.optimizers import ONE_RATE, SELF_TUNED, defaults, locate

__all__ = [
    "SELF_TUNED",
    "build",
    "defaults",
    "effective_rates",
    "evaluated",
    "parameters",
    "problems",
    "set_rates",
]

Ups = Callable[[torch.nn.Module], Sequence[torch.nn.Parameter]]


def build(
    adapters: Mapping[Layer, torch.nn.Module], rates: Mapping[Layer, float], ups: Ups, config: OptimizerConfig
) -> torch.optim.Optimizer:
    """Return the optimizer that `config` names, ready to train.

    rates: factor of each layer's learning rate; ups(adapter): its up factors, whose rate is `lora_plus_ratio` times
    higher (LoRA+, Hayou, Ghosh & Yu 2024, arXiv:2402.12354).
    Parameters with equal rates share a group. `name` of a group is its part (unet or text) with what sets it apart,
    e.g. `unet ×0.5 up`; `base` is its learning rate before the schedule. Parameters whose rate is 0 are in no group
    and need no gradient.
    Raises ConfigError when the class cannot be had, refuses its arguments, or would be left with nothing to train, and
    ProblemsFound for wrong arguments.
    """
    found = locate(config)
    if isinstance(found, Problem):
        raise ConfigError(str(found))
    arguments, wrong = keywords(config, found)
    if wrong:
        raise ProblemsFound(wrong)
    groups = _groups(adapters, rates, ups, config)
    bases = {group["base"] for group in groups}
    if not groups:
        raise ConfigError("optimizer: every learning rate is 0, so nothing would be trained. Raise one.")
    if config.name in ONE_RATE and len(bases) > 1:
        listed = ", ".join(f"{group['name']} {group['base']:g}" for group in groups)
        raise ConfigError(f"optimizer.name: {config.name} has one learning rate for everything, not {listed}. Set 1.")
    if takes_rate(found):
        # Adafactor with relative_step computes the rate itself and refuses any other.
        arguments = {"lr": None if arguments.get("relative_step") else max(bases), **arguments}
    try:
        optimizer: Any = found(groups, **arguments)
    except (TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise ConfigError(f"optimizer.name: {config.name} refuses its arguments: {error}. Correct them.") from error
    if _averages(optimizer):
        optimizer.train()
    built: torch.optim.Optimizer = optimizer
    return built


def _groups(
    adapters: Mapping[Layer, torch.nn.Module], rates: Mapping[Layer, float], ups: Ups, config: OptimizerConfig
) -> list[dict[str, Any]]:
    groups: dict[str, dict[str, Any]] = {}
    raised = config.lora_plus_ratio not in (0.0, 1.0)
    for layer, adapter in adapters.items():
        part = "unet" if layer.part == "unet" else "text"
        rate = config.unet_learning_rate if part == "unet" else config.text_learning_rate
        high = {id(parameter) for parameter in ups(adapter)} if raised else set()
        for parameter in adapter.parameters():
            is_up = id(parameter) in high
            base = rate * rates[layer] * (config.lora_plus_ratio if is_up else 1.0)
            parameter.requires_grad_(base > 0)
            if base > 0:
                factor = "" if rates[layer] == 1.0 else f" ×{rates[layer]:g}"
                name = f"{part}{factor}{' up' if is_up else ''}"
                group = groups.setdefault(name, {"params": [], "lr": base, "base": base, "name": name})
                group["params"].append(parameter)
    return sorted(groups.values(), key=lambda group: not _is_unet(group))


def _is_unet(group: Mapping[str, Any]) -> bool:
    return str(group["name"]).startswith("unet")


def set_rates(optimizer: torch.optim.Optimizer, factor: float, text_factor: float = 1.0) -> dict[str, float]:
    """Set every group's learning rate to its base times `factor`, and `text_factor` for text encoders; return them.

    A text factor of 0 freezes the text encoders' groups: without gradients no optimizer moves their weights, not even
    by weight decay. Any other lets them learn again. To be called before the gradients of a step are computed.
    """
    for group in optimizer.param_groups:
        share = 1.0 if _is_unet(group) else text_factor
        group["lr"] = group["base"] * factor * share
        for parameter in group["params"]:
            parameter.requires_grad_(share != 0)
            if share == 0:
                parameter.grad = None
    return {group["name"]: group["lr"] for group in optimizer.param_groups}


def effective_rates(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Return each group's learning rate by its name; of D-Adaptation and Prodigy their estimate d times the rate set.

    Before the first step d is its first guess, d0.
    """
    return {group["name"]: group["lr"] * _estimate(group) for group in optimizer.param_groups}


def _estimate(group: Mapping[str, Any]) -> float:
    shared = group.get("shared_d") if group.get("split_groups_mean") else None
    return float(group.get("d", 1.0) if shared is None else shared)


@contextmanager
def evaluated(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Have the weights an optimizer gives out in place inside the block: schedule-free ones give out an average.

    Afterwards the weights are bit for bit those it trains on. The optimizer's own way there and back is not exact,
    which would make a run depend on when it was saved (test_optim.py::test_showing_the_average_changes_nothing).
    Inside another such block, and for all other optimizers, nothing happens.
    """
    if not _averages(optimizer) or optimizer.param_groups[0].get("train_mode") is False:
        yield
        return
    averaging: Any = optimizer
    before = [parameter.detach().clone() for parameter in parameters(optimizer)]
    try:
        averaging.eval()
        yield
    finally:
        averaging.train()
        with torch.no_grad():
            for parameter, value in zip(parameters(optimizer), before, strict=True):
                parameter.copy_(value)


def _averages(optimizer: torch.optim.Optimizer) -> bool:
    return callable(getattr(optimizer, "eval", None)) and callable(getattr(optimizer, "train", None))


def parameters(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    """Return all parameters in the optimizer's order."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
