"""The forward process of DDPM (Ho et al. 2020, arXiv:2006.11239) as pure functions of alphas_cumprod."""

from __future__ import annotations

import torch


def alpha_sigma(alphas_cumprod: torch.Tensor, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return sqrt(ᾱ_t) and sqrt(1 - ᾱ_t), each (B, 1, 1, 1) float32, for timesteps (B,) int64."""
    alpha_bar = alphas_cumprod.float()[timesteps].view(-1, 1, 1, 1)
    return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


def add_noise(latents: torch.Tensor, noise: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Return x_t = alpha · x_0 + sigma · noise (DDPM eq. 4); all (B, 4, h, w) float32."""
    return alpha * latents + sigma * noise


def velocity(latents: torch.Tensor, noise: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Return v = alpha · noise - sigma · x_0 (Salimans & Ho 2022, arXiv:2202.00512, appendix D)."""
    return alpha * noise - sigma * latents
