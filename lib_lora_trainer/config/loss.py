"""What is minimized, and the noise it is minimized on."""

from __future__ import annotations

from dataclasses import dataclass

from lib_lora_trainer.base.setting import setting


@dataclass(frozen=True)
class LossConfig:
    """The loss of a prediction and the weights on it."""

    kind: str = setting(
        "l2", "l2: squared error. l1: absolute error. huber, smooth-l1: squared near zero, absolute far from it.",
        choices=("l2", "l1", "huber", "smooth-l1"), label="Loss",
    )  # fmt: skip
    huber_schedule: str = setting(
        "snr", "How huber's and smooth-l1's border depends on the timestep.",
        choices=("constant", "exponential", "snr"), label="Huber schedule",
    )  # fmt: skip
    huber_c: float = setting(
        0.1, "huber, smooth-l1: border between squared and absolute.", minimum=1e-6, maximum=10.0, label="Huber c"
    )
    huber_scale: float = setting(1.0, "Factor of the border.", minimum=1e-6, maximum=1000.0, label="Huber scale")
    min_snr_gamma: float = setting(
        0.0, "Weights easy timesteps down (min-SNR); 5 is usual, 0 = off.",
        minimum=0.0, maximum=100.0, label="Min-SNR gamma",
    )  # fmt: skip
    debiased: bool = setting(False, "Debiased estimation: weights by 1 / √SNR.", label="Debiased estimation")
    v_like: float = setting(
        0.0, "Noise prediction: adds the loss that velocity would have, with this weight.",
        minimum=0.0, maximum=10.0, label="V-like loss",
    )  # fmt: skip
    scale_v_like_noise: bool = setting(
        False, "Velocity prediction: weights as if noise were predicted.", label="Scale v loss like noise"
    )
    prior_weight: float = setting(
        1.0, "Weight of regularization images.", minimum=0.0, maximum=100.0, label="Prior loss weight"
    )
    masked: bool = setting(False, "Learn only where the masks are white.", label="Masked loss")
    mask_minimum: float = setting(
        0.0, "Weight of the masks' black areas.", minimum=0.0, maximum=1.0, label="Weight outside of masks"
    )
    normalize_masks: bool = setting(
        False, "Divide by the masks' area, so that small subjects count as much as large ones.", label="Normalize masks"
    )


@dataclass(frozen=True)
class NoiseConfig:
    """Noise and timesteps."""

    offset: float = setting(
        0.0, "Noise offset: shifts each channel's mean; 0.05 to 0.1 gives darker and brighter pictures.",
        minimum=0.0, maximum=1.0, label="Noise offset",
    )  # fmt: skip
    offset_random: bool = setting(False, "Draw the offset's strength from 0 to its value.", label="Random noise offset")
    adaptive_offset: float = setting(
        0.0, "Adds this times the latent's mean to the noise offset.",
        minimum=-1.0, maximum=1.0, label="Adaptive noise offset",
    )  # fmt: skip
    pyramid_iterations: int = setting(
        0, "Pyramid noise: coarser and coarser layers; 6 to 10 are usual, 0 = off.",
        minimum=0, maximum=16, label="Pyramid iterations",
    )  # fmt: skip
    pyramid_discount: float = setting(
        0.3, "Strength of each coarser layer.", minimum=0.0, maximum=1.0, label="Pyramid discount"
    )
    input_perturbation: float = setting(
        0.0, "ip-noise gamma: noise on the input alone, against exposure bias; 0.1 is usual.",
        minimum=0.0, maximum=1.0, label="IP noise gamma",
    )  # fmt: skip
    input_perturbation_random: bool = setting(
        False, "Draw the gamma from 0 to its value.", label="Random IP noise gamma"
    )
    minimum_timestep: int = setting(0, "First timestep used.", minimum=0, maximum=999, label="Lowest timestep")
    maximum_timestep: int = setting(
        1000, "The first timestep no longer used.", minimum=1, maximum=1000, label="Highest timestep"
    )
    timesteps: str = setting(
        "uniform", "How timesteps are drawn: uniform; logit-normal: the middle more often; cosine: the ends less.",
        choices=("uniform", "logit-normal", "cosine"), label="Timesteps",
    )  # fmt: skip
    timestep_bias: float = setting(
        0.0, "Moves the draws of logit-normal: below 0 towards fine detail, above towards composition.",
        minimum=-5.0, maximum=5.0, label="Timestep bias",
    )  # fmt: skip
    zero_terminal_snr: str = setting(
        "auto", "Rescale the schedule so that its end is pure noise; auto: as the checkpoint was trained.",
        choices=("auto", "on", "off"), label="Zero terminal SNR",
    )  # fmt: skip
