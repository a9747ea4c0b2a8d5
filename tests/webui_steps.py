"""Steps that the tests of the WebUI host share."""

from __future__ import annotations

import numpy as np
import torch

from lib_lora_trainer.hosts.api import ImageRequest, TextRequest

REQUEST = ImageRequest("a red cat", "blurred", 5, 3, 4.0, 64, 64, "Euler", 1)


def pixels(image) -> np.ndarray:
    return np.asarray(image.convert("RGB")).astype(int)


def captions(*texts: str, clip_skip: int = 1, chunks: int = 1) -> TextRequest:
    return TextRequest(texts, clip_skip, chunks, ())


def noisy(count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, 4, 8, 8, generator=generator), torch.tensor([7, 600][:count])


def train_a_little(lease) -> torch.Tensor:
    """Run forward and backward through UNet and text encoder with a stand-in adapter; return its gradient."""
    target = next(t for t in lease.targets() if t.layer.path.endswith("attn2.to_k"))
    added = torch.zeros(target.layer.outputs, requires_grad=True)
    handle = target.module.register_forward_hook(lambda module, inputs, output: output + added)
    try:
        text = lease.encode_text(captions("a red cat", "b"))
        latents, timesteps = noisy()
        lease.predict(latents, timesteps, text).square().mean().backward()
    finally:
        handle.remove()
    return added.grad
