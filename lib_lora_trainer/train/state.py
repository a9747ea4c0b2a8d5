"""Everything a run needs to go on as if nothing had happened, in one file that is replaced in one piece.

Layout of the file (format 2), a safetensors file:
  adapter/PART/PATH/NAME            the adapter's values
  average/PART/PATH/NAME            their running averages, when EMA is on
  optimizer/PART/PATH/NAME/KEY      tensors the optimizer keeps per value
  group/GROUP/KEY                   tensors it keeps per group
  metadata                          format, position, belongs_to, scaler, and `optimizer`: everything that is no tensor
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lib_lora_trainer.adapters.targets import Layer
from lib_lora_trainer.base.codec import to_mapping
from lib_lora_trainer.base.errors import RunConflict
from lib_lora_trainer.base.files import replacing
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.train import fingerprints, optimizer_state

FILE = "state.safetensors"
FORMAT = "2"


@dataclass(frozen=True)
class Position:
    """How far a run is, counted from its very first step, however often it was resumed.

    seconds: spent training so far; files: adapters written, newest last.
    """

    step: int
    images_seen: int
    epoch: int
    loss_average: float
    seconds: float
    files: tuple[str, ...]


@dataclass(frozen=True)
class Live:
    """The objects whose content is the state.

    scaler: torch's gradient scaler; averages: running averages by the names of `average.name`, None without EMA.
    """

    adapters: Mapping[Layer, torch.nn.Module]
    optimizer: torch.optim.Optimizer
    scaler: Any
    averages: Mapping[str, torch.Tensor] | None = None


def fingerprint(config: RunConfig, dataset: str, model: str) -> str:
    """Return as JSON what a state belongs to: the settings that shape the weights, the dataset and the model."""
    return json.dumps({"settings": to_mapping(config), "dataset": dataset, "model": model}, sort_keys=True)


def save(path: Path, live: Live, position: Position, belongs_to: str) -> None:
    """Write the state atomically: the file is the old state or the new one, never a mixture.

    Raises ConfigError when a custom optimizer keeps something that cannot be written.
    """
    tensors: optimizer_state.Tensors = {f"adapter/{name}": value for name, value in _named(live.adapters).items()}
    tensors.update({f"average/{name}": value for name, value in (live.averages or {}).items()})
    numbers = optimizer_state.collect(live.optimizer, _named(live.adapters), tensors)
    metadata = {
        "format": FORMAT,
        "position": json.dumps(asdict(position)),
        "optimizer": json.dumps(numbers),
        "scaler": json.dumps(live.scaler.state_dict()),
        "belongs_to": belongs_to,
    }
    with replacing(path) as temporary:
        save_file({name: _copy(value) for name, value in tensors.items()}, str(temporary), metadata)


def load(path: Path, live: Live, belongs_to: str) -> Position:
    """Put a saved state into the live objects and return how far it is.

    Raises RunConflict, naming the first difference, when it belongs to other settings, pictures or another model, and
    when it was written by a version of this program that laid it out differently.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        text = f"{path}: the saved run cannot be read ({error}). Move the file away to start the run anew."
        raise RunConflict(text) from error
    if metadata.get("format") != FORMAT:
        raise RunConflict(
            f"{path}: the saved run was written by another version of this program, in format "
            f"{metadata.get('format', '1')} instead of {FORMAT}. Finish it with that version, or start a new run; "
            "adapter.start_from takes its last saved adapter."
        )
    fingerprints.compare(json.loads(metadata["belongs_to"]), json.loads(belongs_to), path)
    _fill(_named(live.adapters), tensors, "adapter", path)
    _fill(live.averages or {}, tensors, "average", path)
    optimizer_state.restore(live.optimizer, _named(live.adapters), json.loads(metadata["optimizer"]), tensors)
    live.scaler.load_state_dict(json.loads(metadata["scaler"]))
    position = json.loads(metadata["position"])
    return Position(**{**position, "files": tuple(position["files"])})


def _named(adapters: Mapping[Layer, torch.nn.Module]) -> dict[str, torch.nn.Parameter]:
    """Return every trained value by part, path and its name in the adapter."""
    return {
        f"{layer.part}/{layer.path}/{name}": value
        for layer, adapter in adapters.items()
        for name, value in adapter.named_parameters()
    }


@torch.no_grad()
def _fill(wanted: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor], kind: str, path: Path) -> None:
    for name, value in wanted.items():
        saved = tensors.get(f"{kind}/{name}")
        if saved is None or saved.shape != value.shape:
            shape = "nothing" if saved is None else tuple(saved.shape)
            raise RunConflict(
                f"{path}: the saved run cannot go on: it has {shape} for {name}, which is {tuple(value.shape)} now. "
                "Start a new run."
            )
        value.copy_(saved)


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()
