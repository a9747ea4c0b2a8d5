"""The forward process of DDPM (Ho et al. 2020, arXiv:2006.11239) as pure functions of alphas_cumprod."""

from __future__ import annotations

import torch


def alpha_sigma(alphas_cumprod: torch.Tensor, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return sqrt(ᾱ_t) and sqrt(1 - ᾱ_t), each (B, 1, 1, 1) float32, for timesteps (B,) int64."""
    alpha_bar = alphas_cumprod.float()[timesteps].view(-1, 1, 1, 1)
    return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


def add_noise(latents: torch.Tensor, noise: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Return x_t = alpha · x_0 + sigma · noise (DDPM eq. 4), (B, 4, h, w) float32."""
    return alpha.float() * latents.float() + sigma.float() * noise.float()


def velocity(latents: torch.Tensor, noise: torch.Tensor, alpha: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Return v = alpha · noise - sigma · x_0 (Salimans & Ho 2022, arXiv:2202.00512, appendix D); float32."""
    return alpha.float() * noise.float() - sigma.float() * latents.float()


def snr(alphas_cumprod: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """Return the signal-to-noise ratio ᾱ_t / (1 - ᾱ_t), (B,) float32, for timesteps (B,) int64.

    0 where the schedule ends in pure noise; infinite where it begins with none (ᾱ_t = 1).
    """
    alpha_bar = alphas_cumprod.float()[timesteps]
    return alpha_bar / (1 - alpha_bar)


def rescale_zero_terminal_snr(alphas_cumprod: torch.Tensor) -> torch.Tensor:
    """Return the schedule stretched so that its last step is pure noise (Lin et al. 2023, arXiv:2305.08891, alg. 1).

    sqrt(ᾱ_t) is shifted so that its last value is 0, then scaled so that its first one is as before. A schedule that
    ends in 0 comes back as it was. alphas_cumprod, result: (T,), T ≥ 2; float32, whatever came in, on its device.
    The arithmetic is float64, where sd-scripts multiplies 1000 float32 alphas (how near: test_schedules_are_sd_scripts).
    """
    root = alphas_cumprod.detach().to(device="cpu", dtype=torch.float64).sqrt()
    stretched = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
    return stretched.square().to(device=alphas_cumprod.device, dtype=torch.float32)
