"""The values that a Host, a Lease and training exchange."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image

from lib_lora_trainer.base.families import Family, Part, Prediction


@dataclass(frozen=True)
class ModelInfo:
    """The loaded model, as far as training and its report need to know.

    title: as the host shows it; name: file stem; sha256: of the checkpoint file, "" if not computed; text_encoders:
    the parts that can be adapted; latent_scale: factor from VAE output to latents; clip_skip: what the host is set to.
    zero_terminal_snr: the checkpoint was trained on a schedule that ends in pure noise.
    """

    host: str
    family: Family
    prediction: Prediction
    title: str
    name: str
    file: str
    sha256: str
    vae: str
    text_encoders: tuple[Part, ...]
    latent_scale: float
    clip_skip: int
    dtype: str
    device: str
    zero_terminal_snr: bool = False


@dataclass(frozen=True)
class Needs:
    """What the lease is for. compute_dtype: arithmetic of the frozen model (float32, float16 or bfloat16).

    fp8_base: the UNet's frozen weights are kept in 8 bits meanwhile; channels_last, compile: how the UNet computes;
    offload: VAE and text encoders leave the device while they are not needed.
    """

    compute_dtype: torch.dtype = torch.float32
    text_encoder_gradient: bool = False
    gradient_checkpointing: bool = False
    fp8_base: bool = False
    channels_last: bool = False
    compile: bool = False
    offload: bool = False


@dataclass(frozen=True)
class Posterior:
    """What the VAE makes of pictures. mean, std: (B, 4, H/8, W/8) float32 on the CPU, already scaled."""

    mean: torch.Tensor
    std: torch.Tensor


@dataclass(frozen=True)
class PictureSize:
    """SDXL's micro-conditioning, in pixels: (height, width) or (top, left)."""

    original: tuple[int, int]
    crop: tuple[int, int]
    target: tuple[int, int]


@dataclass(frozen=True)
class TextRequest:
    """Captions to encode, each padded to `chunks` chunks of 75 tokens; SDXL reads one size per caption.

    emphasis: (tag:1.2) and the like weight tokens as in the WebUI's prompts; else captions are plain text.
    """

    captions: tuple[str, ...]
    clip_skip: int
    chunks: int
    sizes: tuple[PictureSize, ...]
    emphasis: bool = False


@dataclass(frozen=True)
class Conditioning:
    """context: (B, 77·chunks, width); vector: (B, 2816) for SDXL, else None. float32, on the lease's device."""

    context: torch.Tensor
    vector: torch.Tensor | None = None


@dataclass(frozen=True)
class ImageRequest:
    """One image to generate with the host's own sampler; the prompt is read as the host reads prompts."""

    prompt: str
    negative: str = ""
    seed: int = 1
    steps: int = 20
    guidance: float = 7.0
    width: int = 512
    height: int = 512
    sampler: str = "Euler a"
    clip_skip: int = 1


@dataclass(frozen=True)
class MadeImage:
    """A generated image. infotext: the WebUI's parameter text, with which txt2img repeats it."""

    image: Image.Image
    infotext: str
    request: ImageRequest
