"""UNet layer names, ldm's and diffusers': the same layers under two systems, translated by rule."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from lib_lora_trainer.base.errors import TrainerError
from lib_lora_trainer.base.families import Family

_Kind = Literal["residual", "transformer", "down", "up"]

_BLOCKS_PER_LEVEL = 2
_RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_OUTSIDE = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_LABEL = {"label_emb.0.0": "add_embedding.linear_1", "label_emb.0.2": "add_embedding.linear_2"}
_TRANSFORMER = re.compile(
    r"norm|proj_in|proj_out"
    r"|transformer_blocks\.(0|[1-9]\d*)\.(norm[123]|attn[12]\.to_(q|k|v|out\.0)|ff\.net\.(0\.proj|2))"
)
_LDM_BLOCK = re.compile(r"((?:input_blocks|output_blocks)\.\d+\.\d+|middle_block\.\d+)\.(.+)")
_DIFFUSERS_BLOCK = re.compile(r"((?:down_blocks|up_blocks)\.\d+\.[a-z]+\.\d+|mid_block\.[a-z]+\.\d+)\.(.+)")


@dataclass(frozen=True)
class _Block:
    ldm: str
    diffusers: str
    kind: _Kind


@dataclass(frozen=True)
class _Topology:
    """levels: number of resolutions; attention: those of them with transformers, counted from the largest picture."""

    levels: int
    attention: tuple[int, ...]


_TOPOLOGIES: dict[Family, _Topology] = {
    "sd1": _Topology(4, (0, 1, 2)),
    "sd2": _Topology(4, (0, 1, 2)),
    "sdxl": _Topology(3, (1, 2)),
}


def levels(family: Family) -> int:
    """Return the number of resolutions of a family's UNet: 4 for SD1 and SD2, 3 for SDXL."""
    return _TOPOLOGIES[family].levels


def attention_levels(family: Family) -> tuple[int, ...]:
    """Return the resolutions that have transformers, counted from the largest picture."""
    return _TOPOLOGIES[family].attention


def to_diffusers(path: str, family: Family) -> str:
    """Return diffusers' name of a UNet layer, or of one of its norms, given ldm's.

    `input_blocks.1.1.transformer_blocks.0.attn1.to_q` is `down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q`.
    Raises TrainerError when the family's UNet has no such layer; how many transformer blocks there are is not checked.
    """
    outside = _outside(family)
    if path in outside:
        return outside[path]
    match = _LDM_BLOCK.fullmatch(path)
    block = _by_ldm(family).get(match[1]) if match else None
    if match and block:
        inner = _inner_to_diffusers(block.kind, match[2])
        if inner:
            return f"{block.diffusers}.{inner}"
    raise TrainerError(f"{path!r} is no layer of an {family} UNet as ldm names them (input_blocks.1.0.in_layers.2).")


def to_ldm(path: str, family: Family) -> str:
    """Return ldm's name of a UNet layer, or of one of its norms, given diffusers': the inverse of `to_diffusers`.

    Raises TrainerError when the family's UNet has no such layer.
    """
    outside = {there: here for here, there in _outside(family).items()}
    if path in outside:
        return outside[path]
    match = _DIFFUSERS_BLOCK.fullmatch(path)
    block = _by_diffusers(family).get(match[1]) if match else None
    if match and block:
        inner = _inner_to_ldm(block.kind, match[2])
        if inner:
            return f"{block.ldm}.{inner}"
    raise TrainerError(f"{path!r} is no layer of an {family} UNet as diffusers names them (mid_block.resnets.0.conv1).")


def _outside(family: Family) -> dict[str, str]:
    return {**_OUTSIDE, **_LABEL} if family == "sdxl" else _OUTSIDE


def _inner_to_diffusers(kind: _Kind, inner: str) -> str | None:
    if kind == "transformer":
        return inner if _TRANSFORMER.fullmatch(inner) else None
    if kind == "residual":
        return _RESIDUAL.get(inner)
    return "conv" if inner == ("op" if kind == "down" else "conv") else None


def _inner_to_ldm(kind: _Kind, inner: str) -> str | None:
    if kind == "transformer":
        return inner if _TRANSFORMER.fullmatch(inner) else None
    if kind == "residual":
        return next((here for here, there in _RESIDUAL.items() if there == inner), None)
    return ("op" if kind == "down" else "conv") if inner == "conv" else None


def _blocks(topology: _Topology) -> Iterator[_Block]:
    """Number the blocks as ldm's UNetModel builds them: per level two residual blocks and a change of resolution."""
    last = topology.levels - 1
    stride = _BLOCKS_PER_LEVEL + 1
    for level in range(topology.levels):
        for index in range(_BLOCKS_PER_LEVEL):
            number = level * stride + index + 1  # input block 0 is the first convolution
            yield _Block(f"input_blocks.{number}.0", f"down_blocks.{level}.resnets.{index}", "residual")
            if level in topology.attention:
                yield _Block(f"input_blocks.{number}.1", f"down_blocks.{level}.attentions.{index}", "transformer")
        if level < last:
            yield _Block(f"input_blocks.{(level + 1) * stride}.0", f"down_blocks.{level}.downsamplers.0", "down")
    yield _Block("middle_block.0", "mid_block.resnets.0", "residual")
    yield _Block("middle_block.1", "mid_block.attentions.0", "transformer")
    yield _Block("middle_block.2", "mid_block.resnets.1", "residual")
    for level in range(topology.levels):
        attends = last - level in topology.attention
        for index in range(stride):
            number = level * stride + index
            yield _Block(f"output_blocks.{number}.0", f"up_blocks.{level}.resnets.{index}", "residual")
            if attends:
                yield _Block(f"output_blocks.{number}.1", f"up_blocks.{level}.attentions.{index}", "transformer")
        if level < last:
            # The upsampler is the last entry of the level's last block: after the transformer, where there is one.
            number, place = level * stride + stride - 1, 2 if attends else 1
            yield _Block(f"output_blocks.{number}.{place}", f"up_blocks.{level}.upsamplers.0", "up")


@lru_cache
def _by_ldm(family: Family) -> dict[str, _Block]:
    return {block.ldm: block for block in _blocks(_TOPOLOGIES[family])}


@lru_cache
def _by_diffusers(family: Family) -> dict[str, _Block]:
    return {block.diffusers: block for block in _blocks(_TOPOLOGIES[family])}
