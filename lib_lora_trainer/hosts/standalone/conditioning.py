"""From captions to what the UNet is conditioned on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.base.families import Family, Part
from lib_lora_trainer.hosts import emphasized
from lib_lora_trainer.hosts.api import Conditioning, PictureSize, TextRequest
from lib_lora_trainer.hosts.standalone import words

_SIZE_WIDTH = 256


@dataclass(frozen=True)
class _Run:
    """What an encoder made of all chunks of all captions.

    output: transformers'; ends: place of each chunk's end token; weights: (B·chunks, 77), or None without emphasis.
    """

    output: Any
    ends: torch.Tensor
    weights: torch.Tensor | None

    def states(self, hidden: torch.Tensor, chunks: int) -> torch.Tensor:
        """(B·chunks, 77, width) to (B, 77·chunks, width) float32, each token by its weight."""
        weighted = hidden if self.weights is None else emphasized.apply(hidden, self.weights)
        return weighted.float().reshape(hidden.shape[0] // chunks, chunks * hidden.shape[1], hidden.shape[2])


def encode(
    encoders: Mapping[Part, torch.nn.Module], family: Family, request: TextRequest, device: torch.device
) -> Conditioning:
    """Return the conditioning of a request, float32 on `device`; differentiable when gradients are enabled.

    Which layer is read is what the WebUI reads: SD1 the clip_skip-th from the end, then the final norm; SD2 the last
    but one, then the final norm; SDXL the last but one of both encoders, no norm. clip_skip changes SD1 only.
    Raises ConfigError for a clip_skip the encoder has not, and when SDXL's sizes are not one per caption.
    """
    if family == "sdxl":
        return _encode_sdxl(encoders, request, device)
    encoder: Any = encoders["te"]
    run = _run(encoder, request, words.END if family == "sd1" else 0, device)
    hidden_states = run.output.hidden_states
    # The SD2 encoder is built without its last layer, so that its end is the layer to read.
    skip = request.clip_skip if family == "sd1" else 1
    if not 1 <= skip < len(hidden_states):
        raise ConfigError(
            f"clip_skip = {skip}: this text encoder has {len(hidden_states) - 1} layers. "
            f"Use 1 to {len(hidden_states) - 1}."
        )
    return Conditioning(run.states(encoder.text_model.final_layer_norm(hidden_states[-skip]), request.chunks))


def _encode_sdxl(encoders: Mapping[Part, torch.nn.Module], request: TextRequest, device: torch.device) -> Conditioning:
    if len(request.sizes) != len(request.captions):
        raise ConfigError(
            f"sizes: {len(request.sizes)} for {len(request.captions)} captions. SDXL needs one per caption."
        )
    first = _run(encoders["te1"], request, words.END, device)
    second = _run(encoders["te2"], request, 0, device)
    context = torch.cat([run.states(run.output.hidden_states[-2], request.chunks) for run in (first, second)], 2)
    # Of several chunks the first gives the pooled vector, as in the WebUI, which weights no token of it.
    model: Any = encoders["te2"]
    last = model.text_model.final_layer_norm(second.output.hidden_states[-1])
    pooled = last[torch.arange(len(second.ends), device=device), second.ends][:: request.chunks]
    pooled = model.text_projection(pooled).float()
    return Conditioning(context, torch.cat([pooled, embed_sizes(request.sizes).to(device)], 1))


def _run(encoder: Any, request: TextRequest, padding: int, device: torch.device) -> _Run:
    rows = [
        row for caption in request.captions for row in words.rows(caption, request.emphasis, request.chunks, padding)
    ]
    numbers = torch.tensor([ids for ids, _ in rows], device=device)
    ends = torch.tensor([ids.index(words.END) for ids, _ in rows], device=device)
    output = encoder.text_model(input_ids=numbers, output_hidden_states=True, return_dict=True)
    weights = torch.tensor([weights for _, weights in rows], device=device) if request.emphasis else None
    return _Run(output, ends, weights)


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
