"""Several processes train what one would: the same global batch gives the same weights."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lib_lora_trainer.base import codec
from lib_lora_trainer.config.adapter import AdapterConfig
from lib_lora_trainer.config.data import DataConfig, SourceConfig
from lib_lora_trainer.config.optimizer import OptimizerConfig
from lib_lora_trainer.config.output import SampleConfig, SaveConfig
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.config.training import TrainingConfig

pytest.importorskip("accelerate")
HERE = Path(__file__).resolve().parent


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    folder = tmp_path / "pictures" / "2_thing"
    folder.mkdir(parents=True)
    random = np.random.default_rng(3)
    for index in range(5):
        Image.fromarray(random.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"thing, red, tag{index}", encoding="utf-8")
    return RunConfig(
        name="thing",
        triggers=("thing",),
        data=DataConfig(sources=(SourceConfig(str(folder.parent)),), resolution=64, bucket_minimum=64, cache="disk"),
        adapter=AdapterConfig(rank=4, alpha=4.0, dropout=0.1),
        optimizer=OptimizerConfig(unet_learning_rate=2e-2, text_learning_rate=1e-2),
        training=TrainingConfig(epochs=3, batch_size=2),
        save=SaveConfig(precision="fp32", every_epochs=0, state_every_steps=0),
        samples=SampleConfig(prompts=("thing",)),
    )


def launch(count: int, config: RunConfig, out: Path, stop_after: int = -1) -> list[str]:
    """Train in `count` processes and return what each wrote."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / "run.toml"
    file.write_text(codec.to_toml(config), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = []
    for rank in range(count):
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)]),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "ACCELERATE_USE_CPU": "true",
            "OMP_NUM_THREADS": "1",
        }
        arguments = [sys.executable, str(HERE / "process_worker.py"), str(file), str(out), str(stop_after)]
        started.append(
            subprocess.Popen(
                arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
            )
        )
    try:
        told = [process.communicate(timeout=300) for process in started]
    finally:
        for process in started:
            process.kill()
    for process, (_, errors) in zip(started, told, strict=True):
        assert process.returncode == 0, errors
    return [text for text, _ in told]


def test_two_processes_learn_what_one_does_with_the_same_global_batch(tmp_path: Path, config: RunConfig) -> None:
    together = launch(2, config, tmp_path / "two")
    alone = launch(1, replace(config, training=replace(config.training, accumulation=2)), tmp_path / "one")
    assert together[1] == ""
    steps = [line.split() for line in together[0].splitlines()]
    expected = [line.split() for line in alone[0].splitlines()]
    assert [number for number, _ in steps] == [number for number, _ in expected] == [str(n) for n in range(1, 10)]
    np.testing.assert_allclose([float(loss) for _, loss in steps], [float(loss) for _, loss in expected], rtol=1e-5)
    two, one = (load_file(tmp_path / name / "thing.safetensors") for name in ("two", "one"))
    assert set(two) == set(one)
    for key in one:
        torch.testing.assert_close(two[key], one[key], rtol=1e-3, atol=1e-5)
    assert any(value.abs().sum() > 0 for key, value in one.items() if "lora_up" in key)
    # Only the first process writes.
    assert sorted(path.name for path in (tmp_path / "two").glob("*.safetensors")) == ["thing.safetensors"]


def test_a_pause_reaches_every_process_and_the_run_goes_on(tmp_path: Path, config: RunConfig) -> None:
    launch(2, config, tmp_path / "whole")
    launch(2, config, tmp_path / "halted", stop_after=4)
    assert not (tmp_path / "halted" / "thing.safetensors").exists()
    launch(2, config, tmp_path / "halted")
    whole, halted = (load_file(tmp_path / name / "thing.safetensors") for name in ("whole", "halted"))
    assert all(torch.equal(whole[key], halted[key]) for key in whole)
