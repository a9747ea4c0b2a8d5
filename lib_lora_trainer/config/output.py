"""What a run writes: adapter files, resume points, sample images."""

from __future__ import annotations

from dataclasses import dataclass

from lib_lora_trainer.base.setting import setting


@dataclass(frozen=True)
class SaveConfig:
    """What is written and when."""

    every_epochs: int = setting(
        1, "Save the adapter every N epochs; 0 = only at the end.", minimum=0, maximum=100_000, label="Every N epochs"
    )
    every_steps: int = setting(
        0, "Save the adapter every N steps as well; 0 = never.", minimum=0, maximum=10_000_000, label="Every N steps"
    )
    keep_last: int = setting(
        0, "Keep only the newest N of these; 0 = all. The finished adapter always stays.",
        minimum=0, maximum=100_000, label="Keep the last N",
    )  # fmt: skip
    state_every_steps: int = setting(
        200, "Save what is needed to resume after a crash every N steps; 0 = only on stop and pause.",
        minimum=0, maximum=10_000_000, label="Resume point every N steps",
    )  # fmt: skip
    precision: str = setting("fp16", "Number format in the file.", choices=("fp16", "bf16", "fp32"))
    preferred_weight: float = setting(
        1.0, "Written beside the file: the weight that the Lora card inserts.",
        minimum=0.0, maximum=2.0, label="Preferred weight",
    )  # fmt: skip
    tensorboard: bool = setting(False, "Write loss and learning rates for TensorBoard.", label="TensorBoard log")


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
