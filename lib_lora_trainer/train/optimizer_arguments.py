"""From settings to the keyword arguments of an optimizer's class."""

from __future__ import annotations

import ast
import difflib
import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.config.optimizer import OptimizerConfig
from lib_lora_trainer.train.optimizers import KINDS

# Field of OptimizerConfig → argument; beta1 and beta2 make up `betas`.
_ARGUMENTS = {
    "weight_decay": "weight_decay",
    "epsilon": "eps",
    "d0": "d0",
    "d_coefficient": "d_coef",
    "growth_rate": "growth_rate",
}
FIELDS = (*_ARGUMENTS, "beta1", "beta2")
_REFUSED = {
    "params": "The parameters are the adapter's.",
    "lr": "Set the learning rates instead.",
    "fused_back_pass": "Leave it out: with it the optimizer's step does nothing here.",
    "fsdp_in_use": "Leave it out: it is for models split over several GPUs.",
}
_WORDS = {"true": True, "false": False, "none": None, "inf": math.inf, "-inf": -math.inf}
_ADAFACTOR_SCALE = 1e-3  # second half of Adafactor's eps, used with scale_parameter alone


def keywords(config: OptimizerConfig, found: type[torch.optim.Optimizer]) -> tuple[dict[str, Any], tuple[Problem, ...]]:
    """Return the arguments of an optimizer's class other than parameters and learning rate, and what is wrong.

    found: the class that `optimizers.locate` returned. Lines of `arguments` come last and replace what the optimizer
    has by default; a setting given twice, or one that the class does not have, is a problem.
    """
    accepted, open_ended = _accepted(found)
    lines, problems = _lines(config, found, accepted, open_ended)
    chosen, more = _fields(config, found, accepted, open_ended)
    problems += more
    for name, given in _given(config).items():
        if name in lines:
            text = f"{name} is set here and by {given}."
            problems.append(Problem("error", "optimizer.arguments", text, "Remove one of them."))
    fixed = KINDS[config.name].fixed if config.name in KINDS else {}
    return {**fixed, **chosen, **lines}, tuple(problems)


def parse(text: str) -> Any:
    """Return the value a text stands for: a number, true or false, none, inf, a tuple (`0.9,0.99`) or the text."""
    text = text.strip()
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def takes_rate(found: type[torch.optim.Optimizer]) -> bool:
    """Tell whether the class has a learning rate at all."""
    accepted, open_ended = _accepted(found)
    return open_ended or "lr" in accepted


def _accepted(found: type[torch.optim.Optimizer]) -> tuple[Mapping[str, inspect.Parameter], bool]:
    """Return the class's arguments by name, and whether it takes others as well."""
    parameters = inspect.signature(found).parameters
    open_ended = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {name: each for name, each in parameters.items() if each.kind not in variadic}, open_ended


def _lines(
    config: OptimizerConfig, found: type, accepted: Mapping[str, inspect.Parameter], open_ended: bool
) -> tuple[dict[str, Any], list[Problem]]:
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for index, line in enumerate(config.arguments):
        where = f"optimizer.arguments[{index}]"
        name, sign, text = (part.strip() for part in line.partition("="))
        if not line.strip():
            continue
        if not sign or not name.isidentifier() or not text:
            problems.append(
                Problem("error", where, f"{line!r} is not an argument.", "Write name=value, e.g. eps=1e-6.")
            )
        elif name in _REFUSED:
            problems.append(Problem("error", where, f"{name} cannot be set here.", _REFUSED[name]))
        elif name in values:
            problems.append(Problem("error", where, f"{name} is given twice.", "Remove one of the lines."))
        elif name not in accepted and not open_ended:
            near = difflib.get_close_matches(name, accepted, n=1)
            known = ", ".join(sorted(set(accepted) - set(_REFUSED)))
            hint = f"Did you mean {near[0]}? Its" if near else "Its"
            text = f"{name} is not an argument of {found.__name__}."
            problems.append(Problem("error", where, text, f"{hint} arguments are: {known}."))
        else:
            values[name] = parse(text)
    return values, problems


def _given(config: OptimizerConfig) -> dict[str, str]:
    """Return the arguments that are set by fields, with the field's dotted name."""
    given = {
        argument: f"optimizer.{name}" for name, argument in _ARGUMENTS.items() if getattr(config, name) is not None
    }
    for name in ("beta1", "beta2"):
        if getattr(config, name) is not None:
            given["betas"] = given[name] = f"optimizer.{name}"
    return given


def _fields(
    config: OptimizerConfig,
    found: type[torch.optim.Optimizer],
    accepted: Mapping[str, inspect.Parameter],
    open_ended: bool,
) -> tuple[dict[str, Any], list[Problem]]:
    if config.name == "custom":
        known = {
            name for name in FIELDS if open_ended or (_ARGUMENTS.get(name) or "betas") in accepted or name in accepted
        }
        usual: Mapping[str, float | None] = {}
    else:
        usual = KINDS[config.name].defaults
        known = set(usual)
    values: dict[str, float | None] = dict(usual)
    problems: list[Problem] = []
    for name in FIELDS:
        value = getattr(config, name)
        if value is not None and name not in known:
            text = f"{found.__name__} has no such setting."
            problems.append(Problem("error", f"optimizer.{name}", text, "Leave it empty, or choose another optimizer."))
        elif value is not None:
            values[name] = value
    chosen, more = _arguments(config, values, accepted)
    return chosen, problems + more


def _arguments(
    config: OptimizerConfig, values: Mapping[str, float | None], accepted: Mapping[str, inspect.Parameter]
) -> tuple[dict[str, Any], list[Problem]]:
    chosen: dict[str, Any] = {_ARGUMENTS[name]: value for name, value in values.items() if name in _ARGUMENTS}
    betas = [values.get("beta1"), values.get("beta2")]
    if config.name == "adafactor":
        return {**chosen, "eps": (values["epsilon"], _ADAFACTOR_SCALE), "beta1": values["beta1"]}, []
    if betas == [None, None]:
        return chosen, []
    if "beta1" in accepted and "betas" not in accepted:
        return {**chosen, **{name: values[name] for name in ("beta1", "beta2") if values.get(name) is not None}}, []
    if None in betas:
        own = accepted["betas"].default if "betas" in accepted else None
        if not (isinstance(own, tuple) and len(own) >= 2):
            text = "is set alone, and the class has no value for the other one."
            name = "beta1" if betas[1] is None else "beta2"
            return chosen, [Problem("error", f"optimizer.{name}", text, "Set beta1 and beta2.")]
        betas = [mine if mine is not None else theirs for mine, theirs in zip(betas, own[:2], strict=True)]
        return {**chosen, "betas": (*betas, *own[2:])}, []
    return {**chosen, "betas": tuple(betas)}, []
