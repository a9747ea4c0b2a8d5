"""What an adapter file says about itself: kohya's `ss_*` keys, `modelspec.*`, and the whole configuration."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from lib_lora_trainer import __version__
from lib_lora_trainer.base.codec import to_toml
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.dataset.buckets import Placement
from lib_lora_trainer.dataset.items import Concept
from lib_lora_trainer.hosts.api import ModelInfo

_BASE_VERSION = {"sd1": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl_base_v1-0"}
_ARCHITECTURE = {
    "sd1": "stable-diffusion-v1/lora",
    "sd2": "stable-diffusion-v2-512/lora",
    "sdxl": "stable-diffusion-xl-v1-base/lora",
}
# Names by which kohya's tools and viewers of metadata know them; what is not here is written as it is called here.
_SCHEDULE = {"cosine-restarts": "cosine_with_restarts", "annealed-cosine": "cosine_annealing_warmup_restarts"}
_LOSS = {"smooth-l1": "smooth_l1"}
_ALGORITHM = {"oft": "diag-oft"}


@dataclass(frozen=True)
class Subject:
    """What a run was trained on: the parts of the metadata that stay the same for all its files.

    images, regularization_images: pictures times repeats per epoch, before balancing.
    """

    session: str
    started: float
    model: ModelInfo
    concepts: tuple[Concept, ...]
    tag_frequency: Mapping[str, Mapping[str, int]]
    placements: tuple[Placement, ...]
    steps_total: int
    images: float
    regularization_images: float


@dataclass(frozen=True)
class Moment:
    """When a file was saved. loss: the exponential average."""

    step: int
    epoch: int
    loss: float
    finished: float


def build(config: RunConfig, subject: Subject, moment: Moment, stem: str) -> dict[str, str]:
    """Return the metadata of one file. Every value is text, as safetensors and the WebUI's Lora page demand.

    `ss_base_model_version` and `ss_v2` tell the WebUI the family; `ss_output_name` equals the stem, else the Lora page
    offers another name than the prompt needs.
    """
    return {**_kohya(config, subject, moment, stem), **_modelspec(config, subject, moment, stem), **_own(config)}


def _kohya(config: RunConfig, subject: Subject, moment: Moment, stem: str) -> dict[str, str]:
    values = {
        "output_name": stem,
        "session_id": subject.session,
        "training_started_at": subject.started,
        "training_finished_at": moment.finished,
        "sd_model_name": subject.model.file or subject.model.name,
        "new_sd_model_hash": subject.model.sha256,
        "vae_name": subject.model.vae,
        "base_model_version": _base_version(subject.model),
        "v2": subject.model.family == "sd2",
        "max_train_steps": subject.steps_total,
        "num_epochs": config.training.epochs,
        "steps": moment.step,
        "epoch": moment.epoch,
        "num_train_images": subject.images,
        "num_reg_images": subject.regularization_images,
        "bucket_info": json.dumps(_bucket_info(subject.placements)),
        "dataset_dirs": json.dumps(_folders(subject.concepts), ensure_ascii=False),
        "tag_frequency": json.dumps(subject.tag_frequency, ensure_ascii=False),
        "training_comment": "; ".join(filter(None, [", ".join(config.triggers), config.comment])),
        **_of_adapter(config),
        **_of_optimizer(config, subject.steps_total),
        **_of_training(config),
        **_of_data(config),
    }
    return {f"ss_{name}": str(value) for name, value in values.items()}


def _base_version(model: ModelInfo) -> str:
    version = _BASE_VERSION[model.family]
    return f"{version}_v" if model.family == "sd2" and model.prediction == "v" else version


def _of_adapter(config: RunConfig) -> dict[str, object]:
    adapter = config.adapter
    plain = adapter.method == "lora" and not _network_arguments(config)
    return {
        "network_module": "networks.lora" if plain else "lycoris.kohya",
        "network_dim": adapter.rank,
        "network_alpha": adapter.alpha,
        "network_dropout": adapter.dropout,
        "network_args": json.dumps(_network_arguments(config)),
        "scale_weight_norms": adapter.scale_weight_norms or None,
    }


def _network_arguments(config: RunConfig) -> dict[str, str]:
    """Return what kohya's `--network_args` would hold; empty for a plain LoRA."""
    adapter = config.adapter
    found: dict[str, object] = {}
    if adapter.method != "lora":
        found = {
            "algo": _ALGORITHM.get(adapter.method, adapter.method),
            "conv_dim": adapter.conv_rank,
            "conv_alpha": adapter.conv_alpha,
        }
    options = {
        "rank_dropout": adapter.rank_dropout,
        "module_dropout": adapter.module_dropout,
        "dora_wd": adapter.weight_decompose,
        "rs_lora": adapter.rank_stabilized,
        "use_tucker": adapter.tucker,
        "use_scalar": adapter.scalar,
        "train_norm": adapter.norms,
        "blocks": adapter.blocks,
        "rules": "; ".join(adapter.rules),
    }
    found |= {name: value for name, value in options.items() if value}
    if adapter.method == "lokr":
        found |= {
            "factor": adapter.lokr_factor,
            "decompose_both": adapter.lokr_decompose_both,
            "full_matrix": adapter.lokr_full_matrix,
        }
    if adapter.method == "dylora":
        found["block_size"] = adapter.dylora_unit
    if adapter.method in ("oft", "boft"):
        found |= {"constraint": adapter.oft_constraint, "rescaled": adapter.oft_rescaled}
    return {name: str(value) for name, value in found.items()}


