"""How the UNet's blocks compute while they are trained: differentiable attention and recomputed activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

_RECOMPUTED = ("BasicTransformerBlock", "ResBlock")
_ATTENTION_PARTS = ("to_q", "to_k", "to_v", "to_out", "heads")


class TrainingForwards:
    """Instance-level `forward`s on the UNet's blocks, from entering to leaving; what was there is put back as it was.

    An instance's own `forward` goes before its class's, so that the attention optimization the user chose (and any
    other patch of the class) is untouched and without effect on training.
    """

    def __init__(self, unet: torch.nn.Module, recompute: bool, upcast: bool) -> None:
        self._forwards: dict[torch.nn.Module, Callable[..., torch.Tensor]] = {}
        self._before: dict[torch.nn.Module, Any] = {}
        for module in unet.modules():
            if all(hasattr(module, part) for part in _ATTENTION_PARTS):
                self._forwards[module] = _attention_of(module, upcast)
            elif recompute and type(module).__name__ in _RECOMPUTED:
                self._forwards[module] = _recomputed(module)

    def __enter__(self) -> TrainingForwards:
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
    """Return multi-head attention by torch's fused kernel. upcast: the user's "Upcast cross attention to float32"."""

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
        parts = (module.to_q(hidden), module.to_k(source), module.to_v(source))
        query, key, value = (part.unflatten(-1, (module.heads, -1)).transpose(1, 2) for part in parts)
        # On the CPU torch 2.1.2's fused attention in bf16 corrupts memory in its backward pass at SD1.5's sizes.
        if upcast or query.device.type == "cpu":
            query, key, value = query.float(), key.float(), value.float()
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        output: torch.Tensor = module.to_out(mixed.transpose(1, 2).flatten(2).to(parts[0].dtype))
        return output

    return forward


def _recomputed(module: torch.nn.Module) -> Callable[..., torch.Tensor]:
    """Return the module's forward with activations recomputed in the backward pass.

    Not reentrant: the reentrant kind, which the WebUI's own hypernetwork training and ldm use, finds no gradient where
    all parameters and inputs of the block are frozen, as they are around an adapter.
    """

    def forward(*arguments: Any, **options: Any) -> torch.Tensor:
        if not torch.is_grad_enabled():
            return type(module).forward(module, *arguments, **options)
        output: torch.Tensor = checkpoint(type(module).forward, module, *arguments, use_reentrant=False, **options)
        return output

    return forward
