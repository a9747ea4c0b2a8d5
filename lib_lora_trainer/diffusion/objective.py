"""What the model is asked to predict, and the loss per example."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from lib_lora_trainer.base.families import Prediction
from lib_lora_trainer.config.loss import LossConfig
from lib_lora_trainer.diffusion import schedule

LARGEST_SNR = 1000.0  # as sd-scripts, where a clean first step would have an infinite one
SMALLEST_SNR = 1 / LARGEST_SNR
"""Below Stable Diffusion's last step (0.0047), so that only schedules with zero terminal SNR meet this border."""


@dataclass(frozen=True)
class At:
    """Where on which schedule a batch lies: timesteps (B,) int64 and alphas_cumprod (T,), on the loss's device.

    alphas_cumprod is the schedule the noise was added with, after a zero-terminal rescaling. Here sd-scripts differs:
    it computes SNR before the rescaling (test_snr_weights_follow_the_rescaled_schedule).
    """

    timesteps: torch.Tensor
    alphas_cumprod: torch.Tensor


def target(
    prediction: Prediction, latents: torch.Tensor, noise: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    """Return the noise for epsilon models, the velocity for v models; (B, 4, h, w) float32."""
    return noise.float() if prediction == "epsilon" else schedule.velocity(latents, noise, alpha, sigma)


def example_losses(
    predicted: torch.Tensor,
    wanted: torch.Tensor,
    at: At,
    config: LossConfig,
    prediction: Prediction,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the loss of each example, (B,) float32, differentiable in `predicted`.

    predicted, wanted: (B, C, h, w), any floating dtype; mask: (B, 1, h, w) in [0, 1], white = learned.
    In order, as sd-scripts: distance per value, mask, mean over C, h and w, weight of the timestep. The weight of
    regularization images is the caller's, and so is the mean over the batch.
    """
    losses = _distance(predicted.float(), wanted.float(), at, config)
    if mask is not None:
        losses = losses * mask_weights(mask, config)
    return losses.mean(dim=(1, 2, 3)) * weights(at, config, prediction)


def mask_weights(mask: torch.Tensor, config: LossConfig) -> torch.Tensor:
    """Return the weight of each latent pixel, (B, 1, h, w) float32: 1 in white, mask_minimum in black, linear between.

    With normalize_masks each example's weights are divided by their mean, which makes it 1; an example whose weights
    are all 0 keeps them.
    """
    weight = config.mask_minimum + (1 - config.mask_minimum) * mask.float()
    if not config.normalize_masks:
        return weight
    mean = weight.mean(dim=(1, 2, 3), keepdim=True)
    return weight / torch.where(mean > 0, mean, torch.ones_like(mean))


def huber_border(at: At, config: LossConfig) -> torch.Tensor:
    """Return c, the border between squared and absolute, of each example: (B,) float32.

    constant: c. exponential: c^(t / T), from 1 to c. snr: (1 - c) / (1 + σ)² + c with σ = sqrt(1 / SNR), from almost 1
    to c; c itself where SNR is 0. Each times huber_scale, which sd-scripts leaves out of snr; a setting should do what
    it says (test_huber_scale_counts_in_every_schedule).
    """
    if config.huber_schedule == "constant":
        border = torch.full_like(at.timesteps, config.huber_c, dtype=torch.float32)
    elif config.huber_schedule == "exponential":
        border = torch.exp(math.log(config.huber_c) * at.timesteps.float() / len(at.alphas_cumprod))
    else:
        sigma = schedule.snr(at.alphas_cumprod, at.timesteps).rsqrt()
        border = (1 - config.huber_c) / (1 + sigma) ** 2 + config.huber_c
    return border * config.huber_scale


def weights(at: At, config: LossConfig, prediction: Prediction) -> torch.Tensor:
    """Return the product of the configured weights of each example's timestep, (B,) float32, finite for every SNR.

    SNR is that of `at`. What each does, and what at SNR 0 (the last step of a zero-terminal schedule):
    min-SNR (Hang et al. 2023, arXiv:2303.09556, section 3.4): min(SNR, γ) / SNR, at 0: 1. v: min(SNR, γ) / (SNR + 1),
    at 0: 0, so the last step is not learned.
    debiased (Yu et al. 2023, arXiv:2310.08442): 1 / √SNR, at 0: √1000. v: 1 / (SNR + 1), at 0: 1.
    v_like, epsilon alone: 1 + v_like · (SNR + 1) / SNR, at 0: 1 + 1001 · v_like.
    scale_v_like_noise, v alone: SNR / (SNR + 1), at 0: 0.
    All but min-SNR see SNR within [1/1000, 1000] where they would otherwise divide by 0 or infinity; the lower border
    is not in sd-scripts, whose weights are infinite there (test_weights_at_snr_0_are_finite). `combinations.problems`
    refuses v_like on v models and scale_v_like_noise on epsilon models, where they do nothing.
    """
    snr = schedule.snr(at.alphas_cumprod, at.timesteps)
    bounded = snr.clamp(SMALLEST_SNR, LARGEST_SNR)
    weight = torch.ones_like(snr)
    if config.min_snr_gamma and prediction == "epsilon":
        weight = weight * (config.min_snr_gamma / snr).clamp(max=1.0)
    elif config.min_snr_gamma:
        weight = weight * snr.clamp(max=config.min_snr_gamma) / (snr + 1)
    if config.debiased and prediction == "epsilon":
        weight = weight * bounded.rsqrt()
    elif config.debiased:
        weight = weight / (snr.clamp(max=LARGEST_SNR) + 1)
    if config.v_like and prediction == "epsilon":
        weight = weight * (1 + config.v_like * (bounded + 1) / bounded)
    if config.scale_v_like_noise and prediction == "v":
        limited = snr.clamp(max=LARGEST_SNR)
        weight = weight * limited / (limited + 1)
    return weight


def _distance(predicted: torch.Tensor, wanted: torch.Tensor, at: At, config: LossConfig) -> torch.Tensor:
    """Return the distance of each value, (B, C, h, w).

    huber: 2c (√(d² + c²) - c), about d² near 0 and 2c |d| far away; smooth-l1: the same without the factor c
    (Charbonnier's form, as sd-scripts).
    """
    difference = predicted - wanted
    if config.kind == "l2":
        return difference.square()
    if config.kind == "l1":
        return difference.abs()
    c = huber_border(at, config).view(-1, 1, 1, 1)
    # √(d² + c²) - c without the cancellation that loses every digit in float32 where d is small beside c.
    smooth = 2 * difference.square() / ((difference.square() + c.square()).sqrt() + c)
    return c * smooth if config.kind == "huber" else smooth
