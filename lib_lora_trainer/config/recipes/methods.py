"""Recipes that show what a method is good for."""

from __future__ import annotations

from lib_lora_trainer.config.recipes.recipe import ADAMW, ANIME, CAKE, RESTARTS, TAGS, recipe

_CHARACTER = {"training.epochs": 8, "training.max_steps": 6000}

ALL = (
    recipe(
        "dora-g3",
        CAKE,
        "DoRA on SD1: LoCon 32/16 that learns direction and size of the weights apart, which takes more time per step. "
        "AdamW 1e-4, 8 epochs, at most 6000 steps.",
        ADAMW,
        RESTARTS,
        TAGS,
        ANIME,
        _CHARACTER,
        {
            "adapter.method": "locon",
            "adapter.rank": 32,
            "adapter.alpha": 16.0,
            "adapter.conv_rank": 16,
            "adapter.conv_alpha": 8.0,
            "adapter.weight_decompose": True,
        },
    ),
    recipe(
        "lokr-g3",
        CAKE,
        "LoKr on SD1, a small file for styles and many concepts: 32/16 at its own low learning rate, 8e-5 for the UNet "
        "and 5e-5 for the text encoder, 8 epochs, at most 6000 steps.",
        RESTARTS,
        TAGS,
        ANIME,
        _CHARACTER,
        {
            "adapter.method": "lokr",
            "adapter.rank": 32,
            "adapter.alpha": 16.0,
            "adapter.conv_rank": 16,
            "adapter.conv_alpha": 8.0,
            "optimizer.name": "adamw",
            "optimizer.unet_learning_rate": 8e-5,
            "optimizer.text_learning_rate": 5e-5,
        },
    ),
    recipe(
        "dylora-g3",
        CAKE,
        "DyLoRA on SD1, for when the right rank is not known: 64/32 in units of 4, from which one file per rank is "
        "made, AdamW 1e-4, 8 epochs, at most 6000 steps.",
        ADAMW,
        RESTARTS,
        TAGS,
        ANIME,
        _CHARACTER,
        {
            "adapter.method": "dylora",
            "adapter.rank": 64,
            "adapter.alpha": 32.0,
            "adapter.conv_rank": 32,
            "adapter.conv_alpha": 16.0,
            "adapter.dylora_unit": 4,
        },
    ),
    recipe(
        "ia3-prototype-g3",
        CAKE,
        "IA3 on SD1, a prototype to try a dataset and its captions with: a tiny file, learned at a high rate, 1e-2 for "
        "the UNet and 5e-3 for the text encoder, 8 epochs, at most 6000 steps.",
        RESTARTS,
        TAGS,
        ANIME,
        _CHARACTER,
        {
            "adapter.method": "ia3",
            "optimizer.name": "adamw",
            "optimizer.unet_learning_rate": 1e-2,
            "optimizer.text_learning_rate": 5e-3,
        },
    ),
    recipe(
        "oft-g3",
        CAKE,
        "OFT on SD1: rotations of the weights in blocks of 2, AdamW 1e-4, 8 epochs, at most 6000 steps.",
        ADAMW,
        RESTARTS,
        TAGS,
        ANIME,
        _CHARACTER,
        {"adapter.method": "oft", "adapter.rank": 2, "adapter.conv_rank": 2},
    ),
)
