"""From tensors in a checkpoint file to diffusers' and transformers' modules: names, shapes, loading."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from lib_lora_trainer.adapters.names import to_ldm
from lib_lora_trainer.base.errors import HostRefusal
from lib_lora_trainer.base.families import Family, Part
from lib_lora_trainer.hosts.standalone.checkpoint import UNET, VAE, CheckpointFile
from lib_lora_trainer.hosts.standalone.layout import Layout, TextLayout

_TOGETHER = 32  # tensors for which the file is mapped once: what was read stays in memory until it is mapped anew
_VAE_RULES = (
    (re.compile(r"\.down_blocks\.(\d+)\.resnets\.(\d+)\."), r".down.\1.block.\2."),
    (re.compile(r"\.down_blocks\.(\d+)\.downsamplers\.0\."), r".down.\1.downsample."),
    (re.compile(r"\.up_blocks\.(\d+)\.resnets\.(\d+)\."), r".up.\1.block.\2."),
    (re.compile(r"\.up_blocks\.(\d+)\.upsamplers\.0\."), r".up.\1.upsample."),
    (re.compile(r"\.mid_block\.resnets\.0\."), ".mid.block_1."),
    (re.compile(r"\.mid_block\.resnets\.1\."), ".mid.block_2."),
    (re.compile(r"\.mid_block\.attentions\.0\."), ".mid.attn_1."),
    (re.compile(r"\.group_norm\."), ".norm."),
    (re.compile(r"\.to_([qkv])\."), r".\1."),
    (re.compile(r"\.to_out\.0\."), ".proj_out."),
    (re.compile(r"\.conv_shortcut\."), ".nin_shortcut."),
    (re.compile(r"\.conv_norm_out\."), ".norm_out."),
)
_OPEN_CLIP_RULES = (
    (re.compile(r"^encoder\.layers\."), "transformer.resblocks."),
    (re.compile(r"\.layer_norm([12])\."), r".ln_\1."),
    (re.compile(r"\.mlp\.fc1\."), ".mlp.c_fc."),
    (re.compile(r"\.mlp\.fc2\."), ".mlp.c_proj."),
    (re.compile(r"\.self_attn\.out_proj\."), ".attn.out_proj."),
    (re.compile(r"\.self_attn\.[qkv]_proj\."), ".attn.in_proj_"),
    (re.compile(r"^final_layer_norm\."), "ln_final."),
    (re.compile(r"^embeddings\.position_embedding\.weight$"), "positional_embedding"),
    (re.compile(r"^embeddings\.token_embedding\."), "token_embedding."),
)


@dataclass(frozen=True)
class Source:
    """Where a module's tensor is in the file. third: which third of the rows (q, k, v in one), None for all of it."""

    name: str
    third: int | None = None
    transposed: bool = False

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape the tensor has once it is taken from one of shape `stored`."""
        if self.third is not None:
            return (stored[0] // 3, *stored[1:])
        return stored[::-1] if self.transposed else stored

    def take(self, stored: torch.Tensor) -> torch.Tensor:
        """Return the tensor out of the stored one."""
        if self.third is not None:
            return stored.chunk(3)[self.third]
        return stored.T if self.transposed else stored


@dataclass(frozen=True)
class Modules:
    """The networks of a checkpoint. text: by part, in the model's order."""

    unet: torch.nn.Module
    vae: Any
    text: Mapping[Part, torch.nn.Module]

    def parts(self) -> Iterator[tuple[Part, torch.nn.Module]]:
        """Yield what adapters can sit on."""
        yield "unet", self.unet
        yield from self.text.items()

    def all(self) -> tuple[torch.nn.Module, ...]:
        """Return every network."""
        return (self.unet, self.vae, *self.text.values())


