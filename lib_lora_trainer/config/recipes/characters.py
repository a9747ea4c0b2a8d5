"""Recipes for characters."""

from __future__ import annotations

from lib_lora_trainer.config.recipes.recipe import (
    ADAMW,
    ANIME,
    CAKE,
    DADAPT_LION,
    NOTEBOOK,
    RESTARTS,
    ROUKIN,
    TAGS,
    recipe,
)

ALL = (
    recipe(
        "character-g3-adamw",
        CAKE,
        "A character on SD1 with AdamW: LoRA 32/16, learning rate 1e-4 falling along a cosine, 8 epochs, at most 6000 "
        "steps. For three cycles instead of one, set the cycles to 3.",
        ADAMW,
        RESTARTS,
        TAGS,
        ANIME,
        {
            "adapter.method": "lora",
            "adapter.rank": 32,
            "adapter.alpha": 16.0,
            "training.epochs": 8,
            "training.max_steps": 6000,
        },
    ),
    recipe(
        "character-g3-prodigy",
        CAKE,
        "A character on SD1 with Prodigy, which finds the learning rate itself: LoRA 32/16, annealed cosine, min-SNR 5 "
        "and ip-noise 0.1, 8 epochs. At most 1800 steps: Prodigy's 3000, of which those two leave 3/5.",
        TAGS,
        ANIME,
        {
            "adapter.method": "lora",
            "adapter.rank": 32,
            "adapter.alpha": 16.0,
            "optimizer.name": "prodigy",
            "optimizer.unet_learning_rate": 1.0,
            "optimizer.text_learning_rate": 1.0,
            "optimizer.weight_decay": 0.01,
            "optimizer.d_coefficient": 2.0,
            "optimizer.schedule": "annealed-cosine",
            "loss.min_snr_gamma": 5.0,
            "noise.input_perturbation": 0.1,
            "training.epochs": 8,
            "training.max_steps": 1800,
        },
    ),
    recipe(
        "character-sd1-g4",
        NOTEBOOK,
        "A character on an SD1 anime model, in the blocks that matter for it (IN04-07, OUT03-06): LoRA 16/4 with "
        "D-Adaptation's Lion, clip skip 2. Choose repeats for 4000 to 6000 steps; it ends at 6000.",
        DADAPT_LION,
        RESTARTS,
        TAGS,
        ANIME,
        {
            "adapter.method": "lora",
            "adapter.rank": 16,
            "adapter.alpha": 4.0,
            "adapter.blocks": "IN04-07,OUT03-06",
            "training.max_steps": 6000,
        },
    ),
    recipe(
        "character-sd1",
        NOTEBOOK,
        "A character on an SD1 anime model with AdamW, in all blocks: small LoRA 16/4, learning rate 1e-4, clip skip "
        "2, tags shuffled behind the trigger; 4000 to 6000 steps are usual.",
        ADAMW,
        TAGS,
        ANIME,
        {
            "adapter.method": "lora",
            "adapter.rank": 16,
            "adapter.alpha": 4.0,
            "optimizer.schedule": "cosine",
            "training.max_steps": 6000,
        },
    ),
    recipe(
        "character-sdxl-g4",
        NOTEBOOK,
        "A character on SDXL: LoRA 8/2 with D-Adaptation's Lion, the UNet alone. Captions are encoded once and kept, "
        "so they are neither shuffled nor dropped. Choose repeats for 4000 to 6000 steps; it ends at 6000.",
        DADAPT_LION,
        RESTARTS,
        {
            "adapter.method": "lora",
            "adapter.rank": 8,
            "adapter.alpha": 2.0,
            "adapter.text_encoder": False,
            "training.max_steps": 6000,
            "data.resolution": 1024,
            "data.bucket_maximum": 2048,
            "data.caption.shuffle": False,
            "data.caption.keep_tokens": 1,
            "data.cache_text": "memory",
        },
    ),
    recipe(
        "locon-g2",
        ROUKIN,
        "A character on SD1 as LoCon, convolutions included: 16/8, alpha 1, constant learning rate 2e-4, batches of "
        "8, at most 20 000 steps.",
        TAGS,
        {
            "adapter.method": "locon",
            "adapter.rank": 16,
            "adapter.alpha": 1.0,
            "adapter.conv_rank": 8,
            "adapter.conv_alpha": 1.0,
            "optimizer.name": "adamw",
            "optimizer.unet_learning_rate": 2e-4,
            "optimizer.text_learning_rate": 1e-4,
            "optimizer.schedule": "constant",
            "training.max_steps": 20_000,
            "training.batch_size": 8,
        },
    ),
)

TOY = recipe(
    "toy-demo",
    "this extension",
    "For the bundled toy checkpoint and its 24 pictures: 128 px, done in minutes without a GPU.",
    TAGS,
    {
        "adapter.method": "lora",
        "adapter.rank": 16,
        "adapter.alpha": 16.0,
        "data.resolution": 128,
        "data.bucket": False,
        "optimizer.unet_learning_rate": 1e-3,
        "optimizer.text_learning_rate": 1e-3,
        "optimizer.schedule": "cosine",
        "training.epochs": 9,
        "training.batch_size": 4,
    },
)
