"""Captions to conditioning with the loaded text encoders: no textual inversion; of prompt syntax emphasis, if asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from modules import devices, sd_hijack

from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.hosts import emphasized
from lib_lora_trainer.hosts.api import Conditioning, PictureSize, TextRequest
from lib_lora_trainer.hosts.chunks import Piece, chunk_weighted, framed, framed_weights, split_weighted
from lib_lora_trainer.hosts.webui.loaded import Loaded
from lib_lora_trainer.hosts.webui.restoring import attributes_kept


def count_chunks(loaded: Loaded, captions: Sequence[str], emphasis: bool) -> tuple[int, ...]:
    """Return how many 75-token chunks each caption takes, at least 1."""
    wrapper = loaded.wrappers[0]
    return tuple(len(split_weighted(_pieces(wrapper, caption, emphasis), wrapper.comma_token)) for caption in captions)


def _pieces(wrapper: Any, caption: str, emphasis: bool) -> Sequence[Piece | None]:
    """Return a caption's tokens with their weights; without emphasis it is one piece of plain text."""

    def tokenize(text: str) -> list[int]:
        (ids,) = wrapper.tokenize([text])
        return list(ids)

    return emphasized.pieces(caption, tokenize) if emphasis else [(tokenize(caption), 1.0)]


def encode(loaded: Loaded, request: TextRequest, device: torch.device) -> Conditioning:
    """Return the captions' conditioning in float32; differentiable when gradients are enabled.

    The WebUI wraps the token embeddings to insert textual inversions from `hijack.fixes`, and casts SDXL's size
    embeddings to `devices.dtype_unet`; both are neutral here.
    """
    if request.chunks < 1:
        raise ConfigError(f"chunks = {request.chunks} is too small. Use 1 or more.")
    # Long captions are read 75 tokens at a time; what SDXL reads of the whole caption comes from the first chunk.
    encoded = [_encode_with(wrapper, loaded, request, device) for wrapper in loaded.wrappers]
    context = torch.cat([states for states, _ in encoded], dim=-1).float()
    if loaded.info.family != "sdxl":
        return Conditioning(context)
    if len(request.sizes) != len(request.captions):
        raise ConfigError(
            f"sizes: {len(request.sizes)} for {len(request.captions)} captions. SDXL needs one per caption."
        )
    pooled = encoded[-1][1]
    assert pooled is not None  # SDXL's second encoder always has it
    with attributes_kept(devices, dtype_unet=torch.float32):
        sizes = [_size_embedding(embedder, request.sizes, device) for embedder in _size_embedders(loaded)]
    return Conditioning(context, torch.cat([pooled.float(), *sizes], dim=-1))


def _encode_with(
    wrapper: Any, loaded: Loaded, request: TextRequest, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return (B, 77·chunks, width) states, and (B, width) of the whole caption where the encoder has it."""
    chunked = [
        chunk_weighted(_pieces(wrapper, caption, request.emphasis), wrapper.comma_token, request.chunks)
        for caption in request.captions
    ]
    states, pooled = [], []
    for number in range(request.chunks):
        rows = [framed(chunks[number][0], wrapper.id_start, wrapper.id_end, wrapper.id_pad) for chunks in chunked]
        with attributes_kept(sd_hijack.model_hijack, fixes=None):
            found = _states(wrapper, torch.tensor(rows, device=device), loaded, request.clip_skip)
        pooled.append(getattr(found, "pooled", None))
        if request.emphasis:
            weights = [framed_weights(chunks[number][1]) for chunks in chunked]
            found = emphasized.apply(found, torch.tensor(weights, device=device))
        states.append(found)
    return torch.cat(states, dim=1), pooled[0]


def _states(wrapper: Any, ids: torch.Tensor, loaded: Loaded, clip_skip: int) -> torch.Tensor:
    if not hasattr(wrapper.wrapped, "transformer"):  # open_clip: always the layer before the last
        states: torch.Tensor = wrapper.encode_with_transformers(ids)
        return states
    outputs = wrapper.wrapped.transformer(input_ids=ids, output_hidden_states=True)
    if loaded.info.family == "sdxl":
        # SDXL was trained on the layer before the last, without the final norm; clip skip does not apply to it.
        hidden: torch.Tensor = outputs.hidden_states[wrapper.wrapped.layer_idx]
        return hidden
    if not 1 <= clip_skip < len(outputs.hidden_states):
        layers = len(outputs.hidden_states) - 1
        raise ConfigError(f"clip_skip = {clip_skip}: this text encoder has {layers} layers. Use 1 to {layers}.")
    normed: torch.Tensor = wrapper.wrapped.transformer.text_model.final_layer_norm(outputs.hidden_states[-clip_skip])
    return normed


def _size_embedders(loaded: Loaded) -> list[Any]:
    return [embedder for embedder in loaded.model.conditioner.embedders if not hasattr(embedder, "wrapped")]


def _size_embedding(embedder: Any, sizes: Sequence[PictureSize], device: torch.device) -> torch.Tensor:
    fields = {
        "original_size_as_tuple": "original",
        "crop_coords_top_left": "crop",
        "target_size_as_tuple": "target",
    }
    values = [getattr(size, fields[embedder.input_key]) for size in sizes]
    embedding: torch.Tensor = embedder(torch.tensor(values, dtype=torch.float32, device=device))
    return embedding.float()
