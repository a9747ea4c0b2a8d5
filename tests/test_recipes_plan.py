"""Every recipe plans without an error on the bundled checkpoint and pictures, and the plan is about what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib_lora_trainer.app import jobs
from lib_lora_trainer.config.data import DataConfig, SourceConfig
from lib_lora_trainer.config.recipes import RECIPES, apply
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.demo import world
from lib_lora_trainer.demo.run import CHECKPOINT, DATASET
from lib_lora_trainer.hosts.standalone import StandaloneHost
from lib_lora_trainer.plan.plan import Plan


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> StandaloneHost:
    return StandaloneHost(CHECKPOINT, tmp_path_factory.mktemp("adapters"), device="cpu")


def planned(host: StandaloneHost, name: str, folder: Path) -> Plan:
    plain = RunConfig(
        name="mikori", triggers=(world.TRIGGER,), data=DataConfig(sources=(SourceConfig(str(DATASET)),))
    )
    return jobs.plan(host, apply(RECIPES[name], plain), folder)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_plans_cleanly(host: StandaloneHost, name: str, tmp_path: Path) -> None:
    settled = planned(host, name, tmp_path)
    # 8-bit optimizers run on a CPU only from bitsandbytes 0.46 on, and a recipe may be meant for a GPU.
    assert [str(p) for p in settled.errors if "bitsandbytes" not in str(p)] == []
    assert settled.steps > 0 and settled.images >= settled.steps
    assert settled.estimate.parameters == sum(settled.counts.values()) > 0
    config = settled.config
    if config.adapter.blocks:
        assert len(settled.counts) < len(planned(host, "character-g3-adamw", tmp_path).counts)
    assert any(layer.part != "unet" for layer in settled.counts) == config.adapter.text_encoder
