"""Trains the toy KL autoencoder: 128 x 128 pictures to 4 x 16 x 16 latents and back."""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lib_lora_trainer.demo.build import pictures

logger = logging.getLogger(__name__)

SEED = 11
FIGURES = 6000
STEPS = 3300
CROPPED_STEPS = 1800
"""Steps on 64 x 64 parts, 12 at a time; the rest sees 3 whole pictures, whose group statistics it must get used to."""
PEAK_RATE = 1.5e-3
KL_WEIGHT = 1e-4
"""Per latent element; keeps the latents smooth without costing visible detail."""
SAVE_EVERY = 300


def make_autoencoder() -> AutoencoderKL:
    """Return an untrained autoencoder: ch 32, ch_mult 1 1 2 2, one residual block per level, four latent channels."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 32, 64, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=32,
        sample_size=128,
    )


def train_autoencoder(work: Path) -> None:
    """Train on drawn figures (new traits among them) and write ``vae.pt``; about 20 minutes on two cores.

    Resumes from the last ``vae_state.pt``; returns at once if ``vae.pt`` is there.
    """
    if (work / "vae.pt").exists():
        return
    torch.manual_seed(SEED)
    array = pictures.cached_pictures(work / "any_pictures.npy", pictures.any_figures(FIGURES, SEED), 1_000_000)
    model = make_autoencoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=1e-4)
    first = 0
    state_path = work / "vae_state.pt"
    if state_path.exists():
        state = torch.load(state_path)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    started = time.monotonic()
    for step in range(first, STEPS):
        rate = PEAK_RATE * min((step + 1) / 100, 0.5 + 0.5 * math.cos(math.pi * step / STEPS)) + 1e-5
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = _loss(model, _crops(array, step))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            logger.info("vae step %d loss %.4f, %.0f s", step, loss.item(), time.monotonic() - started)
        if (step + 1) % SAVE_EVERY == 0:
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}, state_path)
    torch.save(model.state_dict(), work / "vae.pt")


def _crops(array: NDArray[np.uint8], step: int) -> Tensor:
    rng = np.random.default_rng((SEED, step))
    side, batch = (64, 12) if step < CROPPED_STEPS else (array.shape[1], 3)
    corners = rng.integers(0, array.shape[1] - side + 1, (batch, 2))
    chosen = rng.integers(0, len(array), batch)
    parts = [
        array[index, top : top + side, left : left + side] for index, (top, left) in zip(chosen, corners, strict=True)
    ]
    return to_model(np.stack(parts))


def to_model(array: NDArray[np.uint8]) -> Tensor:
    """Return pictures (N, H, W, 3) uint8 as (N, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous().float().div(127.5).sub(1)


def _loss(model: AutoencoderKL, images: Tensor) -> Tensor:
    posterior = model.encode(images).latent_dist
    decoded = model.decode(posterior.sample()).sample
    difference = functional.l1_loss(decoded, images)
    kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
    return difference + _edges(decoded - images) + KL_WEIGHT * kl


def _edges(error: Tensor) -> Tensor:
    """Return the mean absolute difference of neighboring errors; it is what keeps outlines sharp under L1."""
    across = (error[..., 1:] - error[..., :-1]).abs().mean()
    down = (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    return 0.5 * (across + down)


def load_autoencoder(work: Path) -> AutoencoderKL:
    """Return the trained autoencoder, in evaluation mode; the latest snapshot while training has not ended."""
    model = make_autoencoder()
    path = work / "vae.pt"
    state = torch.load(path) if path.exists() else torch.load(work / "vae_state.pt")["model"]
    model.load_state_dict(state)
    return model.eval().requires_grad_(requires_grad=False)
