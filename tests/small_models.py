"""Small random checkpoints with ldm's tensor names, written from the structure of ldm's and sgm's modules.

No layer is zero, unlike in a new ldm model, whose output and gradients would all be zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file

Shapes = dict[str, tuple[int, ...]]

VOCABULARY = 49408
ATTENTION = {"sd1": (0, 1, 2), "sd2": (0, 1, 2), "sdxl": (1, 2)}


@dataclass(frozen=True)
class Structure:
    """Sizes of a checkpoint's networks; text: (width, layers) of each text encoder."""

    width: int
    multipliers: tuple[int, ...]
    depths: tuple[int, ...]
    text: tuple[tuple[int, int], ...]
    projection: int
    vae: tuple[int, ...] = (32, 32, 64, 64)
    vae_blocks: int = 1

    @property
    def context(self) -> int:
        return sum(width for width, _ in self.text)

    @property
    def vector(self) -> int:
        return self.projection + 6 * 256


SMALL = {
    "sd1": Structure(32, (1, 1, 2, 2), (1, 1, 1, 1), ((64, 3),), 64),
    "sd2": Structure(32, (1, 1, 2, 2), (1, 1, 1, 1), ((64, 3),), 64),
    # The projection is unlike any width, so that a transposed one does not fit.
    "sdxl": Structure(32, (1, 2, 2), (0, 1, 2), ((64, 3), (96, 3)), 80),
}
PUBLISHED_VAE = (128, 256, 512, 512)
PUBLISHED = {
    "sd1": Structure(320, (1, 2, 4, 4), (1, 1, 1, 1), ((768, 12),), 768, PUBLISHED_VAE, 2),
    "sd2": Structure(320, (1, 2, 4, 4), (1, 1, 1, 1), ((1024, 24),), 1024, PUBLISHED_VAE, 2),
    "sdxl": Structure(320, (1, 2, 4), (0, 2, 10), ((768, 12), (1280, 32)), 1280, PUBLISHED_VAE, 2),
}


def write_checkpoint(family: str, path: Path, dtype: torch.dtype = torch.float32, seed: int = 1) -> Path:
    """Write a checkpoint of about 6 M parameters, half of them word vectors, and the yaml beside it; return its path.

    SD1 predicts noise with 4 heads, SD2 v with heads of 16 values, SDXL noise with heads of 16.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: random_tensor(name, shape, generator).to(dtype)
        for name, shape in all_shapes(family, SMALL[family]).items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"format": "pt"})
    path.with_suffix(".yaml").write_text(yaml.safe_dump(description(family)), encoding="utf-8")
    return path


def random_tensor(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Return values that neither vanish nor explode through the layers."""
    noise = torch.randn(shape, generator=generator)
    if len(shape) == 1:
        norm = name.endswith("weight")
        return 1 + 0.2 * noise if norm else 0.1 * noise
    if "embedding" in name and "proj" not in name:
        return 0.3 * noise
    fan_in = shape[0] if name.endswith("text_projection") else math.prod(shape[1:])
    return noise / math.sqrt(fan_in)


def all_shapes(family: str, structure: Structure) -> Shapes:
    shapes = prefixed("model.diffusion_model.", unet_shapes(family, structure))
    shapes |= prefixed("first_stage_model.", vae_shapes(structure))
    if family == "sd1":
        return shapes | prefixed("cond_stage_model.transformer.", clip_shapes(*structure.text[0]))
    if family == "sd2":
        return shapes | prefixed("cond_stage_model.model.", open_clip_shapes(*structure.text[0], structure.projection))
    shapes |= prefixed("conditioner.embedders.0.transformer.", clip_shapes(*structure.text[0]))
    return shapes | prefixed(
        "conditioner.embedders.1.model.", open_clip_shapes(*structure.text[1], structure.projection)
    )


def prefixed(prefix: str, shapes: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}


