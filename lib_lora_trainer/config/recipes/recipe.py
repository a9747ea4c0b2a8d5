"""What a recipe is, and which settings every recipe decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from lib_lora_trainer.config.paths import flat, put
from lib_lora_trainer.config.run import RunConfig

# What one recipe sets, every other one sets as well, if only back to the default: else a recipe would mean something
# else after another one. Folders, captions' own marks, files, samples and how a step is computed stay the user's.
DECIDED = (
    "adapter.method",
    "adapter.rank",
    "adapter.alpha",
    "adapter.conv_rank",
    "adapter.conv_alpha",
    "adapter.unet",
    "adapter.text_encoder",
    "adapter.layers",
    "adapter.norms",
    "adapter.blocks",
    "adapter.rules",
    "adapter.dropout",
    "adapter.rank_dropout",
    "adapter.module_dropout",
    "adapter.scale_weight_norms",
    "adapter.weight_decompose",
    "adapter.rank_stabilized",
    "adapter.tucker",
    "adapter.scalar",
    "adapter.lokr_factor",
    "adapter.lokr_decompose_both",
    "adapter.lokr_full_matrix",
    "adapter.dylora_unit",
    "adapter.oft_constraint",
    "adapter.oft_rescaled",
    "adapter.start_from",
    "optimizer.name",
    "optimizer.custom_class",
    "optimizer.arguments",
    "optimizer.unet_learning_rate",
    "optimizer.text_learning_rate",
    "optimizer.lora_plus_ratio",
    "optimizer.weight_decay",
    "optimizer.beta1",
    "optimizer.beta2",
    "optimizer.epsilon",
    "optimizer.d0",
    "optimizer.d_coefficient",
    "optimizer.growth_rate",
    "optimizer.schedule",
    "optimizer.warmup",
    "optimizer.cycles",
    "optimizer.cycle_decay",
    "optimizer.cycle_warmup",
    "optimizer.minimum",
    "optimizer.power",
    "loss.kind",
    "loss.min_snr_gamma",
    "loss.debiased",
    "loss.v_like",
    "noise.input_perturbation",
    "noise.input_perturbation_random",
    "training.epochs",
    "training.max_steps",
    "training.batch_size",
    "training.accumulation",
    "training.clip_skip",
    "data.resolution",
    "data.bucket",
    "data.bucket_maximum",
    "data.caption.shuffle",
    "data.caption.keep_tokens",
    "data.caption.dropout",
    "data.caption.dropout_every_epochs",
    "data.caption.tag_dropout",
    "data.caption.warmup",
    "data.cache_text",
)
_DEFAULTS = MappingProxyType({path: value for path, value in flat(RunConfig()) if path in DECIDED})

CAKE = "“Making a LoRA is like baking a cake”"
NOTEBOOK = "“いろいろLoRA作成記録”"
EXPERIMENTS = "“LyCORIS experiments”"
ROUKIN = "Roukin8's character notes"

# Values that several recipes of a guide share.
ADAMW = MappingProxyType({
    "optimizer.name": "adamw",
    "optimizer.unet_learning_rate": 1e-4,
    "optimizer.text_learning_rate": 5e-5,  # half of the UNet's, as LyCORIS experiments finds
})  # fmt: skip
DADAPT_LION = MappingProxyType({
    "optimizer.name": "dadapt-lion",
    "optimizer.unet_learning_rate": 1.0,
    "optimizer.text_learning_rate": 1.0,  # D-Adaptation has one rate for both
    "optimizer.weight_decay": 0.0,
    "optimizer.beta1": 0.9,
    "optimizer.beta2": 0.999,
    "optimizer.d0": 1e-6,
})  # fmt: skip
RESTARTS = MappingProxyType({"optimizer.schedule": "cosine-restarts", "optimizer.cycles": 1})
TAGS = MappingProxyType({"data.caption.shuffle": True, "data.caption.keep_tokens": 1})
ANIME = MappingProxyType({"training.clip_skip": 2})


@dataclass(frozen=True)
class Recipe:
    """A named set of values.

    guide: whose numbers they are. text: what it is for, in a few sentences. settings: dotted setting → value; what is
    not named stays as the user has it.
    """

    name: str
    guide: str
    text: str
    settings: Mapping[str, Any]


def recipe(name: str, guide: str, text: str, *values: Mapping[str, Any]) -> Recipe:
    """Return a recipe that sets `values`, later ones first, and whatever else a recipe decides to its default.

    Raises KeyError for a setting that `DECIDED` lacks.
    """
    settings = dict(_DEFAULTS)
    for each in values:
        unknown = set(each) - set(settings)
        if unknown:
            raise KeyError(f"{name}: {', '.join(sorted(unknown))} is not in DECIDED; add it there.")
        settings |= each
    return Recipe(name, guide, text, MappingProxyType(settings))


def apply(chosen: Recipe, config: RunConfig) -> RunConfig:
    """Return the configuration with the recipe's values put in. Raises TypeError for a setting that does not exist."""
    for path, value in chosen.settings.items():
        config = put(config, path, value)
    return config
