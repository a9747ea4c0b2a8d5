"""Adapter modules for single layers; LyCORIS supplies the algorithms."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from lib_lora_trainer.adapters.targets import Target, rank_of
from lib_lora_trainer.base.errors import DataError, UserError
from lib_lora_trainer.base.seeds import derive
from lib_lora_trainer.config.adapter import AdapterConfig


def build(target: Target, config: AdapterConfig, seed: int) -> torch.nn.Module:
    """Return a new adapter for one layer, float32 on the CPU, whose delta is zero.

    LyCORIS's LoConModule with `bypass_mode`: the delta is applied to the layer's input instead of to its weight, so
    that small deltas on a half-precision base are not rounded away. The first factor is drawn from `seed` and the
    layer's path. Raises UserError when lycoris-lora is missing.
    """
    locon = _locon_module()
    rank, alpha = rank_of(target.layer, config)
    name = f"{target.layer.part}.{target.layer.path}"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, f"adapter {name}"))
        adapter: torch.nn.Module = locon(
            name, target.module, lora_dim=rank, alpha=alpha, dropout=config.dropout, bypass_mode=True
        )
    return adapter.float().train()


def restore(target: Target, tensors: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """Return the adapter whose `lora_down.weight`, `lora_up.weight` and `alpha` these are.

    Raises DataError that names the layer when a part is missing, unknown or has another shape than the layer asks for.
    """
    layer = target.layer
    if set(tensors) != {"lora_down.weight", "lora_up.weight", "alpha"}:
        names = ", ".join(sorted(tensors))
        raise DataError(f"{layer.part} {layer.path}: {names} is not a LoRA. Use a LoRA or LoCon file.")
    rank = tensors["lora_down.weight"].shape[0]
    with torch.random.fork_rng(devices=[]):
        adapter: Any = _locon_module()(
            layer.path, target.module, lora_dim=rank, alpha=float(tensors["alpha"]), bypass_mode=True
        )
    adapter.float()
    for name, wanted in (("lora_down.weight", adapter.lora_down.weight), ("lora_up.weight", adapter.lora_up.weight)):
        if tensors[name].shape != wanted.shape:
            shapes = f"{tuple(tensors[name].shape)} instead of {tuple(wanted.shape)}"
            raise DataError(f"{layer.part} {layer.path}: {name} is {shapes}. The file is for another model.")
        with torch.no_grad():
            wanted.copy_(tensors[name])
    restored: torch.nn.Module = adapter.eval()
    return restored


def _locon_module() -> Any:
    # LyCORIS 4.x replaces its arithmetic by experimental kernels wherever triton can be imported.
    os.environ.setdefault("LYCORIS_KERNEL_BACKEND", "torch")
    try:
        from lycoris.modules.locon import LoConModule
    except ImportError as error:
        raise UserError(
            f"lycoris-lora cannot be imported ({error}). Restart the WebUI without --skip-install so that the "
            "extension's installer adds it, or run: pip install lycoris-lora."
        ) from error
    return LoConModule


def output_delta(adapter: Any, inputs: torch.Tensor, strength: float) -> torch.Tensor:
    """Return what the adapter adds to its layer's output for the layer's input.

    Half-precision inputs outside of autocast, as with the WebUI's --upcast-sampling, are computed in the adapter's fp32.
    """
    if inputs.dtype != torch.float32 and not torch.is_autocast_enabled():
        inputs = inputs.float()
    added: torch.Tensor = adapter.bypass_forward_diff(inputs, scale=strength)
    return added


def weight_delta(adapter: Any) -> torch.Tensor:
    """Return the adapter's delta of the layer's weight, in the weight's shape, at strength 1."""
    delta: torch.Tensor = adapter.get_diff_weight()[0]
    return delta


def file_tensors(adapter: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the adapter's tensors by their name in the file: `lora_down.weight`, `lora_up.weight`, `alpha`."""
    return {name: tensor.detach() for name, tensor in adapter.state_dict().items()}