def _of_optimizer(config: RunConfig, steps: int) -> dict[str, object]:
    adapter, optimizer = config.adapter, config.optimizer
    given = {
        name: getattr(optimizer, name)
        for name in ("weight_decay", "beta1", "beta2", "epsilon", "d0", "d_coefficient", "growth_rate")
        if getattr(optimizer, name) is not None
    }
    arguments = [f"{name}={value}" for name, value in given.items()] + list(optimizer.arguments)
    warmup = optimizer.warmup if optimizer.warmup >= 1 else optimizer.warmup * steps
    return {
        "learning_rate": optimizer.unet_learning_rate,
        "unet_lr": optimizer.unet_learning_rate if adapter.unet else 0.0,
        "text_encoder_lr": optimizer.text_learning_rate if adapter.text_encoder else 0.0,
        "optimizer": f"{optimizer.custom_class or optimizer.name}({','.join(arguments)})",
        "lr_scheduler": _SCHEDULE.get(optimizer.schedule, optimizer.schedule),
        "lr_warmup_steps": round(warmup),
        "max_grad_norm": optimizer.gradient_clip,
    }


def _of_training(config: RunConfig) -> dict[str, object]:
    training, loss, noise = config.training, config.loss, config.noise
    return {
        "total_batch_size": training.batch_size * training.accumulation,
        "batch_size_per_device": training.batch_size,
        "gradient_accumulation_steps": training.accumulation,
        "gradient_checkpointing": training.gradient_checkpointing,
        "mixed_precision": training.precision,
        "fp8_base": training.fp8_base,
        "seed": training.seed,
        "clip_skip": training.clip_skip,
        "max_token_length": training.token_limit,
        "loss_type": _LOSS.get(loss.kind, loss.kind),
        "huber_schedule": loss.huber_schedule,
        "huber_c": loss.huber_c,
        "huber_scale": loss.huber_scale,
        "min_snr_gamma": loss.min_snr_gamma or None,
        "debiased_estimation": loss.debiased,
        "masked_loss": loss.masked,
        "prior_loss_weight": loss.prior_weight,
        "noise_offset": noise.offset or None,
        "noise_offset_random_strength": noise.offset_random,
        "adaptive_noise_scale": noise.adaptive_offset or None,
        "multires_noise_iterations": noise.pyramid_iterations or None,
        "multires_noise_discount": noise.pyramid_discount,
        "ip_noise_gamma": noise.input_perturbation or None,
        "ip_noise_gamma_random_strength": noise.input_perturbation_random,
        "min_timestep": noise.minimum_timestep,
        "max_timestep": noise.maximum_timestep,
        "zero_terminal_snr": noise.zero_terminal_snr,
    }


def _of_data(config: RunConfig) -> dict[str, object]:
    data, caption = config.data, config.data.caption
    return {
        "cache_latents": data.cache != "none",
        "resolution": f"({data.resolution}, {data.resolution})",
        "enable_bucket": data.bucket,
        "min_bucket_reso": data.bucket_minimum,
        "max_bucket_reso": data.bucket_maximum,
        "bucket_no_upscale": data.no_upscale,
        "flip_aug": data.flip,
        "color_aug": data.color,
        "random_crop": data.random_crop,
        "shuffle_caption": caption.shuffle,
        "keep_tokens": caption.keep_tokens,
        "caption_dropout_rate": caption.dropout,
        "caption_dropout_every_n_epochs": caption.dropout_every_epochs,
        "caption_tag_dropout_rate": caption.tag_dropout,
    }


def _bucket_info(placements: Sequence[Placement]) -> dict[str, object]:
    counts = Counter((placement.bucket.width, placement.bucket.height) for placement in placements)
    return {
        "buckets": {
            str(index): {"resolution": list(size), "count": count}
            for index, (size, count) in enumerate(sorted(counts.items()))
        }
    }


def folder_names(concepts: Sequence[Concept]) -> dict[str, str]:
    """Return each concept's name in the metadata: its folder's own name, as kohya writes it, if only one has that."""
    count = Counter(concept.folder.name for concept in concepts)
    return {
        concept.name: concept.folder.name if count[concept.folder.name] == 1 else concept.name for concept in concepts
    }


def _folders(concepts: Sequence[Concept]) -> dict[str, dict[str, float]]:
    names = folder_names(concepts)
    return {names[concept.name]: {"n_repeats": concept.repeats, "img_count": concept.images} for concept in concepts}


def _architecture(model: ModelInfo) -> str:
    velocity = model.family == "sd2" and model.prediction == "v"
    return "stable-diffusion-v2-768-v/lora" if velocity else _ARCHITECTURE[model.family]


def _modelspec(config: RunConfig, subject: Subject, moment: Moment, stem: str) -> dict[str, str]:
    date = datetime.fromtimestamp(moment.finished, tz=timezone.utc).isoformat(timespec="seconds")
    values = {
        "sai_model_spec": "1.0.1",
        "architecture": _architecture(subject.model),
        "implementation": (
            "https://github.com/Stability-AI/generative-models" if subject.model.family == "sdxl" else "diffusers"
        ),
        "title": stem,
        "date": date,
        "resolution": f"{config.data.resolution}x{config.data.resolution}",
        "prediction_type": subject.model.prediction,
        "encoder_layer": str(config.training.clip_skip),
        "trigger_phrase": ", ".join(config.triggers),
        "usage_hint": f"weight {config.save.preferred_weight:g}",
    }
    return {f"modelspec.{name}": value for name, value in values.items()}


def _own(config: RunConfig) -> dict[str, str]:
    return {"lora_trainer_version": __version__, "lora_trainer_config": to_toml(config)}
