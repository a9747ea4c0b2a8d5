"""Mistakes and risks that can be seen before the start, each with what to do about it.

Rules about one thing stand beside it: the dataset's in `dataset`, the optimizer's in `train.optimizer_rules`, blocks
and layers' in `adapters.rules`, the method's in `adapters.methods`, loss and noise's in `diffusion.combinations`. Here
are those about several of them, the model and the machine.
"""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.base.setting import range_problems
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.dataset.buckets import bucket_problems
from lib_lora_trainer.dataset.items import Scan
from lib_lora_trainer.hosts.api import ModelInfo
from lib_lora_trainer.plan import rules_captions, rules_pictures, rules_training
from lib_lora_trainer.plan.case import Case

Rule = Callable[[Case], Iterator[Problem]]

RULES: tuple[Rule, ...] = (
    rules_training.name,
    rules_training.parts,
    rules_training.alpha,
    rules_training.budget,
    rules_training.length,
    rules_training.arithmetic,
    rules_training.model,
    rules_training.files,
    rules_captions.triggers,
    rules_captions.marks,
    rules_captions.text_cache,
    rules_captions.lengths,
    rules_captions.dropouts,
    rules_pictures.sizes,
    rules_pictures.batches,
    rules_pictures.mirroring,
    rules_pictures.latent_cache,
    rules_pictures.masks,
)


def check(
    info: ModelInfo,
    config: RunConfig,
    scan: Scan,
    images: int,
    steps: int = 0,
    parts: Collection[str] | None = None,
) -> tuple[Problem, ...]:
    """Return every problem of settings, model and dataset together.

    images, steps: length of the run; steps 0: not known. parts: of the model that get adapters (`unet`, `te`, …); None
    takes what the settings ask for, which is not so when the run goes on from a file.
    """
    unusable = settings(config)
    found = [*unusable, *(problem for problem in scan.problems if problem not in unusable)]
    if unusable:
        return tuple(found)  # the rules reckon with values in their ranges
    case = Case(info, config, scan, images, steps, frozenset(_asked_for(info, config) if parts is None else parts))
    for rule in RULES:
        found += rule(case)
    return tuple(found)


def _asked_for(info: ModelInfo, config: RunConfig) -> set[str]:
    adapter = config.adapter
    return {*(["unet"] if adapter.unet else []), *(info.text_encoders if adapter.text_encoder else ())}


def settings(config: RunConfig) -> tuple[Problem, ...]:
    """Return an error for every setting that is out of its range or from which no bucket can be built."""
    return tuple(range_problems(config)) or bucket_problems(config.data)


def sampler(config: RunConfig, known: Sequence[str]) -> tuple[Problem, ...]:
    """Return an error when samples are to be made with a sampler that the host does not have. known: its names."""
    wanted = config.samples.sampler
    if not config.samples.prompts or wanted in known:
        return ()
    near = difflib.get_close_matches(wanted, known, n=1)
    fix = f"Did you mean {near[0]}?" if near else f"Choose one of: {', '.join(known)}."
    return (Problem("error", "samples.sampler", f"{wanted!r} is not a sampler here.", fix),)


def disk(folder: Path, needed: int) -> tuple[Problem, ...]:
    """Return an error when the disk of `folder` has less room than `needed` bytes."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free >= needed:
        return ()
    text = f"{free / 1e9:.2f} GB are free and about {needed / 1e9:.2f} GB are needed."
    return (Problem("error", str(folder), text, "Free some space, or save less often."),)
