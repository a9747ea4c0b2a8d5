"""How much memory, time and disk a run takes, by formulas that are stated."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lib_lora_trainer.adapters.targets import Layer, parameter_count
from lib_lora_trainer.config.run import RunConfig

_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
# Values remembered per layer output besides its own input: norms, activations and attention's q, k, v and softmax
# statistics. Fitted to a full-size SD1.5 at 256 px, batch 1 (benchmarks/real_size.md).
_REMEMBERED = 2.0
_CHECKPOINTED_SHARE = 0.15  # of the activations that stay when blocks are recomputed


@dataclass(frozen=True)
class Estimate:
    """parameters: trained values. memory_bytes: peak of model, adapter, optimizer and activations.

    flops_per_step: floating-point operations of a forward and backward pass; file_bytes: one saved adapter.
    """

    parameters: int
    memory_bytes: int
    flops_per_step: float
    file_bytes: int


@dataclass(frozen=True)
class Formats:
    """Number formats: of the arithmetic (fp32, fp16 or bf16), and of the loaded weights (`float32`, `float16`, …)."""

    arithmetic: str
    weights: str


def estimate(layers: Sequence[Layer], chosen: Sequence[Layer], config: RunConfig, formats: Formats) -> Estimate:
    """Return the estimate for one step at the training resolution.

    memory = weights · (bytes as loaded, and of the copy that narrower arithmetic makes)
           + trained · 16 (fp32 value, gradient, two Adam moments)
           + batch · bytes · Σ positions · (inputs + outputs) · remembered.
    operations = 3 · batch · Σ 2 · inputs · outputs · kernel² · positions: one forward pass, and a backward pass to the
    inputs of about twice its cost with the adapters' own gradients; four passes with gradient checkpointing.
    """
    width = _BYTES[formats.arithmetic]
    stored = 4 if formats.weights == "float32" else 2
    training = config.training
    trained = parameter_count(chosen, config.adapter)
    # Autocast's copies of wider weights stay until the backward pass has used them.
    copied = width if width < stored else 0
    weights = sum(layer.inputs * layer.outputs * layer.kernel**2 for layer in layers) * (stored + copied)
    texts = {layer.part for layer in chosen} - {"unet"}
    passed = [layer for layer in layers if layer.part == "unet" or layer.part in texts]
    positions = {layer: _positions(layer, config) for layer in passed}
    passing = sum(positions[layer] * (layer.inputs + layer.outputs) for layer in passed)
    activations = passing * training.batch_size * width * _REMEMBERED
    operations = sum(2.0 * layer.inputs * layer.outputs * layer.kernel**2 * positions[layer] for layer in passed)
    if training.gradient_checkpointing:
        activations *= _CHECKPOINTED_SHARE
    passes = 4 if training.gradient_checkpointing else 3
    return Estimate(
        parameters=trained,
        memory_bytes=int(weights + trained * 16 + activations),
        flops_per_step=passes * operations * training.batch_size * training.accumulation,
        file_bytes=trained * _BYTES[config.save.precision],
    )


def _positions(layer: Layer, config: RunConfig) -> int:
    """Return at how many places of the picture, or of the caption, a layer is computed."""
    if layer.part != "unet" or re.search(r"attn2\.to_[kv]$", layer.path):
        return 77
    if re.match(r"time_embed|label_emb", layer.path) or ".emb_layers." in layer.path:
        return 1
    side = config.data.resolution // 8
    return max(1, (side >> _level(layer.path)) ** 2)


def _level(path: str) -> int:
    # ldm numbers blocks from the stem: with two residual blocks per level each level spans three.
    block = re.match(r"(input|middle|output)_blocks?\.(\d+)", path)
    if block is None:
        return 0
    if block[1] == "middle":
        return 3
    number = int(block[2])
    return min(3, number // 3 if block[1] == "input" else 3 - number // 3)
