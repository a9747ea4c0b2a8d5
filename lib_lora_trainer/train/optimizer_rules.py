"""Mistakes in the optimizer's settings that can be seen before the start."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator
from typing import Any

import torch

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.base.setting import range_problems
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.train.optimizer_arguments import keywords, takes_rate
from lib_lora_trainer.train.optimizers import (
    EIGHT_BIT,
    ONE_RATE,
    SCHEDULE_FREE,
    SELF_TUNED,
    locate,
    old_bitsandbytes,
)

# Above it runs end in noise. Lion's steps are of full size whatever the gradient, so its rates are 3 to 10 times
# smaller than AdamW's (Chen et al. 2023, arXiv:2302.06675, section 5); schedule-free's are up to 10 times larger
# (its README). (usual, highest sensible)
_RATES = {
    "adamw": ("1e-4", 5e-3),
    "adamw8bit": ("1e-4", 5e-3),
    "lion": ("1e-5 to 3e-5", 5e-4),
    "lion8bit": ("1e-5 to 3e-5", 5e-4),
    "adafactor": ("1e-4", 5e-3),
    "schedulefree-adamw": ("1e-4 to 1e-3", 2e-2),
}
_IA3_FACTOR = 10  # ia3 has few values, which need 5e-3 to 1e-2 (G3 guide)


def problems(config: RunConfig, device: str = "", rates: Collection[float] = ()) -> tuple[Problem, ...]:
    """Return every problem of the optimizer's settings.

    device: type of the run's device, e.g. `cpu`; "" when it is not known yet. rates: the factors of the learning rate
    that rules give to layers. Nothing is said while a setting it looks at is out of its range, which the plan reports.
    """
    if any(range_problems(part) for part in (config.optimizer, config.adapter, config.training)):
        return ()
    found = [*_class(config), *_eight_bit(config, device)]
    for rule in (_self_tuned, _schedule_free, _high_rates, _adafactor, _text_alone):
        found += rule(config)
    return (*found, *_factors(config, rates))


def _parts(config: RunConfig) -> list[tuple[str, float]]:
    """Return the setting and the learning rate of each trained part."""
    parts = (
        ("optimizer.unet_learning_rate", config.adapter.unet, config.optimizer.unet_learning_rate),
        ("optimizer.text_learning_rate", config.adapter.text_encoder, config.optimizer.text_learning_rate),
    )
    return [(where, rate) for where, trained, rate in parts if trained and rate > 0]


def _class(config: RunConfig) -> Iterator[Problem]:
    optimizer = config.optimizer
    if optimizer.custom_class.strip() and optimizer.name != "custom":
        text = f"has no effect while optimizer.name is {optimizer.name}."
        yield Problem("warning", "optimizer.custom_class", text, "Choose custom, or leave it empty.")
    found = locate(optimizer)
    if isinstance(found, Problem):
        yield found
        return
    arguments, wrong = keywords(optimizer, found)
    yield from wrong
    if wrong:
        return
    where = "optimizer.custom_class" if optimizer.name == "custom" else "optimizer.arguments"
    closure = inspect.signature(found.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        text = f"{found.__name__} computes the loss several times per step, which a training run does not."
        yield Problem("error", where, text, "Choose another class.")
        return
    if optimizer.name == "custom" and not takes_rate(found):
        text = f"{found.__name__} has no learning rate, so the learning rates and the schedule have no effect."
        yield Problem("warning", where, text, "Choose another class if they should.")
    if optimizer.name == "custom" or optimizer.arguments:
        yield from _tried(found, arguments, where)


def _tried(found: type[torch.optim.Optimizer], arguments: dict[str, Any], where: str) -> Iterator[Problem]:
    """Build the optimizer on two numbers, because only its class knows which values it takes."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1, 1))], "lr": 1e-4} for _ in range(2)]
    if takes_rate(found):
        arguments = {"lr": None if arguments.get("relative_step") else 1e-4, **arguments}
    try:
        found(groups, **arguments)
    except Exception as error:  # noqa: BLE001 (a foreign class may raise anything)
        text = f"{found.__name__} refuses its arguments: {type(error).__name__}: {error}."
        yield Problem("error", where, text, "Correct or remove them.")


def _eight_bit(config: RunConfig, device: str) -> Iterator[Problem]:
    version = old_bitsandbytes()
    if config.optimizer.name in EIGHT_BIT and version and device not in ("", "cuda"):
        plain = config.optimizer.name.removesuffix("8bit")
        text = f"bitsandbytes {version} has {config.optimizer.name} for CUDA alone, and the run is on {device}."
        yield Problem("error", "optimizer.name", text, f"Choose {plain}.")


