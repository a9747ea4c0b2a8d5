"""Mistakes and risks that can be seen before the start, each with what to do about it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from lib_lora_trainer.adapters.targets import Layer, choose
from lib_lora_trainer.base.errors import ConfigError, Problem
from lib_lora_trainer.base.files import check_name
from lib_lora_trainer.base.setting import range_problems
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.dataset.buckets import bucket_problems
from lib_lora_trainer.dataset.items import Scan
from lib_lora_trainer.hosts.api import ModelInfo

_CHARACTER_BUDGET = 6000  # steps with AdamW, images × repeats × epochs (G3 guide)
_NATIVE = {"sd1": 512, "sd2": 768, "sdxl": 1024}


def check(info: ModelInfo, config: RunConfig, scan: Scan, images: int) -> tuple[Problem, ...]:
    """Return every problem of settings, model and dataset together. images: length of the run."""
    unusable = settings(config)
    found = [*unusable, *(problem for problem in scan.problems if problem not in unusable)]
    if unusable:
        return tuple(found)  # the rules below reckon with values in their ranges
    for rule in (_name, _targets, _captions, _rates, _sizes, _arithmetic, _model):
        found += rule(info, config, scan)
    if images > _CHARACTER_BUDGET:
        found.append(
            Problem(
                "warning",
                "training.epochs",
                f"{images} images are seen in all; characters with AdamW rarely need more than {_CHARACTER_BUDGET}.",
                "Lower the epochs or the repeats, or keep them for situations, objects and many concepts.",
            )
        )
    return tuple(found)


def settings(config: RunConfig) -> tuple[Problem, ...]:
    """Return an error for every setting that is out of its range or from which no bucket can be built."""
    return tuple(range_problems(config)) or bucket_problems(config.data)


def disk(folder: Path, needed: int) -> tuple[Problem, ...]:
    """Return an error when the disk of `folder` has less room than `needed` bytes."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free >= needed:
        return ()
    text = f"{free / 1e9:.2f} GB are free and about {needed / 1e9:.2f} GB are needed."
    return (Problem("error", str(folder), text, "Free some space, or save less often."),)


def _name(_info: ModelInfo, config: RunConfig, _scan: Scan) -> Iterator[Problem]:
    try:
        check_name(config.name, "name")
    except ConfigError as error:
        yield Problem("error", "name", str(error).removeprefix("name: "))
    if any(character in config.name for character in ":<>,"):
        yield Problem("error", "name", f"{config.name!r} cannot be written in a prompt.", "Leave out : < > and commas.")


def _targets(info: ModelInfo, config: RunConfig, _scan: Scan) -> Iterator[Problem]:
    if not config.adapter.unet and not config.adapter.text_encoder:
        yield Problem("error", "adapter.unet", "Neither the UNet nor the text encoder is trained.", "Switch one on.")
    if config.adapter.text_encoder and not info.text_encoders:
        yield Problem(
            "error",
            "adapter.text_encoder",
            f"the text encoder of {info.title} cannot be trained in {info.host}.",
            "Switch it off and train the UNet alone.",
        )


def _captions(_info: ModelInfo, config: RunConfig, scan: Scan) -> Iterator[Problem]:
    captioned = [item for item in scan.items if item.caption_file is not None]
    for trigger in config.triggers:
        having = sum(trigger.lower() in item.caption.lower() for item in captioned)
        if captioned and having == 0 and trigger.lower() not in config.data.caption.prefix.lower():
            yield Problem(
                "warning",
                "triggers",
                f"no caption contains {trigger!r}, so it will call nothing.",
                f"Put it first in the captions, or set data.caption.prefix to {trigger!r}.",
            )


def _rates(_info: ModelInfo, config: RunConfig, _scan: Scan) -> Iterator[Problem]:
    parts = (
        ("optimizer.unet_learning_rate", config.adapter.unet, config.optimizer.unet_learning_rate),
        ("optimizer.text_learning_rate", config.adapter.text_encoder, config.optimizer.text_learning_rate),
    )
    for where, trained, rate in parts:
        if trained and rate == 0:
            yield Problem("error", where, "is 0, so this part learns nothing.", "Raise it, or do not train the part.")
        if trained and rate > 5e-3:
            yield Problem("warning", where, f"{rate:g} is very high for AdamW.", "1e-4 is usual.")
    if config.adapter.alpha > config.adapter.rank:
        text = "is larger than the rank, which acts like a higher learning rate."
        yield Problem("warning", "adapter.alpha", text, "Use the rank or half of it.")


def _sizes(info: ModelInfo, config: RunConfig, scan: Scan) -> Iterator[Problem]:
    data = config.data
    if info.family == "sdxl" and data.resolution < 1024:
        yield Problem("warning", "data.resolution", "SDXL degrades below 1024.", "Use 1024 unless memory forbids.")
    if info.family == "sd1" and data.resolution > 2 * _NATIVE["sd1"]:
        yield Problem("warning", "data.resolution", f"{data.resolution} is far above SD1's own.", "Use 512 to 768.")
    if config.training.batch_size > sum(item.repeats for item in scan.items) > 0:
        yield Problem("note", "training.batch_size", "is larger than the dataset; the whole epoch is one batch.")


def _arithmetic(info: ModelInfo, config: RunConfig, _scan: Scan) -> Iterator[Problem]:
    if config.training.precision == "fp16" and info.device == "cpu":
        yield Problem("error", "training.precision", "fp16 cannot be trained on a CPU.", "Use fp32 or bf16.")


def _model(info: ModelInfo, config: RunConfig, _scan: Scan) -> Iterator[Problem]:
    if config.base_model and config.base_model not in (info.sha256, info.sha256[:10], info.name, info.title):
        yield Problem(
            "warning",
            "base_model",
            f"the run was planned on {config.base_model} and {info.title} is loaded.",
            "Load the planned checkpoint, or plan anew.",
        )
    if info.clip_skip != config.training.clip_skip and info.family == "sd1":
        yield Problem(
            "note",
            "training.clip_skip",
            f"the run uses clip skip {config.training.clip_skip}, {info.host} is set to {info.clip_skip}; "
            "generate with the one you train with.",
        )


def unmatched(layers: Sequence[Layer], config: RunConfig) -> tuple[Problem, ...]:
    """Return an error when the adapter's targets match no layer of the model."""
    try:
        choose(layers, config.adapter)
    except ConfigError as error:
        return (Problem("error", "adapter", str(error).removeprefix("adapter: ")),)
    return ()
