"""Which layers of a model an adapter sits on, and what each of them gets."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import torch

from lib_lora_trainer.adapters import blocks, rules
from lib_lora_trainer.adapters.rules import Rule
from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.base.families import Family, Part
from lib_lora_trainer.config.adapter import AdapterConfig

_Kind = Literal["attention", "mlp", "residual", "outside"]

_ATTENTION = re.compile(r"\.(attn[12]\.to_(q|k|v|out\.0)|self_attn\.(q|k|v|out)_proj)$")
# The transformers' projections go with the MLPs: that makes sd-scripts' 192 layers on SD1.
_MLP = re.compile(r"\.(ff\.net\.(0\.proj|2)|proj_(in|out)|mlp\.fc[12])$")
_RESIDUAL = re.compile(r"\.(in_layers\.2|out_layers\.3|emb_layers\.1|skip_connection|op|conv)$")
_OUTSIDE = re.compile(r"(input_blocks\.0\.0|out\.2|time_embed\.[02]|label_emb\.0\.[02])")
_IA3 = re.compile(r"\.(attn[12]\.to_[kv]|ff\.net\.2|self_attn\.[kv]_proj|mlp\.fc2)$")
# A norm goes with the layers it stands before.
_BEFORE = {
    "norm": "proj_in",
    "norm1": "attn1",
    "norm2": "attn2",
    "norm3": "ff",
    "in_layers.0": "in_layers.2",
    "out_layers.0": "out_layers.3",
    "out.0": "out.2",
    "layer_norm1": "self_attn",
    "layer_norm2": "mlp",
}
_NORM = re.compile(rf"(.*\.|)({'|'.join(map(re.escape, _BEFORE))})")
_TEXT_LAYER = re.compile(r"\.layers\.([0-9]+)\.")


@dataclass(frozen=True)
class Layer:
    """A Linear (kernel 1, `conv` False), a Conv2d or a norm (LayerNorm, GroupNorm) of the model.

    path: ldm's name inside the part, e.g. `input_blocks.1.1.transformer_blocks.0.attn1.to_q`, whatever the host calls
    it; for text encoders transformers' name, e.g. `text_model.encoder.layers.0.self_attn.q_proj`.
    inputs, outputs: of a norm both its number of channels.
    """

    part: Part
    path: str
    inputs: int
    outputs: int
    kernel: int = 1
    conv: bool = False
    norm: bool = False


@dataclass(frozen=True)
class Assignment:
    """What one layer gets. rate: factor of its part's learning rate; rank, alpha: of this layer, after all rules.

    For a norm only rate counts: it has one kind of adapter, and no rank.
    """

    method: str
    rank: int
    alpha: float
    rate: float = 1.0


@dataclass(frozen=True)
class Target:
    """A layer together with the module that computes it."""

    layer: Layer
    module: torch.nn.Module


def layer_of(part: Part, path: str, module: torch.nn.Module) -> Layer | None:
    """Return the Layer of a Linear, Conv2d (square), LayerNorm or GroupNorm with weights; None for any other module."""
    if isinstance(module, torch.nn.Conv2d):
        return Layer(part, path, module.in_channels, module.out_channels, module.kernel_size[0], conv=True)
    if isinstance(module, torch.nn.Linear):
        return Layer(part, path, module.in_features, module.out_features)
    if isinstance(module, (torch.nn.LayerNorm, torch.nn.GroupNorm)) and module.weight is not None:
        return Layer(part, path, module.weight.numel(), module.weight.numel(), norm=True)
    return None


def assign(layers: Sequence[Layer], config: AdapterConfig, family: Family) -> dict[Layer, Assignment]:
    """Return what every layer gets that the configuration asks for, in the model's order.

    layers: all of the model's. What is trained is decided in this order; figures are of SD1's UNet and text encoder:
    1. `unet` and `text_encoder` switch parts; nothing below switches a part on again.
    2. `layers`: `attention` is q, k, v and out (128 and 48); `attention-mlp` adds the MLPs and the transformers'
       projections (192 and 72: the set of sd-scripts' networks.lora); `linear` is every Linear and 1×1 convolution,
       time and label embeddings included (230 and 72); `all` is every layer (282 and 72). `auto` is attention-mlp for
       lora; keys, values and the MLPs' second layer for ia3 (80 and 36: LyCORIS's preset `ia3`); for the others every
       layer inside the blocks (278 and 72: sd-scripts' networks.lora with conv_dim).
    3. `blocks` leaves the named ones. A list of names speaks of the UNet alone, text encoders have their own switch;
       of a vector the first number decides about them too, as in lora-block-weight. Layers outside of all blocks
       (`time_embed`, `label_emb`, `out`) are not trained when blocks are named, unlike in lora-block-weight, which
       never weakens them (test_layers_outside_of_blocks_are_not_trained_when_blocks_are_named).
    4. `rules`: of those that fit a layer the last counts, alone. `off` removes the layer; `on` brings back what
       `blocks` left out, and with a pattern also what `layers` left out.
    5. `norms` adds the norms that stand before the layers chosen; rules fit them too.

    Never trained: layers of text encoders that get no gradient (`_learns`), and what no adapter file that the WebUI's
    loader reads can name (`_has_key`). Convolutions larger than 1×1 take conv_rank and conv_alpha, as in LyCORIS.
    Raises ConfigError for mistakes in blocks and rules, and, when nothing is left, with what the model has.
    """
    known, named = rules.read(config, family), _named_blocks(config, family)
    last = _last_layer(layers, "te1")
    able = [layer for layer in layers if _is_on(layer, config) and _learns(layer, last) and _has_key(layer, family)]
    fitting = {layer: rules.last_fitting(known, layer, family) for layer in able}
    chosen = {
        layer
        for layer in able
        if not layer.norm
        and _is_kept(_in_preset(layer, config), blocks.block_of(layer, family) in named, fitting[layer])
    }
    if config.norms:
        places = {(layer.part, place) for layer in chosen for place in accumulate(layer.path.split("."), _join)}
        chosen |= {
            layer
            for layer in able
            if layer.norm and (layer.part, _after(layer)) in places and not _is_off(fitting[layer])
        }
    if not chosen:
        raise ConfigError(_nothing(layers, config, family))
    return {layer: _assignment(layer, config, fitting[layer]) for layer in able if layer in chosen}


def choose(layers: Sequence[Layer], config: AdapterConfig, family: Family) -> tuple[Layer, ...]:
    """Return the layers of `assign` alone, in the model's order."""
    return tuple(assign(layers, config, family))


def _is_on(layer: Layer, config: AdapterConfig) -> bool:
    return config.unet if layer.part == "unet" else config.text_encoder


def _learns(layer: Layer, last: int) -> bool:
    """Tell whether a gradient reaches a layer.

    SDXL reads its first text encoder before the last layer (hidden_states[-2], no final norm), so that layer, number
    `last`, learns nothing. The second one's last layer does, through the pooled output. SD2 has none such: hosts leave
    out the layer that it never computes. With clip skip above 1 the last layers of SD1's encoder stay as they are too;
    they are assigned all the same, for the setting is the run's (test_only_layers_without_a_gradient_are_left_out).
    """
    if layer.part != "te1":
        return True
    match = _TEXT_LAYER.search(layer.path)
    return match is not None and int(match[1]) < last


def _last_layer(layers: Sequence[Layer], part: Part) -> int:
    matches = [_TEXT_LAYER.search(layer.path) for layer in layers if layer.part == part]
    return max((int(match[1]) for match in matches if match), default=0)


def _has_key(layer: Layer, family: Family) -> bool:
    """Tell whether the WebUI's loader finds a layer by its key in an adapter file (networks.py, 1.10.1).

    Not found: te2's text_projection, which is no module in open_clip; norms of open_clip's encoders (SD2's, SDXL's
    second), whose names it does not translate; and diffusers' conv_norm_out, which SD1 and SD2 files would name.
    """
    if not layer.norm:
        return _kind(layer) is not None
    named_otherwise = layer.part == "te2" or (family == "sd2" and layer.part == "te")
    lost = layer.path == "out.0" and family != "sdxl"
    return _NORM.fullmatch(layer.path) is not None and not named_otherwise and not lost


def _kind(layer: Layer) -> _Kind | None:
    if _ATTENTION.search(layer.path):
        return "attention"
    if _MLP.search(layer.path):
        return "mlp"
    if layer.part == "unet" and _RESIDUAL.search(layer.path):
        return "residual"
    return "outside" if layer.part == "unet" and _OUTSIDE.fullmatch(layer.path) else None


def _in_preset(layer: Layer, config: AdapterConfig) -> bool:
    kind = _kind(layer)
    if config.layers == "auto":
        if config.method == "ia3":
            return _IA3.search(layer.path) is not None
        return kind in (("attention", "mlp") if config.method == "lora" else ("attention", "mlp", "residual"))
    if config.layers == "linear":
        return layer.kernel == 1
    kinds: dict[str, tuple[_Kind, ...]] = {"attention": ("attention",), "attention-mlp": ("attention", "mlp")}
    return config.layers == "all" or kind in kinds[config.layers]


def _named_blocks(config: AdapterConfig, family: Family) -> frozenset[str]:
    if not config.blocks.strip():
        return blocks.parse("", family) | {blocks.OUTSIDE}
    named = blocks.parse(config.blocks, family)
    return named if blocks.is_vector(config.blocks) else named | {blocks.BASE}


def _is_kept(in_preset: bool, in_blocks: bool, rule: Rule | None) -> bool:
    if _is_off(rule):
        return False
    if rule is not None and rule.switch == "on":
        return in_preset or rule.pattern is not None
    return in_preset and in_blocks


def _is_off(rule: Rule | None) -> bool:
    return rule is not None and rule.switch == "off"


def _join(place: str, name: str) -> str:
    return f"{place}.{name}"


def _after(norm: Layer) -> str:
    """Return the path of what a norm stands before."""
    match = _NORM.fullmatch(norm.path)
    return f"{match[1]}{_BEFORE[match[2]]}" if match else ""


def _assignment(layer: Layer, config: AdapterConfig, rule: Rule | None) -> Assignment:
    common = (config.conv_rank, config.conv_alpha) if layer.kernel > 1 else (config.rank, config.alpha)
    if rule is None:
        return Assignment(config.method, *common)
    own = (rule.conv_rank, rule.conv_alpha) if layer.kernel > 1 else (rule.rank, rule.alpha)
    return Assignment(
        config.method if rule.method is None else rule.method,
        common[0] if own[0] is None else own[0],
        common[1] if own[1] is None else own[1],
        1.0 if rule.rate is None else rule.rate,
    )


def _nothing(layers: Sequence[Layer], config: AdapterConfig, family: Family) -> str:
    """Return the message for a choice that leaves nothing: the settings, and what the model has."""
    offered = [layer for layer in layers if not layer.norm and _has_key(layer, family)]
    parts = Counter(layer.part for layer in offered)
    of_kind = {blocks.block_of(layer, family) for layer in offered if _in_preset(layer, config)}
    there = [block for block in blocks.names(family) if block in of_kind]
    counts = ", ".join(f"{part} {count}" for part, count in parts.items()) or "no part"
    return (
        f"adapter: nothing to train with unet = {config.unet}, text_encoder = {config.text_encoder}, layers = "
        f"{config.layers}, blocks = {config.blocks!r} and {len(config.rules)} rules; the model offers {len(offered)} "
        f"layers ({counts}), those for {config.method} in the blocks {', '.join(there) or 'none'}. "
        "Switch a part on, name one of these blocks, or remove the rules that say off."
    )