def _self_tuned(config: RunConfig) -> Iterator[Problem]:
    name, parts = config.optimizer.name, _parts(config)
    if name not in SELF_TUNED:
        return
    for where, rate in parts:
        if rate != 1:
            text = f"is {rate:g}; {name} finds the learning rate itself and multiplies it by this."
            yield Problem("warning", where, text, "Set 1.")
    if name in ONE_RATE and len({rate for _, rate in parts}) > 1:
        listed = " and ".join(f"{rate:g}" for _, rate in parts)
        text = f"{name} has one learning rate for UNet and text encoder, not {listed}."
        yield Problem("error", "optimizer.text_learning_rate", text, "Set both to 1, or train one of them.")
    if config.optimizer.lora_plus_ratio not in (0.0, 1.0):
        if name in ONE_RATE:
            text = f"{name} has one learning rate for everything, so LoRA+ is impossible."
            yield Problem("error", "optimizer.lora_plus_ratio", text, "Set it to 0, or choose adamw.")
        else:
            text = f"{name} finds a rate for the up factors itself; LoRA+ multiplies that one."
            yield Problem("warning", "optimizer.lora_plus_ratio", text, "Set it to 0.")
    if config.adapter.scale_weight_norms and name in ("prodigy", "schedulefree-prodigy"):
        text = f"{name} measures how far the weights have gone, so nothing else may move them."
        yield Problem("error", "adapter.scale_weight_norms", text, "Set it to 0, or choose another optimizer.")


def _schedule_free(config: RunConfig) -> Iterator[Problem]:
    optimizer = config.optimizer
    if optimizer.name not in SCHEDULE_FREE:
        return
    if optimizer.schedule != "constant":
        text = f"{optimizer.name} averages instead of lowering the learning rate; {optimizer.schedule} lowers it too."
        yield Problem("warning", "optimizer.schedule", text, "Set constant.")
    if optimizer.beta1 == 0:
        yield Problem("error", "optimizer.beta1", f"{optimizer.name} divides by it.", "Leave it empty, or set 0.9.")
    if config.training.ema:
        text = f"{optimizer.name} averages the weights already, and the EMA is of those it trains on."
        yield Problem("warning", "training.ema", text, "Set it to 0.")
    if config.adapter.scale_weight_norms and optimizer.name != "schedulefree-prodigy":
        text = f"{optimizer.name} keeps its average as a difference to the weights, so nothing else may move them."
        yield Problem("error", "adapter.scale_weight_norms", text, "Set it to 0, or choose another optimizer.")
    if optimizer.name == "schedulefree-prodigy" and optimizer.gradient_clip:
        text = "schedulefree-prodigy limits its steps itself; clipped gradients slow its search for the learning rate."
        yield Problem("note", "optimizer.gradient_clip", text, "Set it to 0.")


def _high_rates(config: RunConfig) -> Iterator[Problem]:
    name = config.optimizer.name
    if name not in _RATES:
        return
    usual, highest = _RATES[name]
    ia3 = config.adapter.method == "ia3"
    for where, rate in _parts(config):
        if rate > highest * (_IA3_FACTOR if ia3 else 1):
            fix = "5e-3 to 1e-2 is usual for ia3." if ia3 else f"{usual} is usual."
            yield Problem("warning", where, f"{rate:g} is very high for {name}.", fix)


def _adafactor(config: RunConfig) -> Iterator[Problem]:
    lines = {line.replace(" ", "").lower() for line in config.optimizer.arguments}
    if config.optimizer.name == "adafactor" and "relative_step=true" in lines:
        text = "with relative_step the learning rates and the schedule have no effect."
        yield Problem("warning", "optimizer.arguments", text, "Remove the line if they should.")


def _text_alone(config: RunConfig) -> Iterator[Problem]:
    alone = config.adapter.text_encoder and not config.adapter.unet
    if alone and config.training.text_encoder_until < 1:
        share = config.training.text_encoder_until
        text = f"is {share:g} and nothing but the text encoder is trained, so the rest of the run would do nothing."
        yield Problem("error", "training.text_encoder_until", text, "Set it to 1, or train the UNet as well.")


def _factors(config: RunConfig, rates: Collection[float]) -> Iterator[Problem]:
    odd = sorted({rate for rate in rates if rate not in (0.0, 1.0)})
    if config.optimizer.name in ONE_RATE and odd:
        listed = ", ".join(f"{rate:g}" for rate in odd)
        text = f"{config.optimizer.name} has one learning rate for everything; factors of {listed} are impossible."
        yield Problem("error", "adapter.rules", text, "Use lr=0 and lr=1 alone, or choose adamw.")
