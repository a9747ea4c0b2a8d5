"""What any optimizer remembers, as tensors and JSON, and back without the loss of a bit.

torch's own `load_state_dict` casts what it loads to the parameter's dtype, which changes Prodigy's bfloat16 and the
8-bit optimizers' states; so the content of `state` and `param_groups` is taken as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lib_lora_trainer.base.errors import ConfigError, RunConflict

Tensors = dict[str, torch.Tensor]


def collect(
    optimizer: torch.optim.Optimizer, named: Mapping[str, torch.nn.Parameter], tensors: Tensors
) -> dict[str, Any]:
    """Return the optimizer's memory as JSON values; its tensors are added to `tensors`, which the values refer to.

    named: every parameter by a name that lasts. Raises ConfigError for something that is neither tensor, number, text
    nor a list or table of them.
    """
    names = {id(parameter): name for name, parameter in named.items()}
    states: dict[str, Any] = {}
    for owner, state in optimizer.state.items():
        name = names.get(id(owner)) if isinstance(owner, torch.Tensor) else None
        if name is None:
            raise ConfigError(
                f"optimizer.name: {type(optimizer).__name__} keeps a memory that belongs to no parameter, so the run "
                "could not be resumed. Choose another optimizer."
            )
        states[name] = {key: _encode(value, f"optimizer/{name}/{key}", tensors) for key, value in state.items()}
    groups = {
        group["name"]: {
            key: _encode(value, f"group/{group['name']}/{key}", tensors)
            for key, value in group.items()
            if key != "params"
        }
        for group in optimizer.param_groups
    }
    return {"states": states, "groups": groups}


def restore(
    optimizer: torch.optim.Optimizer,
    named: Mapping[str, torch.nn.Parameter],
    values: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
) -> None:
    """Put a memory from `collect` into an optimizer with the same groups, on its parameters' devices.

    Raises RunConflict when the groups or the parameters in them are others.
    """
    groups = {group["name"]: group for group in optimizer.param_groups}
    if set(groups) != set(values["groups"]):
        before, now = ", ".join(sorted(values["groups"])), ", ".join(sorted(groups))
        raise RunConflict(
            f"the saved run cannot go on: its optimizer had the groups {before}, and has {now} now. Start a new run."
        )
    owned = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    for name, saved in values["groups"].items():
        group = groups[name]
        device = group["params"][0].device
        group.update({key: _decode(value, tensors, device) for key, value in saved.items()})
    optimizer.state.clear()
    for name, state in values["states"].items():
        owner = named.get(name)
        if owner is None or id(owner) not in owned:
            raise RunConflict(f"the saved run cannot go on: {name} is not trained any more. Start a new run.")
        optimizer.state[owner] = {
            key: _decode(value, tensors, place(key, owned[id(owner)], owner.device)) for key, value in state.items()
        }


def place(key: str, group: Mapping[str, Any], device: torch.device) -> torch.device:
    """Return where the tensor `key` of a parameter on `device` lies. group: the parameter's."""
    # torch's optimizers count steps on the CPU unless one kernel does all of a step; so does their own loading.
    on_cpu = key == "step" and not (group.get("capturable") or group.get("fused"))
    return torch.device("cpu") if on_cpu else device


def _encode(value: Any, key: str, tensors: Tensors) -> Any:
    if type(value) in (torch.Tensor, torch.nn.Parameter):
        tensors[key] = value
        return {"tensor": key}
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (tuple, list)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_encode(item, f"{key}/{index}", tensors) for index, item in enumerate(value)]}
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {"dict": {name: _encode(item, f"{key}/{name}", tensors) for name, item in value.items()}}
    raise ConfigError(
        f"optimizer.name: the optimizer keeps a {type(value).__name__} under {key}, so the run could not be resumed. "
        "Choose another optimizer."
    )


def _decode(value: Any, tensors: Mapping[str, torch.Tensor], device: torch.device) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        # A copy: what lies in the mapped file is not aligned as torch aligns, and sums of it are rounded differently.
        return tensors[content].to(device, copy=True)
    if kind == "dict":
        return {name: _decode(item, tensors, device) for name, item in content.items()}
    items = [_decode(item, tensors, device) for item in content]
    return tuple(items) if kind == "tuple" else items
