"""How much memory, time and disk a run takes, by formulas that are stated."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lib_lora_trainer.adapters.targets import Layer
from lib_lora_trainer.config.data import SourceConfig
from lib_lora_trainer.config.optimizer import OptimizerConfig
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.dataset.views import sizes_of

_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
# Values remembered per layer output besides its own input: norms, activations and attention's q, k, v and softmax
# statistics. Fitted to a full-size SD1.5 at 256 px, batch 1 (benchmarks/real_size.md).
_REMEMBERED = 2.0
_CHECKPOINTED_SHARE = 0.15  # of the activations that stay when blocks are recomputed
_TOKENS = 77  # a caption of one chunk
_BLOCKS_PER_LEVEL = 3  # as ldm numbers them from the stem, with two residual blocks per level
# Bytes that an optimizer keeps per trained value (test_estimate.py `test_optimizer_states_are_what_optimizers_keep`):
# fp32 moments of 4 bytes or 8-bit ones of 1; D-Adaptation's and Prodigy's s, and Prodigy's first weights; the second
# set of weights of schedule-free ones. A custom optimizer is taken for an Adam.
_STATE = {
    "adamw": 8.0,
    "adamw8bit": 2.0,
    "lion": 4.0,
    "lion8bit": 1.0,
    "prodigy": 16.0,
    "dadapt-adam": 12.0,
    "dadapt-lion": 8.0,
    "schedulefree-adamw": 8.0,
    "schedulefree-prodigy": 16.0,
    "custom": 8.0,
}


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
    """Number formats: of the arithmetic (fp32, fp16 or bf16), and of the loaded weights (`float32`, `float16`, …).

    device: where the run computes, e.g. `cuda`; on `cpu` and "" (unknown) nothing can be moved to main memory.
    """

    arithmetic: str
    weights: str
    device: str = ""


def estimate(layers: Sequence[Layer], counts: Mapping[Layer, int], config: RunConfig, formats: Formats) -> Estimate:
    """Return the estimate for one step.

    layers: all of the model's; counts: trained values of each adapted one.

    memory = Σ weights · (bytes as kept + bytes of the copy that narrower arithmetic makes)
           + trained · (4 value + 4 gradient + the optimizer's state + 4 with EMA)
           + batch · bytes · Σ positions · (inputs + outputs) · 2, of which 15 % with gradient checkpointing.
    Kept: as loaded; the UNet in 1 byte with the 8-bit base, cast only where it is used, while the weights as loaded wait
    in main memory; text encoders not at all when their outputs are cached and they may leave the device. Activations
    are those at the largest resolution, of the UNet and of the text encoders that are trained.

    operations = batch · (passes · Σ of the UNet and of trained text encoders + Σ of other text encoders), each layer
    2 · inputs · outputs · kernel² · positions; passes = 3: forward, and backward to the inputs at about twice its cost,
    with the adapters' own gradients; 4 with gradient checkpointing. Text encoders whose outputs are cached do nothing.
    Several resolutions count alike, as they are shown equally often.
    """
    training = config.training
    texts = {layer.part for layer in counts} - {"unet"}
    cached = config.data.cache_text != "none" and not texts
    working = [layer for layer in layers if not layer.norm and (layer.part == "unet" or not cached)]
    remembering = {layer for layer in working if layer.part == "unet" or layer.part in texts}
    trained = sum(counts.values())
    per_value = 8 + _state_bytes(config.optimizer, config.adapter.rank) + (4 if training.ema else 0)
    sizes = {size for source in config.data.sources or (SourceConfig(),) for size in sizes_of(source, config.data)}
    deepest = _deepest(layers)
    levels = {layer: _level(layer.path, deepest) for layer in working}
    passing = sum(_positions(layer, max(sizes), levels) * (layer.inputs + layer.outputs) for layer in remembering)
    activations = passing * training.batch_size * _BYTES[formats.arithmetic] * _REMEMBERED
    if training.gradient_checkpointing:
        activations *= _CHECKPOINTED_SHARE
    passes = 4 if training.gradient_checkpointing else 3
    operations = 0.0
    for layer in working:
        once = sum(_positions(layer, size, levels) for size in sizes) / len(sizes) * _products(layer) * 2
        operations += once * (passes if layer in remembering else 1)
    return Estimate(
        parameters=trained,
        memory_bytes=int(_weight_bytes(layers, cached, config, formats) + trained * per_value + activations),
        flops_per_step=operations * training.batch_size * training.accumulation,
        file_bytes=trained * _BYTES[config.save.precision],
    )


def _state_bytes(optimizer: OptimizerConfig, rank: int) -> float:
    if optimizer.name == "adafactor":
        # Of a factor of rank · n values its rows' and columns' means are kept, rank + n; the first moment if asked for.
        return 4 / rank + (4 if optimizer.beta1 else 0)
    return _STATE[optimizer.name]


def _weight_bytes(layers: Sequence[Layer], cached: bool, config: RunConfig, formats: Formats) -> int:
    loaded, width = 4 if formats.weights == "float32" else 2, _BYTES[formats.arithmetic]
    # Autocast's copies of wider weights stay until the backward pass has used them.
    copied = width if width < loaded else 0
    main_memory = formats.device in ("", "cpu")
    leaves = cached and config.training.offload and not main_memory
    total = 0
    for layer in layers:
        values = 2 * layer.outputs if layer.norm else _products(layer)
        if layer.part != "unet":
            total += 0 if leaves else values * (loaded + (0 if cached else copied))
        elif config.training.fp8_base and not layer.norm:
            total += values * (1 + (loaded if main_memory else 0))
        else:
            total += values * (loaded + (0 if layer.norm else copied))
    return total


def _products(layer: Layer) -> int:
    return layer.inputs * layer.outputs * layer.kernel**2


def _positions(layer: Layer, size: int, levels: Mapping[Layer, int]) -> int:
    """Return at how many places of a picture of `size` px, or of its caption, a layer is computed."""
    if layer.part != "unet" or re.search(r"attn2\.to_[kv]$", layer.path):
        return _TOKENS
    if re.match(r"time_embed|label_emb", layer.path) or ".emb_layers." in layer.path:
        return 1
    return max(1, (size // 8 >> levels[layer]) ** 2)


def _deepest(layers: Sequence[Layer]) -> int:
    """Return the number of the level in the middle: 3 for SD1 and SD2, 2 for SDXL."""
    numbers = [int(found[1]) for layer in layers if (found := re.match(r"input_blocks\.(\d+)", layer.path))]
    return max(numbers, default=0) // _BLOCKS_PER_LEVEL


def _level(path: str, deepest: int) -> int:
    """Return how often a picture has been halved where a layer is."""
    block = re.match(r"(input|middle|output)_blocks?\.(\d+)", path)
    if block is None:
        return 0
    if block[1] == "middle":
        return deepest
    number = int(block[2]) // _BLOCKS_PER_LEVEL
    return min(deepest, number) if block[1] == "input" else max(0, deepest - number)
