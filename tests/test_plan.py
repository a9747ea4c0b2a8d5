"""The plan of a run, and its words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lib_lora_trainer.adapters.targets import Layer
from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.config.adapter import AdapterConfig
from lib_lora_trainer.config.data import DataConfig, SourceConfig
from lib_lora_trainer.config.optimizer import OptimizerConfig
from lib_lora_trainer.config.paths import flat, put
from lib_lora_trainer.config.recipes import RECIPES, apply
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.config.training import TrainingConfig
from lib_lora_trainer.dataset.items import Concept, Item, Scan
from lib_lora_trainer.hosts.api import ModelInfo
from lib_lora_trainer.plan import describe
from lib_lora_trainer.plan.plan import Machine, Plan, make, resolve_precision

INFO = ModelInfo("h", "sd1", "epsilon", "m.safetensors [1]", "m", "", "a" * 64, "", ("te",), 0.18, 1, "float32", "cpu")
QUERY = Layer("unet", "input_blocks.1.1.transformer_blocks.0.attn1.to_q", 10, 20)
KEY = Layer("unet", "output_blocks.3.1.transformer_blocks.0.attn2.to_k", 8, 10)
CONV = Layer("unet", "input_blocks.4.0.in_layers.2", 10, 10, 3, conv=True)
TEXT = Layer("te", "text_model.encoder.layers.0.mlp.fc1", 4, 6)
LAYERS = (QUERY, KEY, CONV, TEXT)
SOURCES = (SourceConfig("a"), SourceConfig("r", regularization=True))
CONFIG = RunConfig(
    data=DataConfig(sources=SOURCES, resolution=64, bucket=False), adapter=AdapterConfig(rank=2, alpha=2.0)
)
# What changes no line, because it is about files, places or drawing, or because the line it belongs to is off.
UNTOLD = {
    "adapter.conv_rank", "adapter.conv_alpha", "adapter.lokr_factor", "adapter.lokr_decompose_both",
    "adapter.lokr_full_matrix", "adapter.dylora_unit", "base_model", "comment", "version", "triggers",
    "optimizer.custom_class", "optimizer.arguments", "optimizer.weight_decay", "optimizer.beta1", "optimizer.beta2",
    "optimizer.epsilon", "optimizer.d0", "optimizer.d_coefficient", "optimizer.growth_rate",
    "optimizer.gradient_clip", "optimizer.cycles", "optimizer.cycle_decay", "optimizer.cycle_warmup",
    "optimizer.power", "loss.huber_schedule", "loss.huber_c", "loss.huber_scale", "loss.mask_minimum",
    "loss.normalize_masks", "noise.offset_random", "noise.pyramid_discount", "noise.input_perturbation_random",
    "noise.timestep_bias", "training.seed", "training.clip_skip", "training.token_limit", "training.offload",
    "data.bucket_minimum", "data.bucket_maximum", "data.bucket_step", "data.no_upscale", "data.face_crop_maximum",
    "data.sources", "data.caption.extensions", "data.caption.separator", "data.caption.secondary_separator",
    "data.caption.warmup_tags", "data.bucket", "training.epochs", "training.max_steps",
}  # fmt: skip


def scan(count: int = 4, regularizing: int = 0) -> Scan:
    items = tuple(Item(Path(f"{i}.png"), "a/3_x", 3, 64, 64, "thing", Path(f"{i}.txt")) for i in range(count))
    others = tuple(
        Item(Path(f"r{i}.png"), "r", 1, 64, 64, "", None, source=1, regularization=True) for i in range(regularizing)
    )
    concepts = [Concept("a/3_x", Path("a/3_x"), 3, count)]
    if regularizing:
        concepts.append(Concept("r", Path("r"), 1, regularizing, source=1, regularization=True))
    return Scan(items + others, tuple(concepts), (), ())


def plan(config: RunConfig, found: Scan | None = None, info: ModelInfo = INFO) -> Plan:
    return make(info, LAYERS, config, found or scan(), Machine(1e6, Path()))


def said(config: RunConfig, found: Scan | None = None, info: ModelInfo = INFO) -> str:
    return "\n".join(describe.lines(plan(config, found, info)))


def test_time_is_operations_over_speed() -> None:
    found = plan(CONFIG)
    assert found.seconds == pytest.approx(found.steps * found.estimate.flops_per_step / 1e6)


def test_what_a_run_sees_of_each_folder_adds_up() -> None:
    assert "a/3_x: 4 pictures × 3 = 12 per epoch, 120 in all" in said(CONFIG)
    balanced = said(CONFIG, scan(regularizing=50))
    assert "120 in all" in balanced and "r: 50 regularization images" in balanced and "120 of this folder" in balanced
    plain = said(put(CONFIG, "data.balance_regularization", False), scan(regularizing=50))
    assert "r: 50 regularization images × 1 = 50 per epoch, 500 in all" in plain
    assert "30 in all" in said(put(CONFIG, "training.max_steps", 30))


def test_a_plan_counts_what_the_method_trains() -> None:
    lora, locon = plan(CONFIG), plan(put(CONFIG, "adapter.method", "locon"))
    assert set(lora.layers) == {QUERY, KEY, TEXT}
    assert lora.estimate.parameters == 2 * (10 + 20) + 2 * (8 + 10) + 2 * (4 + 6)
    assert set(locon.layers) - set(lora.layers) == {CONV}


def test_what_is_lacking_elsewhere_is_in_the_plan() -> None:
    assert not plan(CONFIG).errors
    lacking = Problem("error", "optimizer.name", "needs a package.", "Install it.")
    assert make(INFO, LAYERS, CONFIG, scan(), Machine(None, Path(), judge=lambda _: (lacking,))).errors == (lacking,)
    assert [problem.where for problem in plan(put(CONFIG, "adapter.blocks", "IN99")).errors] == ["adapter.blocks"]


def test_the_words_say_what_is_on() -> None:
    told = said(
        replace(
            CONFIG,
            adapter=replace(CONFIG.adapter, blocks="IN01", rules=("IN01: rank=4",), dropout=0.1, norms=True),
            optimizer=OptimizerConfig(
                name="prodigy", unet_learning_rate=1.0, text_learning_rate=1.0, schedule="annealed-cosine", cycles=3,
                warmup=0.1, minimum=0.05,
            ),
            training=TrainingConfig(text_encoder_until=0.5, ema=0.99, gradient_checkpointing=True),
        )
    )  # fmt: skip
    assert "Adapter: lora rank 2 alpha 2 on 1 layers of te and 1 layers of unet" in told
    assert "Layers: norms, blocks IN01, 1 exceptions (IN01: rank=4)" in told
    assert "While training: 10 % of the values dropped, weights averaged with decay 0.99" in told
    schedule = "annealed-cosine in 3 cycles down to 5 % after a warm-up of 10 % of the run"
    assert f"Optimizer: prodigy, {schedule}, UNet 1, text encoder 1 for the first 50 % of the run" in told
    assert "Arithmetic: fp32 on cpu, the adapter in fp32, gradient checkpointing; about" in told
    assert "Loss:" not in told and "Noise:" not in told and "predicts noise" in told
    more = put(put(put(CONFIG, "loss.kind", "huber"), "loss.min_snr_gamma", 5.0), "loss.masked", True)
    assert "Loss: huber (snr, c 0.1), min-SNR 5, masked" in said(put(more, "noise.input_perturbation", 0.1))
    assert "Noise: ip-noise 0.1" in said(put(more, "noise.input_perturbation", 0.1))
    assert "predicts velocity" in said(CONFIG, info=replace(INFO, prediction="v"))


def test_a_part_that_is_not_trained_has_no_learning_rate_in_the_words() -> None:
    assert "text encoder" not in said(put(CONFIG, "adapter.text_encoder", False)).partition("Optimizer")[2]
    assert "UNet" not in said(put(CONFIG, "adapter.unet", False)).partition("Optimizer")[2]


OTHERS = {
    "adapter.method": "loha", "adapter.layers": "attention", "adapter.blocks": "IN01", "adapter.rules": ("TE: off",),
    "adapter.dropout": 0.1, "adapter.rank_dropout": 0.1, "adapter.module_dropout": 0.1, "adapter.start_from": "x",
    "optimizer.name": "lion", "optimizer.schedule": "linear", "optimizer.warmup": 0.1, "optimizer.minimum": 0.1,
    "optimizer.lora_plus_ratio": 16.0,
    "loss.kind": "l1", "training.precision": "bf16", "training.text_encoder_until": 0.5, "training.ema": 0.9,
    "data.cache": "disk", "data.cache_text": "memory", "data.resolution": 128, "data.more_resolutions": (128,),
    "data.caption.dropout": 0.1, "data.caption.tag_dropout": 0.1, "noise.offset": 0.1, "noise.timesteps": "cosine",
    "noise.input_perturbation": 0.1, "noise.maximum_timestep": 900, "noise.zero_terminal_snr": "on",
    "noise.adaptive_offset": 0.1, "save.precision": "fp32",
}  # fmt: skip


@pytest.mark.parametrize(
    "path",
    [
        path
        for path, _ in flat(CONFIG)
        if (path not in UNTOLD and not path.startswith(("samples.", "save."))) or path == "save.precision"
    ],
)
def test_every_choice_is_told(path: str) -> None:
    value = dict(flat(CONFIG))[path]
    if path in OTHERS:
        other = OTHERS[path]
    else:
        other = not value if isinstance(value, bool) else f"{value}x" if isinstance(value, str) else value + 1
    found = scan(regularizing=3)
    assert said(put(CONFIG, path, other), found) != said(CONFIG, found)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_planned_and_told(name: str) -> None:
    found = plan(apply(RECIPES[name], CONFIG), info=replace(INFO, family="sdxl" if "sdxl" in name else "sd1"))
    assert not [problem for problem in found.errors if not problem.where.startswith(("optimizer.", "data.bucket"))]
    assert f"Optimizer: {found.config.optimizer.name}, " in "\n".join(describe.lines(found))


def test_automatic_precision_follows_the_loaded_weights() -> None:
    gpu = replace(INFO, device="cuda")
    assert resolve_precision("auto", INFO) == "fp32"
    assert resolve_precision("auto", replace(gpu, dtype="bfloat16")) == "bf16"
    assert resolve_precision("auto", replace(gpu, dtype="float16")) == "fp16"
    assert resolve_precision("bf16", INFO) == "bf16"


def test_spans_and_sizes_read_well() -> None:
    assert [describe.duration(s) for s in (12.4, 200, 7500)] == ["12 s", "3 min 20 s", "2 h 05 min"]
    assert [describe.size(n) for n in (9.44e6, 1.25e9)] == ["9.4 MB", "1.2 GB"]
