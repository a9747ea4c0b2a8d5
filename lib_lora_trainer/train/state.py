"""Everything a run needs to go on as if nothing had happened, in one file that is replaced in one piece."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from lib_lora_trainer.adapters.targets import Layer
from lib_lora_trainer.base.codec import to_mapping
from lib_lora_trainer.base.errors import RunConflict
from lib_lora_trainer.base.files import replacing
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.train.optim import parameters

FILE = "state.safetensors"
# What may differ between a run and its continuation: it changes no weight.
_FREE = ("version", "name", "comment", "triggers", "base_model", "save", "samples")


@dataclass(frozen=True)
class Position:
    """How far a run is. seconds: spent training so far; files: adapters written, newest last."""

    step: int
    images_seen: int
    epoch: int
    loss_average: float
    seconds: float
    files: tuple[str, ...]


@dataclass(frozen=True)
class Live:
    """The objects whose content is the state: adapters, optimizer and the fp16 gradient scaler."""

    adapters: Mapping[Layer, torch.nn.Module]
    optimizer: torch.optim.Optimizer
    scaler: Any


def fingerprint(config: RunConfig, dataset: str, model: str) -> str:
    """Return as JSON what a state belongs to: the settings that shape the weights, the dataset and the model."""
    settings = {name: value for name, value in to_mapping(config).items() if name not in _FREE}
    return json.dumps({"settings": settings, "dataset": dataset, "model": model}, sort_keys=True)


def save(path: Path, live: Live, position: Position, belongs_to: str) -> None:
    """Write the state atomically: the file is the old state or the new one, never a mixture."""
    tensors: dict[str, torch.Tensor] = {}
    numbers: dict[str, Any] = {}
    for layer, adapter in live.adapters.items():
        for name, parameter in adapter.named_parameters():
            tensors[f"adapter/{layer.part}/{layer.path}/{name}"] = _copy(parameter)
    for index, parameter in enumerate(parameters(live.optimizer)):
        for name, value in live.optimizer.state.get(parameter, {}).items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer/{index}/{name}"] = _copy(value)
            else:
                numbers[f"optimizer/{index}/{name}"] = value
    metadata = {
        "position": json.dumps(asdict(position)),
        "numbers": json.dumps(numbers),
        "scaler": json.dumps(live.scaler.state_dict()),
        "belongs_to": belongs_to,
    }
    with replacing(path) as temporary:
        save_file(tensors, str(temporary), metadata)


def load(path: Path, live: Live, belongs_to: str) -> Position:
    """Put a saved state into the live objects and return how far it is.

    Raises RunConflict, naming the first difference, when it belongs to other settings, pictures or another model.
    """
    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata()
        _compare(json.loads(metadata["belongs_to"]), json.loads(belongs_to), path)
        with torch.no_grad():
            for layer, adapter in live.adapters.items():
                for name, parameter in adapter.named_parameters():
                    parameter.copy_(file.get_tensor(f"adapter/{layer.part}/{layer.path}/{name}"))
        owners = parameters(live.optimizer)
        for key in file.keys():  # noqa: SIM118 (not a mapping)
            kind, index, name = key.split("/", 2)
            if kind == "optimizer":
                tensor, owner = file.get_tensor(key), owners[int(index)]
                # AdamW keeps its step counter on the CPU, its moments beside the parameter.
                live.optimizer.state[owner][name] = tensor if tensor.dim() == 0 else tensor.to(owner.device)
    for key, value in json.loads(metadata["numbers"]).items():
        _, index, name = key.split("/", 2)
        live.optimizer.state[owners[int(index)]][name] = value
    live.scaler.load_state_dict(json.loads(metadata["scaler"]))
    position = json.loads(metadata["position"])
    return Position(**{**position, "files": tuple(position["files"])})


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


def _compare(saved: dict[str, Any], now: dict[str, Any], path: Path) -> None:
    for what, fix in (
        ("model", "Load the checkpoint the run was started on"),
        ("dataset", "Put the pictures, captions and repeats back as they were"),
        ("settings", "Set it back"),
    ):
        if saved[what] != now[what]:
            difference = _first_difference(saved[what], now[what], what)
            raise RunConflict(f"{path}: the saved run cannot go on: {difference}. {fix}, or start a new run.")


def _first_difference(saved: Any, now: Any, where: str) -> str:
    if isinstance(saved, dict) and isinstance(now, dict):
        for key in sorted(set(saved) | set(now)):
            if saved.get(key) != now.get(key):
                return _first_difference(saved.get(key), now.get(key), key if where == "settings" else f"{where}.{key}")
    return f"{where} was {saved!r} and is {now!r}"
