"""Grids on the toy checkpoint for tests: small and quick, with adapters that change the picture."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from safetensors.torch import save_file

from adapter_cases import shake
from lib_lora_trainer.adapters import files, methods
from lib_lora_trainer.adapters.targets import Assignment
from lib_lora_trainer.app.grid_attached import AttachedStudio
from lib_lora_trainer.config.adapter import AdapterConfig
from lib_lora_trainer.demo.run import CHECKPOINT
from lib_lora_trainer.evaluate.grid import GridConfig
from lib_lora_trainer.hosts.api import Needs
from lib_lora_trainer.hosts.standalone import StandaloneHost

QUICK = GridConfig(prompt="1girl, smile", steps=2, guidance=3.0, width=64, height=64, sampler="Euler")


@functools.lru_cache(maxsize=1)
def toy_host() -> StandaloneHost:
    torch.set_num_threads(1)
    return StandaloneHost(CHECKPOINT, CHECKPOINT.parent, "cpu")


def studio() -> AttachedStudio:
    """A studio with the toy checkpoint, which stays in memory."""
    return AttachedStudio(
        lambda checkpoint: StandaloneHost(Path(checkpoint), Path(), "cpu") if checkpoint else toy_host()
    )


def write_adapter(host, path: Path, size: float = 0.2, **options) -> str:
    """Write an adapter of random values for every layer, and return its path."""
    config = AdapterConfig(**{"rank": 2, "alpha": 1.5, **options})
    wanted = Assignment(config.method, config.rank, config.alpha)
    adapters = {}
    with host.lease(Needs()) as lease:
        for target in lease.targets():
            if methods.supports(target.layer, config.method):
                adapters[target.layer] = methods.build(target, wanted, config, seed=5).eval()
                shake(adapters[target.layer], size)
        family = lease.info.family
        tensors = files.to_tensors(adapters, family, torch.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, str(path), {"ss_base_model_version": "sd_v1"})
    return str(path)
