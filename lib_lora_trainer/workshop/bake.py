"""An adapter file with block weights in it: what changes, and the new tensors and metadata."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch

from lib_lora_trainer import __version__
from lib_lora_trainer.adapters import blocks
from lib_lora_trainer.adapters.targets import Target
from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.base.families import Family
from lib_lora_trainer.workshop import elements, scaling, vectors
from lib_lora_trainer.workshop.elements import Directives
from lib_lora_trainer.workshop.places import Place, place_of
from lib_lora_trainer.workshop.vectors import Vector

KEY = "lora_trainer_baked"
_EMBEDDING = "bundle_emb"
# Hashes of the old content; the new one's is added when the file is written.
_STALE = ("sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256")
_ATTENTION = {
    "sd2": re.compile(r"(lora_te_.+_self_attn)_(?:q|k|v|out)_proj"),
    "sdxl": re.compile(r"(lora_te2_.+_self_attn)_(?:q|k|v|out)_proj"),
}


@dataclass(frozen=True)
class Weights:
    """What an adapter's layers are multiplied by.

    vector: by block; directives: by kind of layer, in the place of the block's weight; unet, text: of UNet and text
    encoders, on top; rebase: the strength that becomes 1, on top of everything.
    """

    vector: Vector
    directives: Directives = ()
    unet: float = 1.0
    text: float = 1.0
    rebase: float = 1.0

    def of(self, place: Place) -> float:
        """Return what a layer's delta is multiplied by."""
        block = elements.weight(self.directives, place, self.vector.of(place.block))
        return block * (self.text if place.text else self.unet) * self.rebase

    @property
    def facts(self) -> dict[str, object]:
        """What is recorded of them in the file."""
        return {
            "blocks": vectors.write(self.vector),
            "elements": elements.write(self.directives),
            "unet": self.unet,
            "text_encoder": self.text,
            "rebase": self.rebase,
        }


@dataclass(frozen=True)
class Draft:
    """What baking would do: each layer's tensors and ratio, by its key, and tensors that are no layer's."""

    family: Family
    weights: Weights
    layers: Mapping[str, Mapping[str, torch.Tensor]]
    ratios: Mapping[str, float]
    rest: Mapping[str, torch.Tensor]

    @property
    def needs_base(self) -> tuple[str, ...]:
        """The layers whose multiple depends on the model's weights."""
        return tuple(key for key, parts in self.layers.items() if scaling.needs_base(parts, self.ratios[key]))

    @property
    def counts(self) -> dict[str, int]:
        """How many layers stay, are multiplied, and are left out."""
        values = list(self.ratios.values())
        kept, gone = values.count(1.0), values.count(0.0)
        return {"kept": kept, "multiplied": len(values) - kept - gone, "left_out": gone}


def draft(tensors: Mapping[str, torch.Tensor], weights: Weights) -> Draft:
    """Return what baking would do to a file's tensors. Raises DataError naming a layer that cannot be multiplied.

    Raises ConfigError for weights that are no finite numbers, and when nothing would be left.
    """
    family = weights.vector.family
    layers: dict[str, dict[str, torch.Tensor]] = {}
    rest = {}
    for name, tensor in tensors.items():
        key, _, part = name.partition(".")
        if key == _EMBEDDING:
            rest[name] = tensor
        else:
            layers.setdefault(key, {})[part] = tensor
    ratios = {key: _ratio(key, weights, family) for key in layers}
    if layers and not any(ratios.values()):
        raise ConfigError("every layer of this adapter gets the weight 0, so nothing would be left. Raise a weight.")
    for key, parts in layers.items():
        if ratios[key] not in (0.0, 1.0):
            scaling.check(key, parts)
    return Draft(family, weights, layers, ratios, rest)


def bake(made: Draft, base: Callable[[str], Target] | None = None) -> dict[str, torch.Tensor]:
    """Return the new file's tensors; base: a layer in the model by its key, for those that need it.

    Layers of weight 0 are left out. But OpenCLIP's attention is read by the WebUI's loader with q, k, v and out together
    or not at all, so where others of them stay, one of weight 0 stays with a delta of zero
    (test_one_projection_of_open_clip_can_be_switched_off).
    """
    tensors = dict(made.rest)
    attentions = {key: _attention(key, made.family) for key in made.layers}
    kept = {attentions[key] for key, ratio in made.ratios.items() if ratio and attentions[key]}
    for key, parts in made.layers.items():
        ratio = made.ratios[key]
        if not ratio and attentions[key] in kept:
            changed = scaling.zeroed(key, parts)
        else:
            changed = scaling.scaled(key, parts, ratio, _lookup(base, key))
        tensors |= {f"{key}.{part}": value for part, value in changed.items()}
    return tensors


def metadata(old: Mapping[str, str], made: Draft, stem: str, source: str) -> dict[str, str]:
    """Return the new file's metadata: the old ones, its own name, and what was done, after what was done before.

    stem: the new file's; source: the old one's name.
    """
    kept = {name: value for name, value in old.items() if name not in _STALE}
    before = _history(old.get(KEY, ""))
    done = {
        "file": source,
        "hash": old.get("sshs_model_hash", ""),
        "by": __version__,
        **made.weights.facts,
        **made.counts,
    }
    kept["ss_output_name"] = stem
    if "modelspec.title" in kept:
        kept["modelspec.title"] = stem
    return {**kept, KEY: json.dumps([*before, done])}


def beyond(family: Family) -> tuple[str, ...]:
    """Return the blocks that the shorter of a family's two vectors does not name."""
    return tuple(block for block in blocks.names(family) if block not in blocks.ORDERS[vectors.lengths(family)[0]])


def in_blocks(made: Draft, chosen: Collection[str]) -> int:
    """Return how many layers are in some blocks."""
    return sum(place_of(key, made.family).block in chosen for key in made.layers)


def _ratio(key: str, weights: Weights, family: Family) -> float:
    ratio = weights.of(place_of(key, family))
    if not abs(ratio) < float("inf"):
        raise ConfigError(f"{key}: its weight is {ratio}. Use numbers.")
    return ratio


def _attention(key: str, family: Family) -> str:
    """Return the key of OpenCLIP's attention that a projection is of; "" for other layers."""
    match = _ATTENTION[family].fullmatch(key) if family in _ATTENTION else None
    return match[1] if match else ""


def _lookup(base: Callable[[str], Target] | None, key: str) -> Callable[[], Target] | None:
    return None if base is None else lambda: base(key)


def _history(text: str) -> list[object]:
    try:
        found = json.loads(text) if text else []
    except ValueError:
        return [text]
    return found if isinstance(found, list) else [found]
