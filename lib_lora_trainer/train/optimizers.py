"""The optimizers to choose from: their classes, packages, and what a setting left empty means."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from types import MappingProxyType
from typing import Any

import torch

from lib_lora_trainer import installer
from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.config.optimizer import OptimizerConfig

# They estimate the learning rate; the one that is set multiplies their estimate, so 1 leaves it as it is.
SELF_TUNED = frozenset({"prodigy", "dadapt-adam", "dadapt-lion", "schedulefree-prodigy"})
# Their libraries raise at the first step when two groups have different rates other than 0: one estimate serves all.
# sd-scripts warns and fails then; here the plan refuses (test_optim.py::test_rules).
ONE_RATE = frozenset({"prodigy", "dadapt-adam", "dadapt-lion"})
# They train on one set of weights and give out the average of another.
SCHEDULE_FREE = frozenset({"schedulefree-adamw", "schedulefree-prodigy"})
EIGHT_BIT = frozenset({"adamw8bit", "lion8bit"})
FIRST_BITSANDBYTES_ON_CPU = (0, 46)


@dataclass(frozen=True)
class Kind:
    """One optimizer.

    path: its class by dotted name; package: on the package index, "" where every WebUI has it.
    defaults: the fields of OptimizerConfig it has, and what None means in each; None: the class then does without.
    fixed: further arguments of the class that differ from its own defaults.
    """

    path: str
    package: str
    defaults: Mapping[str, float | None]
    fixed: Mapping[str, Any] = field(default_factory=dict)


_ADAM: dict[str, float | None] = {"weight_decay": 0.01, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}
_LION: dict[str, float | None] = {"weight_decay": 0.0, "beta1": 0.9, "beta2": 0.99}
_FREELY = float("inf")  # the estimate may grow by any factor per step

KINDS: Mapping[str, Kind] = MappingProxyType({
    "adamw": Kind("torch.optim.AdamW", "", _ADAM),
    "adamw8bit": Kind("bitsandbytes.optim.AdamW8bit", "bitsandbytes", _ADAM),
    "lion": Kind("lion_pytorch.Lion", "lion-pytorch", _LION),
    "lion8bit": Kind("bitsandbytes.optim.Lion8bit", "bitsandbytes", _LION),
    # As transformers' documentation has it for rates that are set from outside. By the class's own defaults, which
    # sd-scripts keeps, the learning rate is ignored, or shrunk a thousandfold where weights begin at 0, as every
    # adapter's do (test_optim.py::test_first_steps_are_those_worked_by_hand).
    "adafactor": Kind(
        "transformers.optimization.Adafactor", "transformers",
        {"weight_decay": 0.0, "beta1": None, "epsilon": 1e-30},
        {"relative_step": False, "scale_parameter": False, "warmup_init": False},
    ),
    # Values of the guide “Making a LoRA is like baking a cake”.
    "prodigy": Kind(
        "prodigyopt.Prodigy", "prodigyopt",
        {**_ADAM, "d0": 1e-6, "d_coefficient": 2.0, "growth_rate": _FREELY},
        {"decouple": True, "use_bias_correction": True, "safeguard_warmup": True},
    ),
    # decouple: weight decay as in AdamW, so that the setting means the same in every optimizer.
    "dadapt-adam": Kind(
        "dadaptation.DAdaptAdam", "dadaptation",
        {**_ADAM, "weight_decay": 0.0, "d0": 1e-6, "growth_rate": _FREELY}, {"decouple": True},
    ),
    # Values of the guide “いろいろLoRA作成記録”.
    "dadapt-lion": Kind(
        "dadaptation.DAdaptLion", "dadaptation",
        {"weight_decay": 0.0, "beta1": 0.9, "beta2": 0.999, "d0": 1e-6},
    ),
    "schedulefree-adamw": Kind("schedulefree.AdamWScheduleFree", "schedulefree", {**_ADAM, "weight_decay": 0.0}),
    "schedulefree-prodigy": Kind(
        "prodigyplus.ProdigyPlusScheduleFree", "prodigy-plus-schedule-free",
        {**_ADAM, "weight_decay": 0.0, "beta2": 0.99, "d0": 1e-6, "d_coefficient": 1.0},
    ),
})  # fmt: skip


def defaults(name: str) -> dict[str, float | None]:
    """Return what a setting left empty means, by field of OptimizerConfig; a field not named here has no effect.

    None as a value: the optimizer then does without. `custom` is empty, because its class decides.
    """
    return dict(KINDS[name].defaults) if name in KINDS else {}


def locate(config: OptimizerConfig) -> type[torch.optim.Optimizer] | Problem:
    """Return the optimizer's class, or the problem that names the missing package and the command that adds it."""
    if config.name == "custom":
        return _locate_custom(config.custom_class.strip())
    kind = KINDS[config.name]
    module, _, name = kind.path.rpartition(".")
    try:
        found: type[torch.optim.Optimizer] = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is not None and not module.startswith(error.name):
            return _unusable(config.name, kind, error)
        text = f"{config.name} needs the package {kind.package}, which is not installed."
        return Problem("error", "optimizer.name", text, _remedy(kind.package))
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        return _unusable(config.name, kind, error)
    return found


def _unusable(name: str, kind: Kind, error: Exception) -> Problem:
    try:
        version = metadata.version(kind.package)
    except metadata.PackageNotFoundError:
        version = "of unknown version"
    text = f"{name} needs {kind.path}, which the installed {kind.package} {version} does not provide ({error})."
    return Problem("error", "optimizer.name", text, _remedy(kind.package))


def _remedy(package: str) -> str:
    version = installer.optimizer_version(package, torch.__version__)
    wanted = f"{package}=={version}" if version else package
    return f'Choose another optimizer, or run: "{sys.executable}" -m pip install {wanted} and restart.'


def _locate_custom(path: str) -> type[torch.optim.Optimizer] | Problem:
    where = "optimizer.custom_class"
    module, _, name = path.rpartition(".")
    if not name.isidentifier():
        text = f"{path!r} is not the dotted name of a class." if path else "is empty, and the optimizer is custom."
        return Problem("error", where, text, "Give the class, e.g. torch.optim.SGD, or choose another optimizer.")
    try:
        found = getattr(importlib.import_module(module or "torch.optim"), name)
    except Exception as error:  # noqa: BLE001 (a foreign module may raise anything while it is imported)
        text = f"{path} cannot be imported: {type(error).__name__}: {error}."
        return Problem("error", where, text, "Correct the name, or install its package into this Python and restart.")
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        return Problem("error", where, f"{path} is not a torch optimizer.", "Give a subclass of torch.optim.Optimizer.")
    return found


def old_bitsandbytes() -> str:
    """Return the version of bitsandbytes if it has 8-bit optimizers for CUDA alone, else ""."""
    try:
        version = metadata.version("bitsandbytes")
    except metadata.PackageNotFoundError:
        return ""
    return version if installer.read_release(version) < FIRST_BITSANDBYTES_ON_CPU else ""
