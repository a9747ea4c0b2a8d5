"""Writes the checkpoint the way SD1.x models are shared: one fp16 safetensors with ldm names, a yaml beside it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import torch
from safetensors.torch import save_file

from lib_lora_trainer.demo.build.autoencoder import load_autoencoder
from lib_lora_trainer.demo.build.denoiser import cache_latents, load_denoiser
from lib_lora_trainer.demo.build.ldm_keys import checkpoint_state

logger = logging.getLogger(__name__)

NAME = "toy"
TEXT_ENCODER_PLACEHOLDER = "TEXT_ENCODER_FOLDER"
"""Stands in the yaml for the folder with the text encoder's config.json and the tokenizer; filled in when installed."""

YAML = """\
model:
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    linear_start: 0.00085
    linear_end: 0.0120
    num_timesteps_cond: 1
    log_every_t: 200
    timesteps: 1000
    first_stage_key: "jpg"
    cond_stage_key: "txt"
    image_size: 16
    channels: 4
    cond_stage_trainable: false
    conditioning_key: crossattn
    monitor: val/loss_simple_ema
    scale_factor: {scale_factor}
    use_ema: False

    unet_config:
      target: ldm.modules.diffusionmodules.openaimodel.UNetModel
      params:
        image_size: 16
        in_channels: 4
        out_channels: 4
        model_channels: 32
        attention_resolutions: [ 4, 2, 1 ]
        num_res_blocks: 2
        channel_mult: [ 1, 2, 3, 4 ]
        num_heads: 4
        use_spatial_transformer: True
        transformer_depth: 1
        context_dim: 64
        use_checkpoint: False
        legacy: False

    first_stage_config:
      target: ldm.models.autoencoder.AutoencoderKL
      params:
        embed_dim: 4
        monitor: val/rec_loss
        ddconfig:
          double_z: true
          z_channels: 4
          resolution: 128
          in_channels: 3
          out_ch: 3
          ch: 32
          ch_mult: [ 1, 1, 2, 2 ]
          num_res_blocks: 1
          attn_resolutions: [ ]
          dropout: 0.0
        lossconfig:
          target: torch.nn.Identity

    cond_stage_config:
      target: ldm.modules.encoders.modules.FrozenCLIPEmbedder
      params:
        version: {text_encoder}
"""


def export_checkpoint(work: Path, assets: Path) -> None:
    """Write toy.safetensors, toy.yaml and text_encoder/config.json into ``assets``.

    Every weight is rounded to fp16. The safetensors metadata holds ``scale_factor`` as text; the yaml holds the same.
    """
    unet, text = load_denoiser(work)
    autoencoder = load_autoencoder(work)
    scale_factor = f"{cache_latents(work).scale_factor:.6f}"
    state = checkpoint_state(unet.state_dict(), autoencoder.state_dict(), text.state_dict())
    halves = {name: weight.to(torch.float16).contiguous() for name, weight in state.items()}
    metadata = {
        "format": "pt",
        "scale_factor": scale_factor,
        "modelspec.architecture": "stable-diffusion-v1",
        "modelspec.title": "Toy world",
        "modelspec.resolution": "128x128",
        "modelspec.prediction_type": "epsilon",
    }
    folder = assets / "text_encoder"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(halves, str(assets / f"{NAME}.safetensors"), metadata)
    yaml = YAML.format(scale_factor=scale_factor, text_encoder=TEXT_ENCODER_PLACEHOLDER)
    (assets / f"{NAME}.yaml").write_text(yaml, encoding="utf-8", newline="\n")
    config = text.config.to_dict()
    kept = {key: config[key] for key in CONFIG_KEYS}
    (folder / "config.json").write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8", newline="\n")
    logger.info("%d weights, scale_factor %s", sum(weight.numel() for weight in halves.values()), scale_factor)


CONFIG_KEYS = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "projection_dim",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "hidden_act",
    "layer_norm_eps",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)
