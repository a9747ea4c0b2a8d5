"""Pictures to latents with the loaded VAE, in float32 whatever the WebUI keeps it in."""

from __future__ import annotations

from typing import Any

import torch

from lib_lora_trainer.base.errors import DataError, NumericalError
from lib_lora_trainer.hosts.api import Posterior
from lib_lora_trainer.hosts.webui.loaded import Loaded
from lib_lora_trainer.hosts.webui.restoring import precision_kept


def encode(loaded: Loaded, pixels: torch.Tensor, device: torch.device) -> Posterior:
    """Return mean and standard deviation of the scaled latents of pixels (B, 3, H, W) in [-1, 1].

    The VAE's encoder is called directly: the WebUI's way through `encode_first_stage` samples on SDXL, moves modules
    with --medvram, and overflows in half precision. Raises NumericalError when the result is not finite.
    """
    if pixels.shape[-1] % 8 or pixels.shape[-2] % 8:
        size = f"{pixels.shape[-1]}×{pixels.shape[-2]}"
        raise DataError(f"A picture of {size} cannot be encoded. Make both sides multiples of 8.")
    vae = loaded.vae
    with precision_kept(vae), torch.no_grad(), torch.autocast(device.type, enabled=False):
        vae.to(device=device, dtype=torch.float32)
        encoded = [_moments(vae, picture, device) for picture in pixels.split(1)]
    moments = torch.cat(encoded).cpu()
    mean, log_variance = moments.chunk(2, dim=1)
    std = torch.exp(0.5 * log_variance.clamp(-30.0, 20.0))  # the bounds of ldm's DiagonalGaussianDistribution
    if not (torch.isfinite(mean).all() and torch.isfinite(log_variance).all()):
        raise NumericalError(
            f"The VAE ({loaded.info.vae or 'of the checkpoint'}) made NaN or infinite latents, even in float32. Check "
            "the picture, and choose another VAE in the WebUI's settings."
        )
    return Posterior(mean * loaded.info.latent_scale, std * loaded.info.latent_scale)


def _moments(vae: Any, picture: torch.Tensor, device: torch.device) -> torch.Tensor:
    moments: torch.Tensor = vae.quant_conv(vae.encoder(picture.to(device=device, dtype=torch.float32)))
    return moments
