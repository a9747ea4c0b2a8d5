"""The plan's figures, against values worked out by hand and against what optimizers really keep."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lib_lora_trainer.adapters.targets import Layer
from lib_lora_trainer.config.adapter import AdapterConfig
from lib_lora_trainer.config.data import DataConfig, SourceConfig
from lib_lora_trainer.config.optimizer import OPTIMIZERS, OptimizerConfig
from lib_lora_trainer.config.output import SaveConfig
from lib_lora_trainer.config.paths import put
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.config.training import TrainingConfig
from lib_lora_trainer.plan.estimate import Formats, estimate
from lib_lora_trainer.train.optimizers import EIGHT_BIT, old_bitsandbytes

QUERY = Layer("unet", "input_blocks.1.1.transformer_blocks.0.attn1.to_q", 10, 20)
KEY = Layer("unet", "output_blocks.3.1.transformer_blocks.0.attn2.to_k", 8, 10)
CONV = Layer("unet", "input_blocks.4.0.in_layers.2", 10, 10, 3, conv=True)
NORM = Layer("unet", "input_blocks.4.0.in_layers.0", 10, 10, norm=True)
TEXT = Layer("te", "text_model.encoder.layers.0.mlp.fc1", 4, 6)
LAYERS = (QUERY, KEY, CONV, NORM, TEXT)
UNET_WEIGHTS = 10 * 20 + 8 * 10 + 10 * 10 * 9
NORM_WEIGHTS = 2 * 10
TEXT_WEIGHTS = 4 * 6
# LoRA of rank 2: 2 · (inputs + outputs).
COUNTS = {QUERY: 60, TEXT: 20}
CONFIG = RunConfig(data=DataConfig(resolution=64, bucket=False), adapter=AdapterConfig(rank=2, alpha=2.0))
FULL = Formats("fp32", "float32")
# 64 px are 8×8 latents: 64 positions at the first level, 16 at the second; keys and text see 77 tokens.
UNET_PASSING = 64 * 30 + 77 * 18 + 16 * 20
TEXT_PASSING = 77 * 10
UNET_PRODUCTS = 10 * 20 * 64 + 8 * 10 * 77 + 10 * 10 * 9 * 16
TEXT_PRODUCTS = 4 * 6 * 77


def memory(config: RunConfig, counts: dict[Layer, int] | None = None, formats: Formats = FULL) -> int:
    return estimate(LAYERS, COUNTS if counts is None else counts, config, formats).memory_bytes


def test_operations_and_memory_are_the_formula() -> None:
    figures = estimate(LAYERS, COUNTS, CONFIG, FULL)
    assert figures.flops_per_step == 3 * 2 * (UNET_PRODUCTS + TEXT_PRODUCTS)
    assert figures.parameters == 80
    weights = UNET_WEIGHTS + NORM_WEIGHTS + TEXT_WEIGHTS
    # Value, gradient and two moments in fp32; each activation remembered twice.
    assert figures.memory_bytes == weights * 4 + 80 * 16 + (UNET_PASSING + TEXT_PASSING) * 4 * 2
    assert figures.file_bytes == 160
    assert estimate(LAYERS, COUNTS, replace(CONFIG, save=SaveConfig(precision="fp32")), FULL).file_bytes == 320


def test_counts_are_the_methods_own() -> None:
    more = {QUERY: 1000, TEXT: 20}
    assert estimate(LAYERS, more, CONFIG, FULL).parameters == 1020
    assert memory(CONFIG, more) - memory(CONFIG) == 940 * 16


def test_a_frozen_text_encoder_passes_forward_alone_and_a_cached_one_does_nothing() -> None:
    unet = {QUERY: 60}
    frozen = estimate(LAYERS, unet, CONFIG, FULL)
    assert frozen.flops_per_step == 2 * (3 * UNET_PRODUCTS + TEXT_PRODUCTS)
    weights = UNET_WEIGHTS + NORM_WEIGHTS + TEXT_WEIGHTS
    assert frozen.memory_bytes == weights * 4 + 60 * 16 + UNET_PASSING * 4 * 2
    cached = put(CONFIG, "data.cache_text", "memory")
    assert estimate(LAYERS, unet, cached, FULL).flops_per_step == 2 * 3 * UNET_PRODUCTS
    gpu = Formats("fp32", "float32", "cuda")
    assert memory(CONFIG, unet, gpu) - memory(cached, unet, gpu) == TEXT_WEIGHTS * 4
    assert memory(cached, unet) == memory(CONFIG, unet)  # on a CPU it stays where it is
    kept = put(cached, "training.offload", False)
    assert memory(kept, unet, gpu) == memory(CONFIG, unet, gpu)
    # A text encoder that is trained cannot be cached.
    assert memory(cached, formats=gpu) == memory(CONFIG, formats=gpu)


def test_narrow_arithmetic_on_wide_weights_costs_their_copy_and_saves_activations() -> None:
    half, narrow = (
        memory(CONFIG, formats=Formats("bf16", "float32")),
        memory(CONFIG, formats=Formats("fp16", "float16")),
    )
    copies = (UNET_WEIGHTS + TEXT_WEIGHTS) * 2
    assert half - narrow == (UNET_WEIGHTS + NORM_WEIGHTS + TEXT_WEIGHTS) * 2 + copies
    assert memory(CONFIG) - half == (UNET_PASSING + TEXT_PASSING) * 2 * 2 - copies


def test_the_8_bit_base_keeps_one_byte_per_weight_on_the_device() -> None:
    eight = put(CONFIG, "training.fp8_base", True)
    half = Formats("bf16", "float16", "cuda")
    assert memory(CONFIG, formats=half) - memory(eight, formats=half) == UNET_WEIGHTS
    wide = Formats("bf16", "float32", "cuda")
    assert memory(CONFIG, formats=wide) - memory(eight, formats=wide) == UNET_WEIGHTS * (4 + 2 - 1)
    cpu = Formats("fp32", "float32", "cpu")
    assert memory(eight, formats=cpu) - memory(CONFIG, formats=cpu) == UNET_WEIGHTS


def test_averages_cost_one_more_copy_of_what_is_trained() -> None:
    assert memory(put(CONFIG, "training.ema", 0.99)) - memory(CONFIG) == 80 * 4


def test_checkpointing_and_batches_change_the_estimate() -> None:
    plain = estimate(LAYERS, COUNTS, CONFIG, FULL)
    recomputed = replace(CONFIG, training=TrainingConfig(gradient_checkpointing=True))
    again = estimate(LAYERS, COUNTS, recomputed, FULL)
    assert again.flops_per_step == pytest.approx(plain.flops_per_step / 3 * 4)
    kept = (UNET_PASSING + TEXT_PASSING) * 4 * 2
    assert plain.memory_bytes - again.memory_bytes == pytest.approx(kept * 0.85, abs=1)
    four = replace(CONFIG, training=TrainingConfig(batch_size=2, accumulation=2))
    assert estimate(LAYERS, COUNTS, four, FULL).flops_per_step == plain.flops_per_step * 4
    assert memory(four) - plain.memory_bytes == kept


def test_of_several_resolutions_the_largest_counts_for_memory_and_the_mean_for_time() -> None:
    both = put(CONFIG, "data.more_resolutions", (128,))
    large = put(CONFIG, "data.resolution", 128)
    assert memory(both) == memory(large) > memory(CONFIG)
    operations = [estimate(LAYERS, COUNTS, config, FULL).flops_per_step for config in (CONFIG, large, both)]
    assert operations[2] == (operations[0] + operations[1]) / 2
    own = put(CONFIG, "data.sources", (SourceConfig("a", resolution=128),))
    assert memory(own) == memory(large)


def test_levels_are_those_of_the_models_own_depth() -> None:
    def passing(path: str, last: int) -> int:
        probe, deep = Layer("unet", path, 10, 10), Layer("unet", f"input_blocks.{last}.0.emb_layers.1", 1, 1)
        config = put(CONFIG, "data.resolution", 512)
        return estimate((probe, deep), {}, config, FULL).memory_bytes - (101 * 4 + 2 * 4 * 2)

    # 512 px are 64×64 latents; each place remembers 20 values twice, in 4 bytes.
    sd1 = [passing(path, 11) // 160 for path in ("output_blocks.11.0.x", "output_blocks.0.0.x", "middle_block.0.x")]
    assert sd1 == [64 * 64, 8 * 8, 8 * 8]
    sdxl = [passing(path, 8) // 160 for path in ("output_blocks.8.0.x", "output_blocks.0.0.x", "middle_block.0.x")]
    assert sdxl == [64 * 64, 16 * 16, 16 * 16]


def kept_by(optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter) -> int:
    """Return the bytes of state after two steps."""
    for _ in range(2):
        parameter.grad = torch.randn_like(parameter) / 100
        optimizer.step()
    return sum(
        value.numel() * value.element_size()
        for value in optimizer.state[parameter].values()
        if isinstance(value, torch.Tensor)
    )


@pytest.mark.parametrize(
    ("name", "path", "options"),
    [
        ("adamw", "torch.optim.AdamW", {}),
        ("adamw8bit", "bitsandbytes.optim.AdamW8bit", {"min_8bit_size": 1}),
        ("lion", "lion_pytorch.Lion", {}),
        ("lion8bit", "bitsandbytes.optim.Lion8bit", {"min_8bit_size": 1}),
        ("adafactor", "transformers.optimization.Adafactor", {"relative_step": False, "scale_parameter": False}),
        ("prodigy", "prodigyopt.Prodigy", {"decouple": True, "use_bias_correction": True}),
        ("dadapt-adam", "dadaptation.DAdaptAdam", {}),
        ("dadapt-lion", "dadaptation.DAdaptLion", {}),
        ("schedulefree-adamw", "schedulefree.AdamWScheduleFree", {}),
        ("schedulefree-prodigy", "prodigyplus.ProdigyPlusScheduleFree", {}),
    ],
)
def test_optimizer_states_are_what_optimizers_keep(name: str, path: str, options: dict[str, object]) -> None:
    module, _, kind = path.rpartition(".")
    found = pytest.importorskip(module)
    if name in EIGHT_BIT and old_bitsandbytes():
        pytest.skip("this bitsandbytes has 8-bit optimizers for CUDA alone")
    torch.manual_seed(0)
    rank, length = 16, 4096
    parameter = torch.nn.Parameter(torch.randn(rank, length))
    optimizer = getattr(found, kind)([parameter], lr=1e-3, **options)
    if hasattr(optimizer, "train"):
        optimizer.train()
    kept = kept_by(optimizer, parameter)
    config = replace(CONFIG, adapter=AdapterConfig(rank=rank, alpha=1.0), optimizer=OptimizerConfig(name=name))
    counts = {QUERY: parameter.numel()}
    none = estimate((), {}, config, FULL).memory_bytes
    planned = estimate((), counts, config, FULL).memory_bytes - none - 8 * parameter.numel()
    if name == "schedulefree-prodigy":  # which of its savings are on depends on its version
        assert kept <= planned * 1.01
    else:
        assert kept == pytest.approx(planned, rel=0.06)


def test_every_optimizer_has_its_state() -> None:
    for name in OPTIMIZERS:
        assert memory(replace(CONFIG, optimizer=OptimizerConfig(name=name))) > 0
    first = replace(CONFIG, optimizer=OptimizerConfig(name="adafactor", beta1=0.9))
    assert memory(first) - memory(put(first, "optimizer.beta1", None)) == 80 * 4
