"""How a checkpoint's networks are built, inferred from its tensor shapes and, where those are silent, from its yaml."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lib_lora_trainer.adapters.names import attention_levels, levels
from lib_lora_trainer.base.errors import HostRefusal
from lib_lora_trainer.base.families import Part, Prediction
from lib_lora_trainer.hosts.standalone.checkpoint import TEXT_PREFIXES, UNET, VAE, CheckpointFile

_LATENT_SCALES = {"sd1": 0.18215, "sd2": 0.18215, "sdxl": 0.13025}
_PUBLISHED_WIDTH = 320
_PUBLISHED_TEXT_WIDTHS = (768, 1024, 1280)
_TIMESTEPS = 1000
_LINEAR_START, _LINEAR_END = 0.00085, 0.012


@dataclass(frozen=True)
class TextLayout:
    """One text encoder. configuration: for transformers' CLIPTextConfig.

    prefix: of its tensors, up to and with transformers' `text_model.` where the file has that. open_clip: the rest of
    their names is open_clip's. with_projection: whether the pooled output is needed.
    """

    part: Part
    prefix: str
    open_clip: bool
    with_projection: bool
    configuration: Mapping[str, Any]


@dataclass(frozen=True)
class Layout:
    """Constructor arguments of diffusers' UNet2DConditionModel and AutoencoderKL, and the text encoders.

    prediction: None when neither file nor yaml says it (SD2 only).
    """

    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    text: tuple[TextLayout, ...]
    latent_scale: float
    prediction: Prediction | None
    betas: torch.Tensor


def infer_layout(file: CheckpointFile) -> Layout:
    """Return how the checkpoint's networks are built. Raises HostRefusal where they are not of the family's shape."""
    try:
        unet, vae = _unet(file), _vae(file)
        text = tuple(_text(file, part, prefix) for part, prefix in TEXT_PREFIXES[file.family].items())
    except KeyError as error:
        raise HostRefusal(
            f"Checkpoint {file.path.name}: tensor {error.args[0]} is missing; it is no complete {file.family} model. "
            "Use a full, unpruned checkpoint."
        ) from error
    parameters = file.model_parameters()
    scale = float(parameters.get("scale_factor", _LATENT_SCALES[file.family]))
    return Layout(unet, vae, text, scale, _prediction(file), _betas(parameters))


def _unet(file: CheckpointFile) -> dict[str, Any]:
    attends = attention_levels(file.family)
    count = levels(file.family)
    blocks = [3 * level + 1 for level in range(count)]
    widths = tuple(file.shapes[f"{UNET}input_blocks.{block}.0.out_layers.3.weight"][0] for block in blocks)
    first = f"{UNET}input_blocks.{blocks[attends[0]]}.1."
    configuration = {
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": tuple("CrossAttnDownBlock2D" if n in attends else "DownBlock2D" for n in range(count)),
        "up_block_types": tuple("CrossAttnUpBlock2D" if n in attends else "UpBlock2D" for n in reversed(range(count))),
        "block_out_channels": widths,
        "layers_per_block": 2,
        "cross_attention_dim": file.shapes[f"{first}transformer_blocks.0.attn2.to_k.weight"][1],
        "transformer_layers_per_block": tuple(
            _count(file, f"{UNET}input_blocks.{block}.1.transformer_blocks.") or 1 for block in blocks
        ),
        "attention_head_dim": _heads(file, widths),  # diffusers' name for the number of heads
        "use_linear_projection": len(file.shapes[f"{first}proj_in.weight"]) == 2,
    }
    if file.family == "sdxl":
        # The vector is embedded by two linear layers as in sgm; diffusers' own SDXL entrance would compute it anew.
        configuration["class_embed_type"] = "projection"
        configuration["projection_class_embeddings_input_dim"] = file.shapes[f"{UNET}label_emb.0.0.weight"][1]
    return configuration


def _heads(file: CheckpointFile, widths: tuple[int, ...]) -> tuple[int, ...]:
    parameters = file.model_parameters("unet_config", "network_config")
    heads, channels = int(parameters.get("num_heads", -1)), int(parameters.get("num_head_channels", -1))
    if channels > 0:
        return tuple(width // channels for width in widths)
    if heads > 0:
        return (heads,) * len(widths)
    if widths[0] != _PUBLISHED_WIDTH:
        raise HostRefusal(
            f"Checkpoint {file.path.name}: its UNet is {widths[0]} wide, not {_PUBLISHED_WIDTH} as published models, "
            "and the number of attention heads cannot be read from the weights. Put the yaml it was trained with "
            f"beside it, as {file.path.stem}.yaml."
        )
    return (8,) * len(widths) if file.family == "sd1" else tuple(width // 64 for width in widths)


def _vae(file: CheckpointFile) -> dict[str, Any]:
    count = _count(file, f"{VAE}encoder.down.")
    widths = tuple(file.shapes[f"{VAE}encoder.down.{level}.block.0.conv2.weight"][0] for level in range(count))
    latent_channels = file.shapes[f"{VAE}decoder.conv_in.weight"][1]
    if count != 4 or latent_channels != 4:
        raise HostRefusal(
            f"Checkpoint {file.path.name}: its VAE has {count} levels and {latent_channels} latent channels; "
            "Stable Diffusion's has 4 and 4. Use a checkpoint with the original VAE."
        )
    return {
        "down_block_types": ("DownEncoderBlock2D",) * count,
        "up_block_types": ("UpDecoderBlock2D",) * count,
        "block_out_channels": widths,
        "layers_per_block": _count(file, f"{VAE}encoder.down.0.block."),
        "latent_channels": latent_channels,
    }


def _text(file: CheckpointFile, part: Part, prefix: str) -> TextLayout:
    open_clip = prefix.endswith(".model.")
    if any(name.startswith(f"{prefix}text_model.") for name in file.shapes):  # early SD1 checkpoints lack it
        prefix += "text_model."
    inner = "transformer.resblocks." if open_clip else "encoder.layers."
    first, wide = f"{prefix}{inner}0.mlp.", "c_fc.weight" if open_clip else "fc1.weight"
    intermediate, width = file.shapes[first + wide]
    layers = _count(file, prefix + inner)
    if file.family == "sd2" and (width, layers) != (1024, 23):
        # SD2 reads the output before the last layer and never computes that one; some files leave it out.
        layers -= 1
    projection = file.shapes[f"{prefix}text_projection"][1] if part == "te2" else width
    heads, activation = _text_heads(file, width), "gelu" if open_clip else "quick_gelu"
    return TextLayout(
        part,
        prefix,
        open_clip,
        part == "te2",
        {
            "vocab_size": file.shapes[f"{prefix}{'' if open_clip else 'embeddings.'}token_embedding.weight"][0],
            "hidden_size": width,
            "intermediate_size": intermediate,
            "projection_dim": projection,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "max_position_embeddings": 77,
            "hidden_act": activation,
            "bos_token_id": 49406,
            "eos_token_id": 49407,
            "pad_token_id": 0 if open_clip else 49407,
        },
    )


def _text_heads(file: CheckpointFile, width: int) -> int:
    """Published encoders have 64 values per head; others say so in the folder their yaml names, else have 16."""
    folder = file.model_parameters("cond_stage_config").get("version")
    configuration = file.path.parent / folder / "config.json" if isinstance(folder, str) else Path()
    if configuration.is_file():
        return int(json.loads(configuration.read_text(encoding="utf-8"))["num_attention_heads"])
    return width // 64 if width in _PUBLISHED_TEXT_WIDTHS else width // 16


def _prediction(file: CheckpointFile) -> Prediction | None:
    parameters = file.model_parameters()
    scaling = json.dumps(file.model_parameters("denoiser_config"))
    if parameters.get("parameterization") == "v" or "VScaling" in scaling:
        return "v"
    if "parameterization" in parameters or "EpsScaling" in scaling:
        return "epsilon"
    hint = file.metadata.get("modelspec.prediction_type", "").lower()
    if hint:
        return "v" if hint.startswith("v") else "epsilon"
    architecture = file.metadata.get("modelspec.architecture", "")
    if "v_pred" in file.shapes or architecture.startswith("stable-diffusion-v2-768-v"):
        return "v"
    # A yaml without the entry means ldm's default; without a yaml, SD2 exists in both kinds.
    return None if file.family == "sd2" and not file.description else "epsilon"


def _betas(parameters: Mapping[str, Any]) -> torch.Tensor:
    """The variances of ldm's "linear" schedule: linear in their square roots (ldm, make_beta_schedule)."""
    start = float(parameters.get("linear_start", _LINEAR_START))
    end = float(parameters.get("linear_end", _LINEAR_END))
    steps = int(parameters.get("timesteps", _TIMESTEPS))
    if steps != _TIMESTEPS:
        raise HostRefusal(f"The checkpoint's yaml: timesteps = {steps}; only {_TIMESTEPS} are supported.")
    return torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2


def _count(file: CheckpointFile, prefix: str) -> int:
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    return len({match[1] for name in file.shapes if (match := pattern.match(name))})
