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


@dataclass(frozen=True)
class Subject:
    """What a run was trained on: the parts of the metadata that stay the same for all its files."""

    session: str
    started: float
    model: ModelInfo
    concepts: tuple[Concept, ...]
    tag_frequency: Mapping[str, Mapping[str, int]]
    placements: tuple[Placement, ...]
    steps_total: int


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
    training, optimizer, adapter, data = config.training, config.optimizer, config.adapter, config.data
    values = {
        "output_name": stem,
        "session_id": subject.session,
        "training_started_at": subject.started,
        "training_finished_at": moment.finished,
        "sd_model_name": subject.model.file or subject.model.name,
        "new_sd_model_hash": subject.model.sha256,
        "vae_name": subject.model.vae,
        "base_model_version": _BASE_VERSION[subject.model.family],
        "v2": subject.model.family == "sd2",
        "network_module": "lycoris.kohya" if adapter.method == "locon" else "networks.lora",
        "network_dim": adapter.rank,
        "network_alpha": adapter.alpha,
        "network_dropout": adapter.dropout,
        "network_args": json.dumps(_network_arguments(config)),
        "learning_rate": optimizer.unet_learning_rate,
        "unet_lr": optimizer.unet_learning_rate if adapter.unet else 0.0,
        "text_encoder_lr": optimizer.text_learning_rate if adapter.text_encoder else 0.0,
        "optimizer": f"torch.optim.AdamW(weight_decay={optimizer.weight_decay})",
        "lr_scheduler": optimizer.schedule,
        "lr_warmup_steps": round(optimizer.warmup * subject.steps_total),
        "max_grad_norm": optimizer.gradient_clip,
        "max_train_steps": subject.steps_total,
        "num_epochs": training.epochs,
        "steps": moment.step,
        "epoch": moment.epoch,
        "num_train_images": sum(concept.images * concept.repeats for concept in subject.concepts),
        "num_reg_images": 0,
        "total_batch_size": training.batch_size * training.accumulation,
        "batch_size_per_device": training.batch_size,
        "gradient_accumulation_steps": training.accumulation,
        "gradient_checkpointing": training.gradient_checkpointing,
        "mixed_precision": training.precision,
        "seed": training.seed,
        "clip_skip": training.clip_skip,
        "max_token_length": training.token_limit,
        "cache_latents": True,
        "loss_type": "l2",
        "resolution": f"({data.resolution}, {data.resolution})",
        "enable_bucket": data.bucket,
        "min_bucket_reso": data.bucket_minimum,
        "max_bucket_reso": data.bucket_maximum,
        "bucket_no_upscale": data.no_upscale,
        "bucket_info": json.dumps(_bucket_info(subject.placements)),
        "flip_aug": data.flip,
        "shuffle_caption": data.caption.shuffle,
        "keep_tokens": data.caption.keep_tokens,
        "dataset_dirs": json.dumps(_folders(subject.concepts), ensure_ascii=False),
        "tag_frequency": json.dumps(subject.tag_frequency, ensure_ascii=False),
        "training_comment": "; ".join(filter(None, [", ".join(config.triggers), config.comment])),
    }
    return {f"ss_{name}": str(value) for name, value in values.items()}


def _network_arguments(config: RunConfig) -> dict[str, str]:
    if config.adapter.method != "locon":
        return {}
    return {"algo": "locon", "conv_dim": str(config.adapter.conv_rank), "conv_alpha": str(config.adapter.conv_alpha)}


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


def _folders(concepts: Sequence[Concept]) -> dict[str, dict[str, int]]:
    names = folder_names(concepts)
    return {names[concept.name]: {"n_repeats": concept.repeats, "img_count": concept.images} for concept in concepts}


def _modelspec(config: RunConfig, subject: Subject, moment: Moment, stem: str) -> dict[str, str]:
    date = datetime.fromtimestamp(moment.finished, tz=timezone.utc).isoformat(timespec="seconds")
    values = {
        "sai_model_spec": "1.0.1",
        "architecture": _ARCHITECTURE[subject.model.family],
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