def layer(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def unet_shapes(family: str, structure: Structure) -> Shapes:
    """Return the tensors of openaimodel.UNetModel in ldm (SD1, SD2) or sgm (SDXL), block by block."""
    multipliers, attention, depths = structure.multipliers, ATTENTION[family], structure.depths
    width, time, linear, context = structure.width, 4 * structure.width, family != "sd1", structure.context
    shapes = layer("time_embed.0", time, width) | layer("time_embed.2", time, time)
    if family == "sdxl":
        shapes |= layer("label_emb.0.0", time, structure.vector) | layer("label_emb.0.2", time, time)
    shapes |= layer("input_blocks.0.0", width, 4, 3, 3)
    skips, channels, number = [width], width, 0
    for level, multiplier in enumerate(multipliers):
        for _ in range(2):
            number += 1
            shapes |= residual_shapes(f"input_blocks.{number}.0", channels, multiplier * width, time)
            channels = multiplier * width
            if level in attention:
                shapes |= transformer_shapes(f"input_blocks.{number}.1", channels, context, depths[level], linear)
            skips.append(channels)
        if level < len(multipliers) - 1:
            number += 1
            shapes |= layer(f"input_blocks.{number}.0.op", channels, channels, 3, 3)
            skips.append(channels)
    shapes |= residual_shapes("middle_block.0", channels, channels, time)
    shapes |= transformer_shapes("middle_block.1", channels, context, depths[-1], linear)
    shapes |= residual_shapes("middle_block.2", channels, channels, time)
    number = -1
    for level, multiplier in reversed(list(enumerate(multipliers))):
        for index in range(3):
            number, place = number + 1, 1
            shapes |= residual_shapes(f"output_blocks.{number}.0", channels + skips.pop(), multiplier * width, time)
            channels = multiplier * width
            if level in attention:
                shapes |= transformer_shapes(f"output_blocks.{number}.1", channels, context, depths[level], linear)
                place = 2
            if level and index == 2:
                shapes |= layer(f"output_blocks.{number}.{place}.conv", channels, channels, 3, 3)
    return shapes | layer("out.0", channels) | layer("out.2", 4, width, 3, 3)


def residual_shapes(name: str, inputs: int, outputs: int, time: int) -> Shapes:
    shapes = layer(f"{name}.in_layers.0", inputs) | layer(f"{name}.in_layers.2", outputs, inputs, 3, 3)
    shapes |= layer(f"{name}.emb_layers.1", outputs, time)
    shapes |= layer(f"{name}.out_layers.0", outputs) | layer(f"{name}.out_layers.3", outputs, outputs, 3, 3)
    return shapes if inputs == outputs else shapes | layer(f"{name}.skip_connection", outputs, inputs, 1, 1)


def transformer_shapes(name: str, width: int, context: int, depth: int, linear: bool) -> Shapes:
    ones = () if linear else (1, 1)
    shapes = layer(f"{name}.norm", width)
    shapes |= layer(f"{name}.proj_in", width, width, *ones) | layer(f"{name}.proj_out", width, width, *ones)
    for index in range(depth):
        block = f"{name}.transformer_blocks.{index}"
        for attention, inputs in (("attn1", width), ("attn2", context)):
            shapes[f"{block}.{attention}.to_q.weight"] = (width, width)
            shapes[f"{block}.{attention}.to_k.weight"] = (width, inputs)
            shapes[f"{block}.{attention}.to_v.weight"] = (width, inputs)
            shapes |= layer(f"{block}.{attention}.to_out.0", width, width)
        shapes |= layer(f"{block}.ff.net.0.proj", 8 * width, width) | layer(f"{block}.ff.net.2", width, 4 * width)
        for norm in ("norm1", "norm2", "norm3"):
            shapes |= layer(f"{block}.{norm}", width)
    return shapes


def vae_shapes(structure: Structure) -> Shapes:
    """Return the tensors of ldm's AutoencoderKL."""
    widths, blocks, inner = structure.vae, structure.vae_blocks, structure.vae[-1]
    shapes = layer("encoder.conv_in", widths[0], 3, 3, 3) | layer("decoder.conv_in", inner, 4, 3, 3)
    channels = widths[0]
    for level, width in enumerate(widths):
        for index in range(blocks):
            shapes |= vae_residual_shapes(f"encoder.down.{level}.block.{index}", channels, width)
            channels = width
        if level < len(widths) - 1:
            shapes |= layer(f"encoder.down.{level}.downsample.conv", width, width, 3, 3)
    for level in reversed(range(len(widths))):
        for index in range(blocks + 1):
            shapes |= vae_residual_shapes(f"decoder.up.{level}.block.{index}", channels, widths[level])
            channels = widths[level]
        if level:
            shapes |= layer(f"decoder.up.{level}.upsample.conv", channels, channels, 3, 3)
    for side in ("encoder", "decoder"):
        for block in ("block_1", "block_2"):
            shapes |= vae_residual_shapes(f"{side}.mid.{block}", inner, inner)
        shapes |= layer(f"{side}.mid.attn_1.norm", inner)
        for part in ("q", "k", "v", "proj_out"):
            shapes |= layer(f"{side}.mid.attn_1.{part}", inner, inner, 1, 1)
    shapes |= layer("encoder.norm_out", inner) | layer("encoder.conv_out", 8, inner, 3, 3)
    shapes |= layer("decoder.norm_out", widths[0]) | layer("decoder.conv_out", 3, widths[0], 3, 3)
    return shapes | layer("quant_conv", 8, 8, 1, 1) | layer("post_quant_conv", 4, 4, 1, 1)


def vae_residual_shapes(name: str, inputs: int, outputs: int) -> Shapes:
    shapes = layer(f"{name}.norm1", inputs) | layer(f"{name}.conv1", outputs, inputs, 3, 3)
    shapes |= layer(f"{name}.norm2", outputs) | layer(f"{name}.conv2", outputs, outputs, 3, 3)
    return shapes if inputs == outputs else shapes | layer(f"{name}.nin_shortcut", outputs, inputs, 1, 1)


def clip_shapes(width: int, layers: int) -> Shapes:
    """Return the tensors of transformers' CLIPTextModel."""
    shapes: Shapes = {
        "text_model.embeddings.token_embedding.weight": (VOCABULARY, width),
        "text_model.embeddings.position_embedding.weight": (77, width),
    }
    for index in range(layers):
        block = f"text_model.encoder.layers.{index}"
        for part in ("q", "k", "v", "out"):
            shapes |= layer(f"{block}.self_attn.{part}_proj", width, width)
        shapes |= layer(f"{block}.mlp.fc1", 4 * width, width) | layer(f"{block}.mlp.fc2", width, 4 * width)
        shapes |= layer(f"{block}.layer_norm1", width) | layer(f"{block}.layer_norm2", width)
    return shapes | layer("text_model.final_layer_norm", width)


def open_clip_shapes(width: int, layers: int, projection: int) -> Shapes:
    """Return the tensors of open_clip's text tower."""
    shapes: Shapes = {
        "token_embedding.weight": (VOCABULARY, width),
        "positional_embedding": (77, width),
        "text_projection": (width, projection),
    }
    for index in range(layers):
        block = f"transformer.resblocks.{index}"
        shapes |= {f"{block}.attn.in_proj_weight": (3 * width, width), f"{block}.attn.in_proj_bias": (3 * width,)}
        shapes |= layer(f"{block}.attn.out_proj", width, width)
        shapes |= layer(f"{block}.mlp.c_fc", 4 * width, width) | layer(f"{block}.mlp.c_proj", width, 4 * width)
        shapes |= layer(f"{block}.ln_1", width) | layer(f"{block}.ln_2", width)
    return shapes | layer("ln_final", width)


def unet_parameters(family: str) -> dict:
    """Return the arguments of ldm's or sgm's UNetModel for the small structures."""
    structure = SMALL[family]
    heads = {"num_heads": 4} if family == "sd1" else {"num_head_channels": 16}
    parameters = {
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": structure.width,
        "attention_resolutions": [2**level for level in reversed(ATTENTION[family])],
        "num_res_blocks": 2,
        "channel_mult": list(structure.multipliers),
        "use_spatial_transformer": True,
        "transformer_depth": 1,
        "context_dim": structure.context,
        "use_checkpoint": False,
        "legacy": False,
        **heads,
    }
    if family != "sd1":
        parameters["use_linear_in_transformer"] = True
    if family == "sdxl":
        parameters |= {"num_classes": "sequential", "adm_in_channels": structure.vector}
        parameters["transformer_depth"] = list(structure.depths)
    return parameters


def vae_parameters() -> dict:
    """Return the arguments of ldm's Encoder and Decoder for the small structures."""
    return {
        "double_z": True,
        "z_channels": 4,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": 32,
        "ch_mult": [1, 1, 2, 2],
        "num_res_blocks": 1,
        "attn_resolutions": [],
        "dropout": 0.0,
    }


def description(family: str) -> dict:
    """Return the yaml that tells ldm or sgm, and the WebUI, how the checkpoint is built."""
    if family == "sdxl":
        target = "sgm.modules.diffusionmodules.denoiser_scaling.EpsScaling"
        parameters = {
            "scale_factor": 0.13025,
            "denoiser_config": {"params": {"scaling_config": {"target": target}}},
            "network_config": {"params": unet_parameters(family)},
        }
        return {"model": {"target": "sgm.models.diffusion.DiffusionEngine", "params": parameters}}
    parameters = {
        "linear_start": 0.00085,
        "linear_end": 0.012,
        "timesteps": 1000,
        "scale_factor": 0.2,
        "unet_config": {
            "target": "ldm.modules.diffusionmodules.openaimodel.UNetModel",
            "params": unet_parameters(family),
        },
        "first_stage_config": {
            "target": "ldm.models.autoencoder.AutoencoderKL",
            "params": {"embed_dim": 4, "ddconfig": vae_parameters(), "lossconfig": {"target": "torch.nn.Identity"}},
        },
    }
    if family == "sd2":
        parameters["parameterization"] = "v"
    return {"model": {"target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": parameters}}
