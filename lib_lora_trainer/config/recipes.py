"""Recipes: sets of values that a published guide recommends, applied onto a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from lib_lora_trainer.config.paths import put
from lib_lora_trainer.config.run import RunConfig


@dataclass(frozen=True)
class Recipe:
    """A named set of values.

    guide: whose numbers they are. text: what it is for, one or two sentences. settings: dotted setting → value;
    what is not named stays as the user has it.
    """

    name: str
    guide: str
    text: str
    settings: Mapping[str, Any]


def apply(recipe: Recipe, config: RunConfig) -> RunConfig:
    """Return the configuration with the recipe's values put in. Raises TypeError for a setting that does not exist."""
    for path, value in recipe.settings.items():
        config = put(config, path, value)
    return config


_ALL = (
    Recipe(
        "character-g3-adamw",
        "“Making a LoRA is like baking a cake”",
        "A character with AdamW: LoRA 32/16, learning rate 1e-4 falling along a cosine, 8 epochs, at most 6000 steps.",
        {
            "adapter.method": "lora",
            "adapter.rank": 32,
            "adapter.alpha": 16.0,
            "adapter.unet": True,
            "adapter.text_encoder": True,
            "optimizer.unet_learning_rate": 1e-4,
            "optimizer.text_learning_rate": 5e-5,
            "optimizer.schedule": "cosine",
            "training.epochs": 8,
            "training.max_steps": 6000,
            "training.batch_size": 1,
            "data.caption.shuffle": True,
            "data.caption.keep_tokens": 1,
        },
    ),
    Recipe(
        "character-sd1",
        "“いろいろLoRA作成記録”",
        "A character on an SD1 anime model: small LoRA 16/4, learning rate 1e-4, clip skip 2, tags shuffled behind the "
        "trigger; 4000 to 6000 steps are usual.",
        {
            "adapter.method": "lora",
            "adapter.rank": 16,
            "adapter.alpha": 4.0,
            "adapter.unet": True,
            "adapter.text_encoder": True,
            "optimizer.unet_learning_rate": 1e-4,
            "optimizer.text_learning_rate": 5e-5,
            "optimizer.schedule": "cosine",
            "training.max_steps": 6000,
            "training.batch_size": 1,
            "training.clip_skip": 2,
            "data.caption.shuffle": True,
            "data.caption.keep_tokens": 1,
        },
    ),
    Recipe(
        "locon-g2",
        "Roukin8's character notes",
        "LoCon with convolutions: 16/8, alpha 1, constant learning rate 2e-4, batches of 8, at most 20 000 steps.",
        {
            "adapter.method": "locon",
            "adapter.rank": 16,
            "adapter.alpha": 1.0,
            "adapter.conv_rank": 8,
            "adapter.conv_alpha": 1.0,
            "adapter.unet": True,
            "adapter.text_encoder": True,
            "optimizer.unet_learning_rate": 2e-4,
            "optimizer.text_learning_rate": 1e-4,
            "optimizer.schedule": "constant",
            "training.max_steps": 20_000,
            "training.batch_size": 8,
        },
    ),
    Recipe(
        "style-unet-only-g4",
        "“いろいろLoRA作成記録”",
        "A drawing style: rank 16, UNet only, so that the meaning of words stays untouched.",
        {
            "adapter.method": "lora",
            "adapter.rank": 16,
            "adapter.alpha": 8.0,
            "adapter.unet": True,
            "adapter.text_encoder": False,
            "optimizer.unet_learning_rate": 1e-4,
            "optimizer.schedule": "cosine",
            "training.batch_size": 1,
            "data.caption.shuffle": True,
        },
    ),
    Recipe(
        "toy-demo",
        "this extension",
        "For the bundled toy checkpoint and its 24 pictures: 128 px, done in minutes without a GPU.",
        {
            "adapter.method": "lora",
            "adapter.rank": 16,
            "adapter.alpha": 16.0,
            "adapter.unet": True,
            "adapter.text_encoder": True,
            "data.resolution": 128,
            "data.bucket": False,
            "data.caption.shuffle": True,
            "data.caption.keep_tokens": 1,
            "optimizer.unet_learning_rate": 1e-3,
            "optimizer.text_learning_rate": 1e-3,
            "optimizer.schedule": "cosine",
            "training.epochs": 9,
            "training.max_steps": 0,
            "training.batch_size": 4,
            "training.clip_skip": 1,
        },
    ),
)

RECIPES: Mapping[str, Recipe] = MappingProxyType({recipe.name: recipe for recipe in _ALL})
"""Every recipe by its name, in the order in which they are offered."""
