"""The optimizer, its learning rates and their schedule."""

from __future__ import annotations

from dataclasses import dataclass

from lib_lora_trainer.base.setting import setting

OPTIMIZERS = (
    "adamw",
    "adamw8bit",
    "lion",
    "lion8bit",
    "adafactor",
    "prodigy",
    "dadapt-adam",
    "dadapt-lion",
    "schedulefree-adamw",
    "schedulefree-prodigy",
    "custom",
)
SCHEDULES = ("constant", "linear", "cosine", "cosine-restarts", "annealed-cosine", "polynomial", "rex")


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and its learning-rate schedule. A field that is None takes what suits the optimizer."""

    name: str = setting(
        "adamw",
        "adamw is the usual one; 8-bit ones need less memory; prodigy and dadapt find the learning rate themselves; "
        "schedule-free ones need no schedule.",
        choices=OPTIMIZERS, essential=True, label="Optimizer",
    )  # fmt: skip
    custom_class: str = setting(
        "", "For `custom`: the class by its dotted name, e.g. torch.optim.SGD.", label="Custom class"
    )
    arguments: tuple[str, ...] = setting(
        (), "For experts: further arguments of the optimizer, one a line, e.g. d_coef=2 or betas=0.9,0.99.",
        label="Optimizer arguments",
    )  # fmt: skip
    unet_learning_rate: float = setting(
        1e-4, "Learning rate of the UNet's part; 1 with prodigy and dadapt.",
        minimum=0.0, maximum=10.0, essential=True, label="UNet learning rate",
    )  # fmt: skip
    text_learning_rate: float = setting(
        5e-5, "Learning rate of the text encoder's part; half of the UNet's is usual.",
        minimum=0.0, maximum=10.0, essential=True, label="Text encoder learning rate",
    )  # fmt: skip
    lora_plus_ratio: float = setting(
        0.0, "LoRA+: the learning rate of the up factors is this many times higher; 16 is the paper's, 0 = off.",
        minimum=0.0, maximum=1000.0, label="LoRA+ ratio",
    )  # fmt: skip
    weight_decay: float | None = setting(None, "Weight decay.", minimum=0.0, maximum=10.0, label="Weight decay")
    beta1: float | None = setting(None, "First moment's decay.", minimum=0.0, maximum=0.9999, label="Beta 1")
    beta2: float | None = setting(None, "Second moment's decay.", minimum=0.0, maximum=0.99999, label="Beta 2")
    epsilon: float | None = setting(None, "Keeps divisions finite.", minimum=1e-30, maximum=0.1, label="Epsilon")
    d0: float | None = setting(
        None, "prodigy, dadapt: first guess of the learning rate.", minimum=1e-12, maximum=1.0, label="d0"
    )
    d_coefficient: float | None = setting(
        None, "prodigy: factor of the learning rate found.", minimum=0.01, maximum=100.0, label="d coefficient"
    )
    growth_rate: float | None = setting(
        None, "prodigy, dadapt: how fast the guess may grow per step.", minimum=1.0, maximum=1e9, label="Growth rate"
    )
    gradient_clip: float = setting(
        1.0, "Largest norm of all gradients together; 0 switches clipping off.",
        minimum=0.0, maximum=1000.0, label="Gradient clip",
    )  # fmt: skip
    schedule: str = setting(
        "cosine",
        "How the learning rate runs: constant; linear, cosine, polynomial or rex down to the minimum; cosine-restarts: "
        "again and again; annealed-cosine: restarts that begin with a warm-up.",
        choices=SCHEDULES, essential=True, label="Schedule",
    )  # fmt: skip
    warmup: float = setting(
        0.0, "The learning rate rises from 0 for this long: below 1 a share of the run, from 1 on a number of steps.",
        minimum=0.0, maximum=1_000_000, label="Warm-up",
    )  # fmt: skip
    cycles: int = setting(1, "Cycles of the schedules with restarts.", minimum=1, maximum=1000, label="Cycles")
    cycle_decay: float = setting(
        1.0, "Each cycle begins at this share of the one before.", minimum=0.01, maximum=1.0, label="Decay per cycle"
    )
    cycle_warmup: float = setting(
        0.1, "annealed-cosine: share of each cycle in which the learning rate rises.",
        minimum=0.0, maximum=0.9, label="Warm-up per cycle",
    )  # fmt: skip
    minimum: float = setting(
        0.0, "Share of the learning rate at which a falling schedule ends.", minimum=0.0, maximum=1.0, label="Minimum"
    )
    power: float = setting(1.0, "polynomial: its power; 1 is linear.", minimum=0.1, maximum=10.0, label="Power")
