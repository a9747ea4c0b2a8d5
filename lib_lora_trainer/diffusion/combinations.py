"""Settings of loss and noise that contradict each other, the model, or do nothing."""

from __future__ import annotations

from collections.abc import Iterator

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.base.families import Prediction
from lib_lora_trainer.config.loss import LossConfig, NoiseConfig


def problems(loss: LossConfig, noise: NoiseConfig, prediction: Prediction) -> tuple[Problem, ...]:
    """Return what is wrong with a combination of values that are each in range.

    prediction: the model's. noise.zero_terminal_snr should be settled: `auto` counts as off here, as the checkpoint's
    own schedule is not known.
    """
    return (*_weights(loss, prediction), *_schedule(loss, noise, prediction), *_noise(noise), *_idle(loss, noise))


def _weights(loss: LossConfig, prediction: Prediction) -> Iterator[Problem]:
    if loss.v_like and prediction == "v":
        text = "adds a velocity loss, but this model predicts velocity already."
        yield Problem("error", "loss.v_like", text, "Set it to 0.")
    if loss.scale_v_like_noise and prediction == "epsilon":
        text = "weights a velocity loss, but this model predicts noise."
        yield Problem("error", "loss.scale_v_like_noise", text, "Switch it off.")
    if loss.min_snr_gamma and loss.debiased:
        text = "is on together with min-SNR; both weight timesteps by their SNR, and the weights multiply."
        yield Problem("warning", "loss.debiased", text, "Switch one of them off.")


def _schedule(loss: LossConfig, noise: NoiseConfig, prediction: Prediction) -> Iterator[Problem]:
    if noise.minimum_timestep >= noise.maximum_timestep:
        yield Problem(
            "error",
            "noise.minimum_timestep",
            f"{noise.minimum_timestep} is not below the highest timestep, {noise.maximum_timestep}; none is left.",
            "Lower it, or raise noise.maximum_timestep.",
        )
    if noise.zero_terminal_snr != "on":
        return
    if prediction == "epsilon":
        yield Problem(
            "warning",
            "noise.zero_terminal_snr",
            "is on, but this model predicts noise: at the last step its input is the noise itself, and nothing about "
            "the picture can be learned there.",
            "Switch it off, or train on a model that predicts velocity.",
        )
        return
    zeros = (
        ("loss.min_snr_gamma", loss.min_snr_gamma > 0),
        ("loss.scale_v_like_noise", loss.scale_v_like_noise),
    )
    for where, active in zeros:
        if active:
            text = "gives the last step of a zero-terminal schedule the weight 0, so its pure noise is never learned."
            yield Problem("warning", where, text, "Switch it off, or use debiased estimation, which gives it 1.")


def _noise(noise: NoiseConfig) -> Iterator[Problem]:
    if noise.adaptive_offset and not noise.offset:
        text = "changes the noise offset, but that is 0."
        yield Problem("error", "noise.adaptive_offset", text, "Set noise.offset as well, or set this to 0.")
    if noise.offset and noise.pyramid_iterations:
        text = "is on together with a noise offset; both shift the mean of the noise."
        yield Problem("warning", "noise.pyramid_iterations", text, "Use one of them.")


def _idle(loss: LossConfig, noise: NoiseConfig) -> Iterator[Problem]:
    """Yield a note for every setting that was changed and has no effect."""
    robust = loss.kind in ("huber", "smooth-l1")
    idle = (
        ("noise.offset_random", noise.offset_random and not noise.offset, "noise.offset is 0"),
        (
            "noise.input_perturbation_random",
            noise.input_perturbation_random and not noise.input_perturbation,
            "noise.input_perturbation is 0",
        ),
        ("noise.timestep_bias", noise.timestep_bias and noise.timesteps != "logit-normal", "it moves logit-normal"),
        ("loss.mask_minimum", loss.mask_minimum and not loss.masked, "loss.masked is off"),
        ("loss.normalize_masks", loss.normalize_masks and not loss.masked, "loss.masked is off"),
        ("loss.huber_scale", loss.huber_scale != 1 and not robust, f"loss.kind is {loss.kind}"),
    )
    for where, useless, reason in idle:
        if useless:
            yield Problem("note", where, f"has no effect: {reason}.")
