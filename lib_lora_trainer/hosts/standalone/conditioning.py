"""From captions to what the UNet is conditioned on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.base.families import Family, Part
from lib_lora_trainer.hosts.api import Conditioning, PictureSize, TextRequest
from lib_lora_trainer.hosts.chunks import split
from lib_lora_trainer.hosts.standalone import words

_SIZE_WIDTH = 256


def encode(
    encoders: Mapping[Part, torch.nn.Module], family: Family, request: TextRequest, device: torch.device
) -> Conditioning:
    """Return the conditioning of a request, float32 on `device`; differentiable when gradients are enabled.

    Which layer is read is what the WebUI reads: SD1 the clip_skip-th from the end, then the final norm; SD2 the last
    but one, then the final norm; SDXL the last but one of both encoders, no norm. clip_skip changes SD1 only.
    Raises ConfigError for a clip_skip the encoder has not, and when SDXL's sizes are not one per caption.
    """
    tokenize = words.load_tokenizer()
    tokens = [tokenize(caption) for caption in request.captions]
    if family == "sdxl":
        return _encode_sdxl(encoders, request, tokens, device)
    encoder: Any = encoders["te"]
    padding = words.END if family == "sd1" else 0
    output, _ = _run(encoder, tokens, request.chunks, padding, device)
    # The SD2 encoder is built without its last layer, so that its end is the layer to read.
    skip = request.clip_skip if family == "sd1" else 1
    if not 1 <= skip < len(output.hidden_states):
        most = len(output.hidden_states) - 1
        raise ConfigError(f"clip_skip = {skip}: this text encoder has {most} layers. Use 1 to {most}.")
    hidden = encoder.text_model.final_layer_norm(output.hidden_states[-skip])
    return Conditioning(_join(hidden, request.chunks))


def _encode_sdxl(
    encoders: Mapping[Part, torch.nn.Module], request: TextRequest, tokens: list[list[int]], device: torch.device
) -> Conditioning:
    if len(request.sizes) != len(request.captions):
        raise ConfigError(
            f"sizes: {len(request.sizes)} for {len(request.captions)} captions. SDXL needs one per caption."
        )
    first, _ = _run(encoders["te1"], tokens, request.chunks, words.END, device)
    second, ends = _run(encoders["te2"], tokens, request.chunks, 0, device)
    context = torch.cat([_join(output.hidden_states[-2], request.chunks) for output in (first, second)], 2)
    # Of several chunks the first gives the pooled vector, as in the WebUI.
    model: Any = encoders["te2"]
    last = model.text_model.final_layer_norm(second.hidden_states[-1])
    pooled = last[torch.arange(len(ends), device=device), ends][:: request.chunks]
    pooled = model.text_projection(pooled).float()
    return Conditioning(context, torch.cat([pooled, embed_sizes(request.sizes).to(device)], 1))


def _run(
    encoder: Any, tokens: Sequence[Sequence[int]], chunks: int, padding: int, device: torch.device
) -> tuple[Any, torch.Tensor]:
    """Return transformers' output for all chunks of all captions, and the place of each chunk's end token."""
    rows = [row for caption in tokens for row in words.rows(caption, chunks, padding)]
    numbers = torch.tensor(rows, device=device)
    ends = torch.tensor([row.index(words.END) for row in rows], device=device)
    return encoder.text_model(input_ids=numbers, output_hidden_states=True, return_dict=True), ends


def _join(hidden: torch.Tensor, chunks: int) -> torch.Tensor:
    """(B·chunks, 77, width) to (B, 77·chunks, width) float32."""
    return hidden.float().reshape(hidden.shape[0] // chunks, chunks * hidden.shape[1], hidden.shape[2])


def embed_sizes(sizes: Sequence[PictureSize]) -> torch.Tensor:
    """Return Fourier features of original, crop and target (y, x): (B, 6·256) float32.

    Each number gives 128 cosines, then 128 sines: sgm/modules/diffusionmodules/util.py `timestep_embedding`, in the
    order of SDXL's embedders.
    """
    numbers = torch.tensor([[*size.original, *size.crop, *size.target] for size in sizes], dtype=torch.float32)
    half = _SIZE_WIDTH // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half)
    angles = numbers[:, :, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], 2).flatten(1)


def chunks_needed(text: str) -> int:
    """Return how many 75-token chunks a text takes; at least 1."""
    return len(split(words.load_tokenizer()(text), words.comma()))
