"""The command line on the toy checkpoint: planning, training, mistakes, and runs that are killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lib_lora_trainer.base import codec
from lib_lora_trainer.config import importing, run
from lib_lora_trainer.config.recipes import RECIPES
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.demo.run import CHECKPOINT, DATASET

EXAMPLES = Path(__file__).parent / "imported"

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
        if events[-1]["event"] == "progress" and events[-1]["step"] == 1:  # once: what is saved at step 1 names it too
            process.send_signal(signal.SIGINT)
            time.sleep(0.05)
    assert process.wait() == 130
    assert events[-1]["event"] == "finished" and events[-1]["reason"] == "stopped"
    assert Path(events[-1]["files"][-1]).name.startswith("toy-step")


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["recipes"], ["recipes", "--json"], ["import"]])
def test_what_needs_no_model_starts_without_torch_and_gradio(arguments: list[str]) -> None:
    if arguments == ["import"]:
        arguments = ["import", str(EXAMPLES / "kohya_gui.json"), "--json"]
    code = (
        "import sys\nfor name in ('torch', 'gradio', 'numpy', 'lycoris'): sys.modules[name] = None\n"
        f"from lib_lora_trainer.cli import main\nsys.exit(main({arguments!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_recipes_are_listed_with_everything_they_set() -> None:
    lines = [json.loads(line) for line in call("recipes", "--json").stdout.splitlines()]
    assert [line["name"] for line in lines] == list(RECIPES)
    assert all(line["settings"] == json.loads(json.dumps(dict(RECIPES[line["name"]].settings))) for line in lines)
    assert "character-sd1" in call("recipes").stdout


def test_another_trainers_settings_become_ours(tmp_path: Path) -> None:
    theirs, ours = EXAMPLES / "sd_scripts_sections.toml", tmp_path / "run.toml"
    done = call("import", theirs, "-o", ours)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "network.network_dim → adapter.rank" in done.stderr
    assert "not taken over:" in done.stderr and "model.no_half_vae = True: " in done.stderr
    assert run.read(ours) == importing.read(theirs).config
    assert codec.from_toml(RunConfig, call("import", theirs).stdout, "output") == importing.read(theirs).config
    told = json.loads(call("import", theirs, "--json").stdout)
    assert told["kind"] == "sd-scripts" and told["config"]["adapter"]["rank"] == 32
    assert {"key": "network.network_dim", "setting": "adapter.rank"} in told["mapped"]
    wrong = call("import", DATASET / "none.toml", "--json")
    assert wrong.returncode == 1 and json.loads(wrong.stdout)["event"] == "failed"


def test_a_sweep_is_trained_run_by_run_and_a_failing_one_stops_no_other(config: Path, tmp_path: Path) -> None:
    sweep = ("--sweep", "optimizer.unet_learning_rate: 0, 1e-3", "--sweep", "training.max_steps: 1")
    base = ("--checkpoint", CHECKPOINT, "--out", tmp_path / "out", "--cache", tmp_path / "cache", "--device", "cpu")
    done = call("train", config, *base, *sweep, "--json")
    assert done.returncode == 1, "one of the runs had a mistake"
    events = [json.loads(line) for line in done.stdout.splitlines()]
    failed = next(event for event in events if event["event"] == "failed")
    assert failed["problems"][0]["where"] == "optimizer.unet_learning_rate" and "toy-lr0" in failed["error"]
    assert [event["run"] for event in events if event["event"] == "planned"] == ["toy-lr1e-3-max_steps1"]
    assert [path.name for path in (tmp_path / "out").glob("*.safetensors")] == ["toy-lr1e-3-max_steps1.safetensors"]
    wrong = call("train", config, *base, "--sweep", "adapter.rnk: 4")
    assert wrong.returncode == 1 and "adapter.rank" in wrong.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a console's Ctrl+C cannot be sent to one process there")
def test_a_learning_rate_is_searched_and_ctrl_c_ends_the_search(config: Path, tmp_path: Path) -> None:
    arguments = ("find-rate", config, "--checkpoint", CHECKPOINT, "--out", tmp_path, "--device", "cpu", "--json")
    process = subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, text=True, env=environment())
    assert process.stdout is not None
    events = []
    for line in process.stdout:
        events.append(json.loads(line))
        if events[-1]["event"] == "ratetried" and events[-1]["step"] == 2:
            process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    tried = [event["learning_rate"] for event in events if event["event"] == "ratetried"]
    assert tried == sorted(tried) and len(tried) >= 2
    assert events[-2]["event"] == "ratefound" and events[-1]["event"] == "finished"
    assert not list(tmp_path.rglob("*.safetensors")) and not list(tmp_path.rglob("run.json"))


def test_processes_launched_together_train_one_run_and_one_of_them_speaks(config: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launched = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_machines", "1", "--num_processes"]
    launched += ["2", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", port]
    arguments = command("train", config, "--checkpoint", CHECKPOINT, "--out", tmp_path, "--device", "cpu", "--json")
    arguments += ["--sweep", "training.max_steps: 2"]
    done = subprocess.run(
        [*launched, *arguments[1:]], capture_output=True, text=True, env=environment(), timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [event["step"] for event in events if event["event"] == "progress"] == [1, 2]
    assert [event["reason"] for event in events if event["event"] == "finished"] == ["done"]
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    assert events[-1]["event"] == "finished"


def test_only_the_first_process_writes_mistakes(tmp_path: Path) -> None:
    said = []
    for rank in ("0", "1"):
        done = subprocess.run(
            command("train", tmp_path / "none.toml", "--checkpoint", CHECKPOINT, "--out", tmp_path),
            capture_output=True, text=True, env={**environment(), "WORLD_SIZE": "2", "RANK": rank}, timeout=60,
        )  # fmt: skip
        assert done.returncode == 1
        said.append(done.stdout + done.stderr)
    assert "none.toml" in said[0] and said[1] == ""
