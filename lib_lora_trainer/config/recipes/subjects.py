"""Recipes for everything that is not one character: many concepts, styles, backgrounds, objects, situations."""

from __future__ import annotations

from lib_lora_trainer.config.recipes.recipe import (
    ADAMW,
    ANIME,
    CAKE,
    DADAPT_LION,
    EXPERIMENTS,
    NOTEBOOK,
    RESTARTS,
    TAGS,
    recipe,
)

ALL = (
    recipe(
        "multi-concept-g1",
        EXPERIMENTS,
        "Several characters and styles in one file, on SD1: LoHa 8/4 with alpha 1, constant 2e-4, half of it for the "
        "text encoder, 8-bit AdamW, clip skip 1. Balance the folders, regularization images too, by their repeats.",
        TAGS,
        {
            "adapter.method": "loha",
            "adapter.rank": 8,
            "adapter.alpha": 1.0,
            "adapter.conv_rank": 4,
            "adapter.conv_alpha": 1.0,
            "optimizer.name": "adamw8bit",
            "optimizer.unet_learning_rate": 2e-4,
            "optimizer.text_learning_rate": 1e-4,
            "optimizer.schedule": "constant",
            "training.clip_skip": 1,
            "data.resolution": 512,
        },
    ),
    recipe(
        "style-g3",
        CAKE,
        "A drawing style on SD1: LoCon 32/16, AdamW 1e-4, half of it for the text encoder, 8 epochs of 600 steps (the "
        "guide's 300 doubled for AdamW). Choose repeats for that; it ends at 4800.",
        ADAMW,
        RESTARTS,
        TAGS,
        ANIME,
        {
            "adapter.method": "locon",
            "adapter.rank": 32,
            "adapter.alpha": 16.0,
            "adapter.conv_rank": 16,
            "adapter.conv_alpha": 8.0,
            "training.epochs": 8,
            "training.max_steps": 4800,
        },
    ),
    recipe(
        "style-unet-only-g4",
        NOTEBOOK,
        "A way of colouring on SD1: rank 16, the UNet alone, so that the meaning of words stays untouched. Remove few "
        "tags from the captions, or none.",
        ADAMW,
        TAGS,
        ANIME,
        {
            "adapter.method": "lora",
            "adapter.rank": 16,
            "adapter.alpha": 8.0,
            "adapter.text_encoder": False,
            "optimizer.schedule": "cosine",
        },
    ),
    recipe(
        "background-g4",
        NOTEBOOK,
        "A place or a background on SD1: LoRA 32/8, less than 5000 steps. Use 50 pictures or more, and leave the tags "
        "of persons in the captions.",
        ADAMW,
        RESTARTS,
        TAGS,
        ANIME,
        {"adapter.method": "lora", "adapter.rank": 32, "adapter.alpha": 8.0, "training.max_steps": 4900},
    ),
    recipe(
        "object-g4",
        NOTEBOOK,
        "A thing that is held or worn, on SD1: rank 64 with convolutions and alpha 1, D-Adaptation's Lion, 9000 steps; "
        "choose repeats for them, and raise the step limit if it holds the thing wrongly.",
        DADAPT_LION,
        RESTARTS,
        TAGS,
        ANIME,
        {
            "adapter.method": "locon",
            "adapter.rank": 64,
            "adapter.alpha": 1.0,
            "adapter.conv_rank": 64,
            "adapter.conv_alpha": 1.0,
            "training.max_steps": 9000,
        },
    ),
    recipe(
        "situation-g4",
        NOTEBOOK,
        "A pose, a situation or a composition on SD1: LoRA 16/4 for 8100 to 12 000 steps; it ends at 10 000. Choose "
        "repeats for them, and remove the names of characters from the captions.",
        ADAMW,
        RESTARTS,
        TAGS,
        ANIME,
        {"adapter.method": "lora", "adapter.rank": 16, "adapter.alpha": 4.0, "training.max_steps": 10_000},
    ),
)
