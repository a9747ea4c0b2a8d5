"""Where the layers of an adapter file are in the model, read off their keys: no model is needed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lib_lora_trainer.adapters import blocks, names
from lib_lora_trainer.adapters.targets import Layer
from lib_lora_trainer.base.errors import DataError, TrainerError
from lib_lora_trainer.base.families import Family

_TEXT = re.compile(r"(?:lora|oft)_(te[12]?)_([^.]+)")
_UNET = re.compile(r"(?:lora|oft)_unet_([^.]+)")
_LDM = re.compile(r"(input_blocks|output_blocks)_([0-9]+)_|(middle_block)_")
_DIFFUSERS = re.compile(r"(down_blocks|up_blocks)_([0-9]+)_([a-z]+)_([0-9]+)_(.+)|(mid_block)_([a-z]+)_([0-9]+)_(.+)")
# A layer that each kind of diffusers' blocks has: which of ldm's it is in, is the same for all of them.
_PROBES = {"resnets": "norm1", "attentions": "proj_in", "downsamplers": "conv", "upsamplers": "conv"}
_INNER = {
    "conv1": "in_layers_2",
    "conv2": "out_layers_3",
    "norm1": "in_layers_0",
    "norm2": "out_layers_0",
    "time_emb_proj": "emb_layers_1",
    "conv_shortcut": "skip_connection",
}
_OUTSIDE = {
    "time_embedding_linear_1": "time_embed_0",
    "time_embedding_linear_2": "time_embed_2",
    "add_embedding_linear_1": "label_emb_0_0",
    "add_embedding_linear_2": "label_emb_0_2",
    "conv_norm_out": "out_0",
    "conv_out": "out_2",
}
_SDXL_SIGN = re.compile(
    r"lora_te[12]_|_label_emb_|_add_embedding_|_blocks_\d+_1_transformer_blocks_[2-9]_"
    r"|_(down|up)_blocks_\d_attentions_\d_transformer_blocks_[1-9]_"
)
_CONTEXT = re.compile(r"lora_unet_.*_attn2_to_k\.(lora_down\.weight|lora_A\.weight|diff)")
_WIDTHS: dict[int, Family] = {768: "sd1", 1024: "sd2", 2048: "sdxl"}


@dataclass(frozen=True)
class Place:
    """A layer's place. text: in a text encoder; block: "" for layers in none; name: as lora-block-weight's elements
    know it, after ldm, e.g. `input_blocks_4_1_transformer_blocks_0_attn1_to_q`."""

    text: bool
    block: str
    name: str


def place_of(key: str, family: Family) -> Place:
    """Return the place of a file's key without the tensor's name, such as `lora_unet_down_blocks_0_resnets_0_conv1`.

    UNet layers can be named as ldm or as diffusers names them. Raises DataError naming a key that is neither.
    """
    text = _TEXT.fullmatch(key)
    if text is not None:
        return Place(True, blocks.BASE, text[2])
    unet = _UNET.fullmatch(key)
    if unet is None:
        raise DataError(
            f"{key}: is no key of an SD1, SD2 or SDXL adapter (lora_unet_…, lora_te_…). Use a file in kohya's format."
        )
    inner = unet[1]
    found = _DIFFUSERS.fullmatch(inner)
    if found is not None:
        inner = _to_ldm(found, key, family)
    inner = _OUTSIDE.get(inner, {"conv_in": "input_blocks_0_0"}.get(inner, inner))
    match = _LDM.match(inner)
    path = "outside" if match is None else "middle_block." if match[3] else f"{match[1]}.{match[2]}."
    return Place(False, blocks.block_of(Layer("unet", path, 1, 1), family), inner)


def family_of(
    tensors: Mapping[str, object], metadata: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]]
) -> Family:
    """Return the family a file is for: by its metadata, else its keys, else the width of what attention reads.

    shapes: of the tensors, by name. SD1 when nothing speaks for another, as the WebUI has it.
    """
    version = metadata.get("ss_base_model_version", "")
    if version.startswith("sdxl"):
        return "sdxl"
    if metadata.get("ss_v2") == "True":
        return "sd2"
    if version.startswith("sd_v1"):
        return "sd1"
    if any(_SDXL_SIGN.search(name) for name in tensors):
        return "sdxl"
    widths = (shapes[name][1] for name in tensors if _CONTEXT.fullmatch(name) and len(shapes[name]) > 1)
    return next((_WIDTHS[width] for width in widths if width in _WIDTHS), "sd1")


def outside(places: Iterable[Place]) -> int:
    """Return how many layers are in no block."""
    return sum(place.block == blocks.OUTSIDE for place in places)


def _to_ldm(found: re.Match[str], key: str, family: Family) -> str:
    if found[6]:
        start, kind, inner = f"mid_block.{found[7]}.{found[8]}", found[7], found[9]
    else:
        start, kind, inner = f"{found[1]}.{found[2]}.{found[3]}.{found[4]}", found[3], found[5]
    probe = _PROBES.get(kind)
    if probe is None:
        raise DataError(
            f"{key}: {kind} is no part of an {family} UNet. Name the family with --family, or use another file."
        )
    try:
        path = names.to_ldm(f"{start}.{probe}", family)
    except TrainerError as error:
        raise DataError(f"{key}: {error} Is the file for {family}? Name the family with --family.") from error
    block = path.removesuffix(
        {"norm1": ".in_layers.0", "proj_in": ".proj_in"}.get(probe, f".{path.rpartition('.')[2]}")
    )
    last = path.rpartition(".")[2] if probe == "conv" else _INNER.get(inner, inner) if kind == "resnets" else inner
    return f"{block}.{last}".replace(".", "_")
