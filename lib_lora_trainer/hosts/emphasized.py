"""Emphasis on encoded captions: what every host does with the weights of (tag:1.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from lib_lora_trainer.captions import emphasis
from lib_lora_trainer.hosts.chunks import Piece


def pieces(caption: str, tokenize: Callable[[str], Sequence[int]]) -> list[Piece | None]:
    """Return a caption's tokens with their weights, None where BREAK stands, as `chunks.split_weighted` reads them.

    tokenize: from text to tokens without start and end; each piece is tokenized on its own, as in the WebUI.
    """
    return [None if piece == emphasis.BREAK else (tokenize(piece[0]), piece[1]) for piece in emphasis.parse(caption)]


def apply(hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return one encoder's states of one chunk, weighted by token, with the mean that they had before.

    hidden: (B, 77, width), what the UNet reads, after the final norm where there is one; weights: (B, 77), from
    `chunks.framed_weights`. Differentiable; float32 inside, returned in the dtype of `hidden`. Where all weights are 1
    nothing changes. SDXL's pooled vector is taken before and stays as it is.

    This is the WebUI's default, "Original" (modules/sd_emphasis.py, 1.10.1): states · weight · (mean before / mean
    after). The means are each caption's own, so that a caption is encoded alike in any batch; the WebUI takes them over
    the batch, which for it holds one prompt (test_chunks.py `test_emphasis_does_not_depend_on_the_batch`).
    sd-scripts' `weighted_captions` leaves the mean changed.
    """
    before = hidden.float()
    weighted = before * weights.to(before)[:, :, None]
    ratio = before.mean((1, 2), keepdim=True) / weighted.mean((1, 2), keepdim=True)
    return (weighted * ratio).to(hidden.dtype)
