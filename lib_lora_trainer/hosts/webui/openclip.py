"""open_clip's text encoder layer by layer, under transformers' names: adapters on q, k and v need a layer each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.nn import functional as F

_PROJECTIONS = ("q", "k", "v")


class Projections:
    """One fused attention's q, k, v and out as four Linear layers that look at its weights and own none.

    The attention multiplies by one matrix of three; each layer's parameters are a third of its rows. They take no
    gradient. `refresh` makes them look at the weights again after those were moved or converted.
    """

    def __init__(self, attention: torch.nn.MultiheadAttention) -> None:
        self._attention = attention
        self._seen: tuple[object, ...] = ()
        width, biased = attention.embed_dim, attention.in_proj_bias is not None
        self.layers = {name: _layer(width, biased) for name in _PROJECTIONS}
        # A plain Linear beside torch's own subclass, which LyCORIS takes for a quantized layer.
        self.layers["out"] = _layer(width, attention.out_proj.bias is not None)
        self.layers["out"].weight, self.layers["out"].bias = attention.out_proj.weight, attention.out_proj.bias
        self.refresh()

    def refresh(self) -> None:
        """Look at the weights where they are now."""
        attention = self._attention
        weight, bias = attention.in_proj_weight, attention.in_proj_bias
        seen = (weight.data_ptr(), weight.dtype, weight.device)
        if seen == self._seen:
            return
        for index, name in enumerate(_PROJECTIONS):
            rows = slice(index * attention.embed_dim, (index + 1) * attention.embed_dim)
            self.layers[name].weight.data = weight.data[rows]
            if bias is not None:
                self.layers[name].bias.data = bias.data[rows]
        self._seen = seen

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, None]:
        """Return what MultiheadAttention returns to open_clip: the output, and no attention weights.

        query, key, value: (length, B, width), or (B, length, width) where the attention is `batch_first`; attn_mask:
        (length, length), added to the scores; open_clip's is causal.
        """
        if key_padding_mask is not None or need_weights:
            raise ValueError("text attention with a padding mask, or that returns its weights, cannot be trained")
        self.refresh()
        layers = self.layers
        parts = (layers["q"](query), layers["k"](key), layers["v"](value))
        output_dtype = parts[0].dtype
        heads = [self._split(part) for part in parts]
        # As in the UNet: torch 2.1.2's fused attention in bf16 on the CPU corrupts memory in its backward pass.
        if query.device.type == "cpu":
            heads = [part.float() for part in heads]
        mask = None if attn_mask is None else attn_mask.to(heads[0].dtype)
        mixed = F.scaled_dot_product_attention(heads[0], heads[1], heads[2], attn_mask=mask)
        return layers["out"](self._join(mixed).to(output_dtype)), None

    def _split(self, states: torch.Tensor) -> torch.Tensor:
        """Return (B, heads, length, width of a head)."""
        parted = states.unflatten(-1, (self._attention.num_heads, -1))
        return parted.transpose(1, 2) if self._attention.batch_first else parted.permute(1, 2, 0, 3)

    def _join(self, mixed: torch.Tensor) -> torch.Tensor:
        order = (0, 2, 1, 3) if self._attention.batch_first else (2, 0, 1, 3)
        return mixed.permute(*order).flatten(2)


class LayeredAttention:
    """Instance-level `forward`s that compute fused attentions by their projections, from entering to leaving."""

    def __init__(self, encoders: Iterable[Any]) -> None:
        self._projections: dict[torch.nn.Module, Projections] = {}
        self._before: dict[torch.nn.Module, Callable[..., Any] | None] = {}
        for encoder in encoders:
            for block in encoder.transformer.resblocks:
                self._projections[block.attn] = Projections(block.attn)

    def of(self, attention: torch.nn.Module) -> Mapping[str, torch.nn.Linear]:
        """Return the layers of one attention, by `q`, `k`, `v` and `out`."""
        return self._projections[attention].layers

    def refresh(self) -> None:
        """Look at all weights where they are now, so that none is held where it was."""
        for projections in self._projections.values():
            projections.refresh()

    def __enter__(self) -> LayeredAttention:
        for attention, projections in self._projections.items():
            self._before[attention] = attention.__dict__.get("forward")
            attention.__dict__["forward"] = projections.forward
        return self

    def __exit__(self, *_: object) -> None:
        while self._before:
            attention, before = self._before.popitem()
            if before is None:
                del attention.__dict__["forward"]
            else:
                attention.__dict__["forward"] = before


def named_layers(encoder: Any, used: int, layered: LayeredAttention) -> Iterator[tuple[str, torch.nn.Module]]:
    """Yield the layers and norms of open_clip's text encoder with transformers' names, in the model's order.

    used: how many blocks are computed; SD2 reads the states before the last one and never computes that.
    """
    for number, block in enumerate(encoder.transformer.resblocks[:used]):
        prefix = f"text_model.encoder.layers.{number}"
        for name, layer in layered.of(block.attn).items():
            yield f"{prefix}.self_attn.{name}_proj", layer
        yield f"{prefix}.layer_norm1", block.ln_1
        yield f"{prefix}.mlp.fc1", block.mlp.c_fc
        yield f"{prefix}.mlp.fc2", block.mlp.c_proj
        yield f"{prefix}.layer_norm2", block.ln_2
    yield "text_model.final_layer_norm", encoder.ln_final


def _layer(width: int, biased: bool) -> torch.nn.Linear:
    """Return a Linear without weights: made on the meta device, it takes neither memory nor random numbers."""
    layer = torch.nn.Linear(width, width, bias=biased, device="meta").eval()
    layer.weight = torch.nn.Parameter(torch.empty(0), requires_grad=False)
    if biased:
        layer.bias = torch.nn.Parameter(torch.empty(0), requires_grad=False)
    return layer
