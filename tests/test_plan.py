"""The plan's figures and rules, against values worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lib_lora_trainer.adapters.targets import Layer
from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.config.adapter import AdapterConfig
from lib_lora_trainer.config.data import DataConfig
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.config.training import OptimizerConfig, TrainingConfig
from lib_lora_trainer.dataset.items import Concept, Item, Scan
from lib_lora_trainer.hosts.api import ModelInfo
from lib_lora_trainer.plan import checks, describe
from lib_lora_trainer.plan.estimate import Formats, estimate
from lib_lora_trainer.plan.plan import Machine, make, resolve_precision

INFO = ModelInfo("h", "sd1", "epsilon", "m.safetensors [1]", "m", "", "a" * 64, "", ("te",), 0.18, 1, "float32", "cpu")
QUERY = Layer("unet", "input_blocks.1.1.transformer_blocks.0.attn1.to_q", 10, 20)
KEY = Layer("unet", "output_blocks.3.1.transformer_blocks.0.attn2.to_k", 8, 10)
CONV = Layer("unet", "input_blocks.4.0.in_layers.2", 10, 10, 3, conv=True)
TEXT = Layer("te", "text_model.encoder.layers.0.mlp.fc1", 4, 6)
LAYERS = (QUERY, KEY, CONV, TEXT)
CONFIG = RunConfig(data=DataConfig(resolution=64, bucket=False), adapter=AdapterConfig(rank=2, alpha=2.0))
FULL = Formats("fp32", "float32")


def scan(count: int = 4, caption: str = "thing") -> Scan:
    items = tuple(Item(Path(f"{i}.png"), "a/3_x", 3, 64, 64, caption, Path(f"{i}.txt")) for i in range(count))
    return Scan(items, (Concept("a/3_x", Path("a/3_x"), 3, count),), (), ())


def plan(config: RunConfig, found: Scan | None = None, info: ModelInfo = INFO):
    return make(info, LAYERS, config, found or scan(), Machine(1e6, Path()))


def problems(config: RunConfig, found: Scan | None = None, info: ModelInfo = INFO) -> dict[str, Problem]:
    return {problem.where: problem for problem in plan(config, found, info).problems}


def test_operations_and_memory_are_the_formula() -> None:
    figures = estimate(LAYERS, (QUERY, TEXT), CONFIG, FULL)
    # 64 px are 8×8 latents: 64 positions at the first level, 16 at the second; keys and text see 77 tokens.
    operations = 2 * (10 * 20 * 64 + 8 * 10 * 77 + 10 * 10 * 9 * 16 + 4 * 6 * 77)
    assert figures.flops_per_step == 3 * operations
    assert figures.parameters == 2 * (10 + 20) + 2 * (4 + 6)
    weights = 10 * 20 + 8 * 10 + 10 * 10 * 9 + 4 * 6
    passing = 64 * 30 + 77 * 18 + 16 * 20 + 77 * 10
    assert figures.memory_bytes == weights * 4 + figures.parameters * 16 + passing * 4 * 2
    assert figures.file_bytes == figures.parameters * 2


def test_narrow_arithmetic_on_wide_weights_costs_their_copy_and_saves_activations() -> None:
    weights = 10 * 20 + 8 * 10 + 10 * 10 * 9 + 4 * 6
    half = estimate(LAYERS, (QUERY,), CONFIG, Formats("bf16", "float32"))
    narrow = estimate(LAYERS, (QUERY,), CONFIG, Formats("fp16", "float16"))
    assert half.memory_bytes - narrow.memory_bytes == weights * 4


def test_checkpointing_and_batches_change_the_estimate() -> None:
    plain = estimate(LAYERS, (QUERY,), CONFIG, FULL)
    recomputed = replace(CONFIG, training=TrainingConfig(gradient_checkpointing=True))
    assert estimate(LAYERS, (QUERY,), recomputed, FULL).flops_per_step == plain.flops_per_step / 3 * 4
    assert estimate(LAYERS, (QUERY,), recomputed, FULL).memory_bytes < plain.memory_bytes
    four = replace(CONFIG, training=TrainingConfig(batch_size=2, accumulation=2))
    assert estimate(LAYERS, (QUERY,), four, FULL).flops_per_step == plain.flops_per_step * 4


def test_time_is_operations_over_speed() -> None:
    found = plan(CONFIG)
    assert found.seconds == pytest.approx(found.steps * found.estimate.flops_per_step / 1e6)
    assert any("120 in all" in line for line in describe.lines(found))


@pytest.mark.parametrize(
    ("config", "where", "severity"),
    [
        (replace(CONFIG, name="a<b"), "name", "error"),
        (replace(CONFIG, adapter=AdapterConfig(unet=False, text_encoder=False)), "adapter.unet", "error"),
        (replace(CONFIG, triggers=("unseen",)), "triggers", "warning"),
        (replace(CONFIG, optimizer=OptimizerConfig(text_learning_rate=0.0)), "optimizer.text_learning_rate", "error"),
        (replace(CONFIG, optimizer=OptimizerConfig(unet_learning_rate=0.1)), "optimizer.unet_learning_rate", "warning"),
        (replace(CONFIG, adapter=AdapterConfig(rank=4, alpha=8.0)), "adapter.alpha", "warning"),
        (replace(CONFIG, data=DataConfig(resolution=2048, bucket=False)), "data.resolution", "warning"),
        (replace(CONFIG, data=DataConfig(resolution=100, bucket=False)), "data.resolution", "error"),
        (replace(CONFIG, training=TrainingConfig(precision="fp16")), "training.precision", "error"),
        (replace(CONFIG, training=TrainingConfig(batch_size=64)), "training.batch_size", "note"),
        (replace(CONFIG, training=TrainingConfig(clip_skip=2)), "training.clip_skip", "note"),
        (replace(CONFIG, training=TrainingConfig(epochs=1000)), "training.epochs", "warning"),
        (replace(CONFIG, base_model="other"), "base_model", "warning"),
    ],
)
def test_every_rule_speaks_and_is_silent_otherwise(config: RunConfig, where: str, severity: str) -> None:
    assert problems(config)[where].severity == severity
    assert where not in problems(CONFIG)


def test_a_host_without_a_trainable_text_encoder_is_said() -> None:
    info = replace(INFO, text_encoders=())
    assert problems(CONFIG, info=info)["adapter.text_encoder"].severity == "error"


def test_sdxl_below_its_size_is_warned_about() -> None:
    assert "1024" in problems(CONFIG, info=replace(INFO, family="sdxl"))["data.resolution"].message


def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    assert checks.disk(tmp_path / "new" / "folder", 1) == ()
    assert checks.disk(tmp_path, 10**18)[0].severity == "error"


def test_automatic_precision_follows_the_loaded_weights() -> None:
    gpu = replace(INFO, device="cuda")
    assert resolve_precision("auto", INFO) == "fp32"
    assert resolve_precision("auto", replace(gpu, dtype="bfloat16")) == "bf16"
    assert resolve_precision("auto", replace(gpu, dtype="float16")) == "fp16"
    assert resolve_precision("bf16", INFO) == "bf16"


def test_spans_and_sizes_read_well() -> None:
    assert [describe.duration(s) for s in (12.4, 200, 7500)] == ["12 s", "3 min 20 s", "2 h 05 min"]
    assert [describe.size(n) for n in (9.44e6, 1.25e9)] == ["9.4 MB", "1.2 GB"]
