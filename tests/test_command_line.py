"""The command line on the toy checkpoint: planning, training, mistakes, and runs that are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lib_lora_trainer.demo.run import CHECKPOINT, DATASET

CONFIG = f"""
name = "toy"
triggers = ["mikori"]
[[data.sources]]
path = {json.dumps(str(DATASET))}
repeats = 1
[data]
resolution = 128
bucket_minimum = 128
[adapter]
rank = 4
alpha = 4.0
dropout = 0.1
[training]
epochs = 1
max_steps = 6
batch_size = 2
[save]
precision = "fp32"
state_every_steps = 2
"""


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "lib_lora_trainer", *map(str, arguments)]


def environment() -> dict[str, str]:
    root = Path(__file__).resolve().parent.parent
    return {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, env=environment(), timeout=300)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "c.toml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def whole(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    done = call("train", config, "--checkpoint", CHECKPOINT, "--out", out, "--device", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["step"] for event in events if event["event"] == "progress"] == [1, 2, 3, 4, 5, 6]
    assert events[-1]["event"] == "finished" and events[-1]["reason"] == "done"
    return out / "toy.safetensors"


def test_a_plan_is_words_and_figures(config: Path, tmp_path: Path) -> None:
    done = call("plan", config, "--checkpoint", CHECKPOINT, "--out", tmp_path, "--device", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert content["steps"] == 6 and content["images"] == 12 and content["parameters"] > 10_000
    assert not [problem for problem in content["problems"] if problem["severity"] == "error"]
    assert any("192 layers" in line or "layers of te, unet" in line for line in content["lines"])


def test_mistakes_end_with_status_1_and_name_the_setting(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("nmae = 'x'\n[training]\nepoch = 3\n", encoding="utf-8")
    done = call("train", bad, "--checkpoint", CHECKPOINT, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "nmae: is not a setting. Did you mean name?" in done.stderr and "training.epochs" in done.stderr
    missing = call("train", tmp_path / "none.toml", "--checkpoint", CHECKPOINT, "--out", tmp_path / "out", "--json")
    assert missing.returncode == 1 and json.loads(missing.stdout)["event"] == "failed"
    empty = tmp_path / "empty.toml"
    empty.write_text("name = 'x'", encoding="utf-8")
    checkpoint = call("plan", empty, "--checkpoint", tmp_path / "no.safetensors", "--out", tmp_path / "out")
    assert checkpoint.returncode == 1 and "no.safetensors" in checkpoint.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is a POSIX signal")
@pytest.mark.parametrize("moment", ["caching", 3, 5])
def test_a_killed_run_ends_with_the_same_weights(config: Path, whole: Path, tmp_path: Path, moment: object) -> None:
    arguments = ("train", config, "--checkpoint", CHECKPOINT, "--out", tmp_path, "--device", "cpu", "--json")
    process = subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, text=True, env=environment())
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "phase" if moment == "caching" else event.get("step") == moment:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "toy.safetensors").exists()
    rest = call(*arguments)
    assert rest.returncode == 0, rest.stderr
    first = next(json.loads(line)["step"] for line in rest.stdout.splitlines() if '"event": "progress"' in line)
    assert first == {"caching": 1, 3: 3, 5: 5}[moment]
    one, two = load_file(whole), load_file(tmp_path / "toy.safetensors")
    assert set(one) == set(two) and all(torch.equal(one[key], two[key]) for key in one)
    assert any(tensor.abs().sum() > 0 for key, tensor in one.items() if "lora_up" in key)


@pytest.mark.skipif(sys.platform == "win32", reason="a console's Ctrl+C cannot be sent to one process there")
def test_ctrl_c_stops_and_saves(config: Path, tmp_path: Path) -> None:
    arguments = ("train", config, "--checkpoint", CHECKPOINT, "--out", tmp_path, "--device", "cpu", "--json")
    process = subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, text=True, env=environment())
    assert process.stdout is not None
    events = []
    for line in process.stdout:
        events.append(json.loads(line))
        if events[-1].get("step") == 1:
            process.send_signal(signal.SIGINT)
            time.sleep(0.05)
    assert process.wait() == 130
    assert events[-1]["event"] == "finished" and events[-1]["reason"] == "stopped"
    assert Path(events[-1]["files"][-1]).name.startswith("toy-step")
