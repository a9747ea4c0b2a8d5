"""What the model is asked to predict, and the loss per example."""

from __future__ import annotations

import torch

from lib_lora_trainer.base.families import Prediction
from lib_lora_trainer.diffusion.schedule import velocity


def target(
    prediction: Prediction, latents: torch.Tensor, noise: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    """Return the noise for epsilon models, the velocity for v models; (B, 4, h, w) float32."""
    return noise if prediction == "epsilon" else velocity(latents, noise, alpha, sigma)


def squared_error(predicted: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return the mean squared error of each example, (B,) float32 (DDPM eq. 14)."""
    return (predicted.float() - wanted.float()).square().mean(dim=(1, 2, 3))
