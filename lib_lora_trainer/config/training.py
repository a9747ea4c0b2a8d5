"""Length of a run and how each step is computed."""

from __future__ import annotations

from dataclasses import dataclass

from lib_lora_trainer.base.setting import setting


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
    batch_size: int = setting(1, "Pictures per step.", minimum=1, maximum=256, essential=True, label="Batch size")
    accumulation: int = setting(1, "Batches gathered into one step.", minimum=1, maximum=256, label="Accumulation")
    precision: str = setting(
        "auto", "Number format of the frozen model's arithmetic; the adapter itself is always fp32. "
        "auto: bf16 where the GPU has it, else fp16; fp32 on a CPU.",
        choices=("auto", "fp32", "fp16", "bf16"), label="Precision",
    )  # fmt: skip
    gradient_checkpointing: bool = setting(
        False, "Recompute instead of remembering: less memory, 30-100 % more time.", label="Gradient checkpointing"
    )
    fp8_base: bool = setting(
        False, "Keep the frozen model's weights in 8 bits while training: half the memory of fp16, a little accuracy.",
        label="8-bit base model",
    )  # fmt: skip
    channels_last: bool = setting(
        False, "Lay convolutions out for tensor cores; faster on recent GPUs in half precision.", label="Channels last"
    )
    compile: bool = setting(
        False, "Compile the UNet's blocks (torch.compile): slow first steps, faster later ones.", label="Compile"
    )
    offload: bool = setting(
        True, "Move VAE and text encoders off the GPU while they are not needed.", label="Offload what is idle"
    )
    text_encoder_until: float = setting(
        1.0, "Train the text encoder for this share of the run, then the UNet alone.",
        minimum=0.0, maximum=1.0, label="Train text encoder until",
    )  # fmt: skip
    ema: float = setting(
        0.0, "Save a running average of the weights with this decay, e.g. 0.99; 0 = off.",
        minimum=0.0, maximum=0.99999, label="EMA decay",
    )  # fmt: skip
    seed: int = setting(1, "Order, noise and tag shuffling follow from it.", minimum=0, maximum=2**32 - 1, label="Seed")
    clip_skip: int = setting(
        1, "Which layer of the SD1 text encoder is read, counted from the end; 2 for anime models.",
        minimum=1, maximum=12, label="Clip skip",
    )  # fmt: skip
    token_limit: int = setting(
        225, "Longest caption in tokens; 75 fit into one chunk.",
        minimum=75, maximum=225, unit="tokens", label="Token limit",
    )  # fmt: skip
