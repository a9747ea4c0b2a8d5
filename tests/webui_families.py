"""Small SD2 and SDXL checkpoints as the real WebUI loads them: weights of `small_models`, descriptions of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

import small_models

ARCHITECTURES = {"sd2": "small-te", "sdxl": "small-te2"}
SCHEDULE = {"linear_start": 0.00085, "linear_end": 0.0120, "timesteps": 1000}


def register_open_clip(folder: Path) -> None:
    """Make the small text encoders known to open_clip, whose pictures nobody looks at."""
    import open_clip

    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 32}
    for family, name in ARCHITECTURES.items():
        structure = small_models.SMALL[family]
        width, layers = structure.text[-1]
        text = {
            "context_length": 77,
            "vocab_size": 49408,
            "width": width,
            "heads": width // 16,
            "layers": layers,
        }
        settings = {"embed_dim": structure.projection, "vision_cfg": vision, "text_cfg": text}
        path = folder / f"{name}.json"
        path.write_text(json.dumps(settings), encoding="utf-8")
        open_clip.add_model_config(path)


def write_family(folder: Path, family: str, clip: dict[str, Any]) -> None:
    """Write `family`.safetensors and its yaml. clip: configuration of SDXL's first text encoder, written beside it."""
    path = small_models.write_checkpoint(family, folder / f"{family}.safetensors")
    params = (_sdxl if family == "sdxl" else _sd2)(folder, clip)
    target = "sgm.models.diffusion.DiffusionEngine" if family == "sdxl" else "ldm.models.diffusion.ddpm.LatentDiffusion"
    description = {"model": {"target": target, "params": params}}
    path.with_suffix(".yaml").write_text(yaml.safe_dump(description), encoding="utf-8")


def _vae(target: str) -> dict[str, Any]:
    loss = {"target": "torch.nn.Identity"}
    parameters = {"embed_dim": 4, "ddconfig": small_models.vae_parameters(), "lossconfig": loss}
    return {"target": target, "params": parameters}


def _sd2(folder: Path, clip: dict[str, Any]) -> dict[str, Any]:
    encoder = {"arch": ARCHITECTURES["sd2"], "freeze": True, "layer": "penultimate"}
    return {
        **SCHEDULE,
        "parameterization": "v",
        "first_stage_key": "jpg",
        "cond_stage_key": "txt",
        "conditioning_key": "crossattn",
        "scale_factor": 0.18215,
        "use_ema": False,
        "unet_config": {
            "target": "ldm.modules.diffusionmodules.openaimodel.UNetModel",
            "params": small_models.unet_parameters("sd2"),
        },
        "first_stage_config": _vae("ldm.models.autoencoder.AutoencoderKL"),
        "cond_stage_config": {"target": "ldm.modules.encoders.modules.FrozenOpenCLIPEmbedder", "params": encoder},
    }


def _sdxl(folder: Path, clip: dict[str, Any]) -> dict[str, Any]:
    encoders, diffusion = "sgm.modules.encoders.modules", "sgm.modules.diffusionmodules"
    first = folder / "clip-sdxl"
    first.mkdir(exist_ok=True)
    for file in (folder / "clip").glob("*"):
        (first / file.name).write_bytes(file.read_bytes())
    width, _ = small_models.SMALL["sdxl"].text[0]
    settings = {**clip, "hidden_size": width, "intermediate_size": 4 * width, "projection_dim": width}
    (first / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    second = {"arch": ARCHITECTURES["sdxl"], "freeze": True, "layer": "penultimate", "legacy": False}
    models = [
        _embedder("txt", f"{encoders}.FrozenCLIPEmbedder", version=str(first), layer="hidden", layer_idx=2),
        _embedder("txt", f"{encoders}.FrozenOpenCLIPEmbedder2", always_return_pooled=True, **second),
        *(
            _embedder(key, f"{encoders}.ConcatTimestepEmbedderND", outdim=256)
            for key in ("original_size_as_tuple", "crop_coords_top_left", "target_size_as_tuple")
        ),
    ]
    denoiser = {
        "num_idx": 1000,
        "weighting_config": {"target": f"{diffusion}.denoiser_weighting.EpsWeighting"},
        "scaling_config": {"target": f"{diffusion}.denoiser_scaling.EpsScaling"},
        "discretization_config": {"target": f"{diffusion}.discretizer.LegacyDDPMDiscretization"},
    }
    # sgm's UNetModel, unlike ldm's, does not take the argument that neither of them uses.
    unet = {key: value for key, value in small_models.unet_parameters("sdxl").items() if key != "image_size"}
    unet["spatial_transformer_attn_type"] = "softmax"
    return {
        "scale_factor": 0.13025,
        "disable_first_stage_autocast": True,
        "denoiser_config": {"target": f"{diffusion}.denoiser.DiscreteDenoiser", "params": denoiser},
        "network_config": {"target": f"{diffusion}.openaimodel.UNetModel", "params": unet},
        "conditioner_config": {"target": "sgm.modules.GeneralConditioner", "params": {"emb_models": models}},
        "first_stage_config": _vae("sgm.models.autoencoder.AutoencoderKLInferenceWrapper"),
    }


def _embedder(key: str, target: str, **parameters: Any) -> dict[str, Any]:
    return {"is_trainable": False, "input_key": key, "target": target, "params": parameters}
