"""How it is trained: length, optimizer, learning rates, precision."""

from __future__ import annotations

from dataclasses import dataclass

from lib_lora_trainer.base.setting import setting


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and its learning-rate schedule."""

    name: str = setting("adamw", "The optimizer.", choices=("adamw",), label="Optimizer")
    unet_learning_rate: float = setting(
        1e-4, "Learning rate of the UNet's part.", minimum=0.0, maximum=10.0, essential=True, label="UNet learning rate"
    )
    text_learning_rate: float = setting(
        5e-5, "Learning rate of the text encoder's part; half of the UNet's is usual.",
        minimum=0.0, maximum=10.0, essential=True, label="Text encoder learning rate",
    )  # fmt: skip
    weight_decay: float = setting(0.01, "AdamW weight decay.", minimum=0.0, maximum=1.0, label="Weight decay")
    beta1: float = setting(0.9, "AdamW first moment decay.", minimum=0.0, maximum=0.9999, label="Beta 1")
    beta2: float = setting(0.999, "AdamW second moment decay.", minimum=0.0, maximum=0.99999, label="Beta 2")
    epsilon: float = setting(1e-8, "AdamW epsilon.", minimum=1e-16, maximum=0.1, label="Epsilon")
    gradient_clip: float = setting(
        1.0, "Largest norm of all gradients together; 0 switches clipping off.",
        minimum=0.0, maximum=1000.0, label="Gradient clip",
    )  # fmt: skip
    schedule: str = setting(
        "cosine", "How the learning rate runs: constant, or falling along a cosine.",
        choices=("constant", "cosine"), essential=True, label="Schedule",
    )  # fmt: skip
    warmup: float = setting(
        0.0, "Share of the run in which the learning rate rises from 0.", minimum=0.0, maximum=0.9, label="Warm-up"
    )


@dataclass(frozen=True)
class TrainingConfig:
    """Length of the run and how each step is computed."""

    epochs: int = setting(
        10, "How often the whole dataset, repeats included, is seen.",
        minimum=1, maximum=100_000, essential=True, label="Epochs",
    )  # fmt: skip
    max_steps: int = setting(
        0, "Ends the run after this many steps, whatever the epochs; 0 = no limit.",
        minimum=0, maximum=10_000_000, label="Step limit",
    )  # fmt: skip
    batch_size: int = setting(
        1, "Pictures per step.", minimum=1, maximum=256, essential=True, label="Batch size"
    )
    accumulation: int = setting(1, "Batches gathered into one step.", minimum=1, maximum=256, label="Accumulation")
    precision: str = setting(
        "auto", "Number format of the frozen model's arithmetic; the adapter itself is always fp32. "
        "auto: bf16 where the GPU has it, else fp16; fp32 on a CPU.",
        choices=("auto", "fp32", "fp16", "bf16"), label="Precision",
    )  # fmt: skip
    gradient_checkpointing: bool = setting(
        False, "Recompute instead of remembering: less memory, 30-100 % more time.", label="Gradient checkpointing"
    )
    seed: int = setting(1, "Order, noise and tag shuffling follow from it.", minimum=0, maximum=2**32 - 1, label="Seed")
    clip_skip: int = setting(
        1, "Which layer of the SD1 text encoder is read, counted from the end; 2 for anime models.",
        minimum=1, maximum=12, label="Clip skip",
    )  # fmt: skip
    token_limit: int = setting(
        225, "Longest caption in tokens; 75 fit into one chunk.", minimum=75, maximum=225, unit="tokens", label="Token limit")


@dataclass(frozen=True)
class SaveConfig:
    """What is written and when."""

    every_epochs: int = setting(
        1, "Save the adapter every N epochs; 0 = only at the end.", minimum=0, maximum=100_000, label="Every N epochs"
    )
    every_steps: int = setting(
        0, "Save the adapter every N steps as well; 0 = never.", minimum=0, maximum=10_000_000, label="Every N steps"
    )
    state_every_steps: int = setting(
        200, "Save what is needed to resume after a crash every N steps; 0 = only on stop and pause.",
        minimum=0, maximum=10_000_000, label="Resume point every N steps",
    )  # fmt: skip
    precision: str = setting("fp16", "Number format in the file.", choices=("fp16", "bf16", "fp32"))
    preferred_weight: float = setting(
        1.0, "Written beside the file: the weight that the Lora card inserts.", minimum=0.0, maximum=2.0, label="Preferred weight")


@dataclass(frozen=True)
class SampleConfig:
    """Sample images while training, from fixed prompts and seeds."""

    prompts: tuple[str, ...] = setting((), "One sample image per prompt; empty = no samples.", label="Sample prompts")
    negative: str = setting("", "Negative prompt.", label="Negative prompt")
    every_epochs: int = setting(
        1, "Make samples every N epochs; 0 = never.", minimum=0, maximum=100_000, label="Every N epochs"
    )
    every_steps: int = setting(
        0, "Make samples every N steps as well; 0 = never.", minimum=0, maximum=10_000_000, label="Every N steps"
    )
    at_start: bool = setting(True, "Make samples before the first step, for comparison.", label="Before the start")
    seed: int = setting(1, "Seed of the first sample; the others count up.", minimum=0, maximum=2**32 - 1)
    steps: int = setting(20, "Sampling steps.", minimum=1, maximum=150, label="Sampling steps")
    guidance: float = setting(7.0, "CFG scale.", minimum=1.0, maximum=30.0, label="CFG scale")
    width: int = setting(0, "Width; 0 = the training resolution.", minimum=0, maximum=4096, unit="px", label="Width")
    height: int = setting(0, "Height; 0 = the training resolution.", minimum=0, maximum=4096, unit="px", label="Height")
    sampler: str = setting("Euler a", "The host's sampler by name.", label="Sampler")
