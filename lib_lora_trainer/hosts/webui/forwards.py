"""How the UNet's attention computes while it is trained: differentiable, whatever the user chose for images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_ATTENTION_PARTS = ("to_q", "to_k", "to_v", "to_out", "heads")
_UNET_BLOCKS = ("BasicTransformerBlock", "ResBlock")
_TEXT_BLOCKS = ("CLIPEncoderLayer", "ResidualAttentionBlock")


def unet_blocks(unet: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the UNet's transformer and residual blocks."""
    return [module for module in unet.modules() if type(module).__name__ in _UNET_BLOCKS]


def text_blocks(encoder: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the layers of a text encoder, transformers' or open_clip's."""
    return [module for module in encoder.modules() if type(module).__name__ in _TEXT_BLOCKS]


class TrainingAttention:
    """Instance-level `forward`s on the UNet's attention, from entering to leaving; what was there is put back.

    An instance's own `forward` goes before its class's, so that the attention optimization the user chose (and any
    other patch of the class) is untouched and without effect on training. upcast: the user's "Upcast cross attention
    to float32".
    """

    def __init__(self, unet: torch.nn.Module, upcast: bool) -> None:
        attentions = [module for module in unet.modules() if all(hasattr(module, part) for part in _ATTENTION_PARTS)]
        self._forwards = {module: _attention_of(module, upcast) for module in attentions}
        self._before: dict[torch.nn.Module, Any] = {}

    def __enter__(self) -> TrainingAttention:
        for module, forward in self._forwards.items():
            self._before[module] = module.__dict__.get("forward")
            module.__dict__["forward"] = forward
        return self

    def __exit__(self, *_: object) -> None:
        while self._before:
            module, before = self._before.popitem()
            if before is None:
                # Assigning the bound method instead would pin whatever patch of the class is in force now.
                del module.__dict__["forward"]
            else:
                module.__dict__["forward"] = before

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Compute as the WebUI does inside the block."""
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()


def _attention_of(module: Any, upcast: bool) -> Callable[..., torch.Tensor]:
    """Return multi-head attention by torch's fused kernel."""

    def forward(
        hidden: torch.Tensor,
        context: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        additional_tokens: None = None,
        n_times_crossframe_attn_in_self: int = 0,
    ) -> torch.Tensor:
        # The last three are sgm's and ldm's for video and masked text; Stable Diffusion never sets them.
        if mask is not None or additional_tokens is not None or n_times_crossframe_attn_in_self:
            raise ValueError("attention with a mask, additional tokens or across frames cannot be trained")
        source = hidden if context is None else context
        query = _split(module.to_q(hidden), module.heads)
        key, value = _split(module.to_k(source), module.heads), _split(module.to_v(source), module.heads)
        dtype = query.dtype
        # On the CPU torch 2.1.2's fused attention in bf16 corrupts memory in its backward pass at SD1.5's sizes.
        if upcast or query.device.type == "cpu":
            query, key, value = query.float(), key.float(), value.float()
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        output: torch.Tensor = module.to_out(mixed.transpose(1, 2).flatten(2).to(dtype))
        return output

    return forward


def _split(states: torch.Tensor, heads: int) -> torch.Tensor:
    """(B, length, width) to (B, heads, length, width of a head)."""
    return states.unflatten(-1, (heads, -1)).transpose(1, 2)
