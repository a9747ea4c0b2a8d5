"""Which layers of a model an adapter sits on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.base.families import Part
from lib_lora_trainer.config.adapter import AdapterConfig

_ATTENTION = re.compile(r"\.(attn[12]\.to_(q|k|v|out\.0)|ff\.net\.(0\.proj|2)|proj_(in|out))$")
_TEXT = re.compile(r"\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])$")


@dataclass(frozen=True)
class Layer:
    """A Linear (kernel 1, `conv` False) or a Conv2d of the model.

    path: ldm's name inside the part, e.g. `input_blocks.1.1.transformer_blocks.0.attn1.to_q`, whatever the host calls
    it; for text encoders transformers' name, e.g. `text_model.encoder.layers.0.self_attn.q_proj`.
    """

    part: Part
    path: str
    inputs: int
    outputs: int
    kernel: int = 1
    conv: bool = False


@dataclass(frozen=True)
class Target:
    """A layer together with the module that computes it."""

    layer: Layer
    module: torch.nn.Module


def layer_of(part: Part, path: str, module: torch.nn.Module) -> Layer | None:
    """Return the Layer of a Linear or square Conv2d module, None for any other module."""
    if isinstance(module, torch.nn.Conv2d):
        return Layer(part, path, module.in_channels, module.out_channels, module.kernel_size[0], conv=True)
    if isinstance(module, torch.nn.Linear):
        return Layer(part, path, module.in_features, module.out_features)
    return None


def choose(layers: Sequence[Layer], config: AdapterConfig) -> tuple[Layer, ...]:
    """Return the layers the configuration asks for, in the model's order.

    lora: attention and MLP layers of the transformer blocks with their 1×1 projections (192 on SD1), and the text
    encoder's attention and MLP (72 on SD1): the set of sd-scripts' `networks.lora`. locon: also every convolution and
    linear layer of the residual blocks, down- and upsamplers (278 on SD1). Raises ConfigError when nothing matches.
    """
    chosen = tuple(layer for layer in layers if _wanted(layer, config))
    if not chosen:
        parts = sorted({layer.part for layer in layers})
        raise ConfigError(
            f"adapter: nothing to train with unet = {config.unet}, text_encoder = {config.text_encoder}; the model "
            f"offers {len(layers)} layers in {', '.join(parts) or 'no part'}. Switch one of them on."
        )
    return chosen


def _wanted(layer: Layer, config: AdapterConfig) -> bool:
    if layer.part != "unet":
        return config.text_encoder and bool(_TEXT.search(layer.path))
    if not config.unet:
        return False
    if _ATTENTION.search(layer.path):
        return True
    return config.method == "locon" and _in_residual_block(layer.path)


def _in_residual_block(path: str) -> bool:
    # The stem (input_blocks.0), the head (out.2) and the time and label embeddings stay as they are, as in sd-scripts.
    if path.startswith("input_blocks.0.") or not path.startswith(("input_blocks.", "middle_block.", "output_blocks.")):
        return False
    return bool(re.search(r"\.(in_layers\.2|out_layers\.3|emb_layers\.1|skip_connection|op|conv)$", path))


def rank_of(layer: Layer, config: AdapterConfig) -> tuple[int, float]:
    """Return (rank, alpha) for a layer: convolutions larger than 1×1 have their own, as in LyCORIS."""
    if layer.kernel > 1:
        return config.conv_rank, config.conv_alpha
    return config.rank, config.alpha


def parameter_count(layers: Sequence[Layer], config: AdapterConfig) -> int:
    """Return the number of trained values: rank · (inputs · kernel² + outputs) per layer."""
    return sum(rank_of(layer, config)[0] * (layer.inputs * layer.kernel**2 + layer.outputs) for layer in layers)