def build_empty(layout: Layout) -> Modules:
    """Return the networks on torch's meta device: every layer and shape, no memory."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    text: dict[Part, torch.nn.Module] = {}
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        for entry in layout.text:
            kind = CLIPTextModelWithProjection if entry.with_projection else CLIPTextModel
            text[entry.part] = kind(CLIPTextConfig(**entry.configuration)).eval()
        return Modules(UNet2DConditionModel(**layout.unet).eval(), AutoencoderKL(**layout.vae).eval(), text)


def check_complete(file: CheckpointFile, layout: Layout, empty: Modules) -> None:
    """Raise HostRefusal unless the file has every tensor of the networks in its shape, and no other UNet tensor."""
    used: set[str] = set()
    for module, rule in _rules(file.family, layout, empty):
        for key, tensor in module.state_dict().items():
            source = rule(key)
            if source is None:
                continue
            used.add(source.name)
            stored = file.shapes.get(source.name)
            if stored is None:
                raise HostRefusal(
                    f"Checkpoint {file.path.name}: tensor {source.name} is missing; it is no complete {file.family} "
                    "model. Use a full, unpruned checkpoint."
                )
            if _flat(source.shape(stored)) != _flat(tuple(tensor.shape)):
                raise HostRefusal(
                    f"Checkpoint {file.path.name}: tensor {source.name} has shape {list(stored)} instead of "
                    f"{list(tensor.shape)}; this variant of {file.family} is not supported. Use the plain base model."
                )
    extra = sorted(name for name in file.shapes if name.startswith(UNET) and name not in used)
    if extra:
        raise HostRefusal(
            f"Checkpoint {file.path.name}: its UNet has {len(extra)} tensors that {file.family} does not know, e.g. "
            f"{extra[0]}; this variant is not supported. Use the plain base model."
        )


def load(file: CheckpointFile, layout: Layout, device: torch.device, dtype: torch.dtype) -> Modules:
    """Return the networks with their weights, frozen and in evaluation mode.

    UNet and text encoders in `dtype`, the VAE in float32, because SDXL's overflows in float16. Memory holds the model
    once: the file is mapped, copied from tensor by tensor, and mapped anew so often that little of it counts as well.
    """
    modules = build_empty(layout)
    for module, rule in _rules(file.family, layout, modules):
        wanted = torch.float32 if module is modules.vae else dtype
        places = module.state_dict()
        sources = {key: source for key in places if (source := rule(key)) is not None}
        state = {}
        for key, stored in _read(file, sources):
            state[key] = stored.reshape(places[key].shape).to(device, wanted, copy=True).contiguous()
        module.load_state_dict(state, strict=False, assign=True)
    for module in modules.text.values():
        _place_positions(module, device)
    for module in modules.all():
        module.requires_grad_(requires_grad=False)
    return modules


def _read(file: CheckpointFile, sources: Mapping[str, Source]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield each key's tensor as it is in the file, to be copied before the next one is taken."""
    from safetensors import safe_open

    waiting = iter(sources.items())
    while part := list(itertools.islice(waiting, _TOGETHER)):
        with safe_open(str(file.path), framework="pt", device="cpu") as stream:
            for key, source in part:
                yield key, source.take(stream.get_tensor(source.name))


def _place_positions(module: torch.nn.Module, device: torch.device) -> None:
    # The only buffer; some files carry it rounded to float16, so it is made anew.
    embeddings: Any = module.get_submodule("text_model.embeddings")
    embeddings.position_ids = torch.arange(embeddings.position_embedding.num_embeddings, device=device)[None]


_Rule = Callable[[str], Source | None]


def _rules(family: Family, layout: Layout, modules: Modules) -> Iterator[tuple[torch.nn.Module, _Rule]]:
    yield modules.unet, lambda key: _unet_source(key, family)
    yield modules.vae, lambda key: _vae_source(key, len(layout.vae["block_out_channels"]))
    for entry in layout.text:
        yield modules.text[entry.part], _text_rule(entry)


def unet_path(path: str, family: Family) -> str:
    """Return ldm's name of a module of the UNet that `build_empty` makes."""
    return to_ldm(path.replace("class_embedding.", "add_embedding.", 1), family)


def _unet_source(key: str, family: Family) -> Source:
    path, _, name = key.rpartition(".")
    return Source(f"{UNET}{unet_path(path, family)}.{name}")


def _vae_source(key: str, levels: int) -> Source:
    name = f".{key}"
    for pattern, replacement in _VAE_RULES:
        name = pattern.sub(replacement, name)
    # ldm numbers the decoder's levels from the largest picture, diffusers from the smallest.
    name = re.sub(r"\.up\.(\d+)\.", lambda match: f".up.{levels - 1 - int(match[1])}.", name)
    return Source(VAE + name[1:])


def _text_rule(entry: TextLayout) -> _Rule:
    def rule(key: str) -> Source | None:
        if key.endswith("position_ids"):
            return None
        if key == "text_projection.weight":
            return Source(f"{entry.prefix}text_projection", transposed=True)
        name = key.removeprefix("text_model.")
        if not entry.open_clip:
            return Source(entry.prefix + name)
        third = re.search(r"\.self_attn\.([qkv])_proj\.", key)
        for pattern, replacement in _OPEN_CLIP_RULES:
            name = pattern.sub(replacement, name)
        return Source(entry.prefix + name, third="qkv".index(third[1]) if third else None)

    return rule


def _flat(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape without trailing ones: 1×1 convolutions and linear layers have the same weights."""
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return shape
