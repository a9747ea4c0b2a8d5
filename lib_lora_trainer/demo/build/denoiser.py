"""Trains the toy UNet (SD1.x topology, 6.9 M parameters) together with the text encoder on cached latents."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn
from transformers import CLIPTextModel

from lib_lora_trainer.demo import world
from lib_lora_trainer.demo.build import pictures, text
from lib_lora_trainer.demo.build.autoencoder import load_autoencoder, to_model

logger = logging.getLogger(__name__)

SEED = 13
FIGURES = 8000
FIRST_PICTURE = 2_000_000
STEPS = 3300
BATCH = 32
WORKERS = 2
UNET_RATE = 1e-3
TEXT_RATE = 2e-4
DECAY_FROM = 0.65
"""Part of the training after which the rate falls linearly to zero."""
EMA_DECAY = 0.996
SNR_LIMIT = 5.0
NOISE_OFFSET = 0.1
"""Deviation of a constant added per channel: at 16 x 16 the noisiest step still shows the picture's mean, which
sampling from plain noise would otherwise take for a gray background."""
SAVE_EVERY = 200


@dataclass(frozen=True)
class Latents:
    """Cached posteriors of all pictures, (N, 4, 16, 16) float32 unscaled, and 1 / their standard deviation."""

    mean: Tensor
    deviation: Tensor
    scale_factor: float


def alphas_cumprod() -> Tensor:
    """Return Stable Diffusion's cumulative alphas, (1000,) float32: scaled-linear betas from 0.00085 to 0.012."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


def make_unet() -> UNet2DConditionModel:
    """Return an untrained UNet: model_channels 32, channel_mult 1 2 3 4, attention at 1, 2, 4, 4 heads, context 64."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        block_out_channels=(32, 64, 96, 128),
        layers_per_block=2,
        cross_attention_dim=64,
        attention_head_dim=4,
        norm_num_groups=32,
    )


@torch.no_grad()
def cache_latents(work: Path) -> Latents:
    """Return the latents of the UNet's training pictures, encoding them once into ``latents.pt``."""
    path = work / "latents.pt"
    if not path.exists():
        figures = pictures.known_figures(FIGURES, SEED)
        array = pictures.cached_pictures(work / "known_pictures.npy", figures, FIRST_PICTURE)
        model = load_autoencoder(work)
        means, deviations = [], []
        for start in range(0, len(array), 50):
            posterior = model.encode(to_model(array[start : start + 50])).latent_dist
            means.append(posterior.mean)
            deviations.append(posterior.std)
            if start % 1000 == 0:
                logger.info("encoded %d of %d pictures", start, len(array))
        mean, deviation = torch.cat(means), torch.cat(deviations)
        factor = 1.0 / float((mean.var() + deviation.square().mean()).sqrt())
        torch.save({"mean": mean, "deviation": deviation, "scale_factor": factor}, path)
        logger.info("scale_factor %.5f, posterior deviation %.4f", factor, float(deviation.mean()))
    saved = torch.load(path)
    return Latents(saved["mean"], saved["deviation"], saved["scale_factor"])


def train_denoiser(work: Path) -> None:
    """Train UNet and text encoder and write ``unet.pt`` with their averaged weights; about 40 minutes on two cores.

    Noise prediction. Two processes of one thread each share every batch: so small a network gains
    little from a second thread. Resumes from ``unet_state.pt``; returns at once if ``unet.pt`` is there.
    """
    if (work / "unet.pt").exists():
        return
    cache_latents(work)
    (work / "meeting").unlink(missing_ok=True)
    spawn(_train_part, (work,), WORKERS)


def _train_part(rank: int, work: Path) -> None:
    logging.basicConfig(level=logging.INFO if rank == 0 else logging.WARNING, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{work / 'meeting'}", rank=rank, world_size=WORKERS)
    torch.manual_seed(SEED)
    latents = cache_latents(work)
    named = [world.tags(figure) for figure in pictures.known_figures(FIGURES, SEED)]
    numbers = text.tag_tokens(text.load_tokenizer(work))
    unet, encoder = make_unet(), text.load_text_encoder(work)
    unet.set_attn_processor(attend)
    encoder.text_model.embeddings.token_embedding.requires_grad_(False)
    model = nn.ModuleDict({"unet": unet, "text": encoder})
    trained = {part: [weight for weight in model[part].parameters() if weight.requires_grad] for part in model}
    weights = [*trained["unet"], *trained["text"]]
    optimizer = torch.optim.AdamW(
        [{"params": trained["unet"], "peak": UNET_RATE}, {"params": trained["text"], "peak": TEXT_RATE}],
        lr=UNET_RATE,
        betas=(0.9, 0.99),
        weight_decay=1e-3,
    )
    averages = {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}
    first = _resume(work, model, optimizer, averages)
    started, running = time.monotonic(), 0.0
    for step in range(first, STEPS):
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * min((step + 1) / 200, 1.0, (STEPS - step) / (STEPS * (1 - DECAY_FROM)))
        torch.manual_seed(SEED * 1_000_003 + step * WORKERS + rank)
        chosen = torch.randint(0, len(named), (BATCH // WORKERS,))
        rng = Random(f"{SEED} {step} {rank}")
        captions = [text.make_caption(named[index], numbers, rng) for index in chosen.tolist()]
        loss = _loss(model, latents, chosen, captions)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        _share_gradients(weights)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        _average(model, averages, step)
        running += 0.02 * (loss.item() - running) if step > first else loss.item()
        if step % 50 == 0:
            logger.info("unet step %d loss %.4f, %.0f s", step, running, time.monotonic() - started)
        if rank == 0 and (step + 1) % SAVE_EVERY == 0:
            _save(work, model, optimizer, averages, step + 1)
    if rank == 0:
        torch.save(averaged_weights(model, averages), work / "unet.pt")
    distributed.destroy_process_group()


def _share_gradients(weights: list[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients]) / WORKERS
    distributed.all_reduce(flat)
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()


def attend(
    attention: Attention,
    hidden_states: Tensor,
    encoder_hidden_states: Tensor | None = None,
    attention_mask: None = None,
) -> Tensor:
    """Attend with two plain products; at head widths of 8 to 24 twice as fast on a CPU as the fused kernel.

    hidden_states: (N, places, channels); encoder_hidden_states: (N, tokens, context) or None for self-attention;
    attention_mask: diffusers hands it over, it must be None.
    """
    if attention_mask is not None:
        raise ValueError("attention masks are not supported")
    context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
    number, places, channels = hidden_states.shape[0], hidden_states.shape[1], attention.inner_dim
    width = channels // attention.heads

    def split(part: Tensor) -> Tensor:
        return part.reshape(number, -1, attention.heads, width).transpose(1, 2).reshape(-1, part.shape[1], width)

    query = split(attention.to_q(hidden_states) * attention.scale)
    key, value = split(attention.to_k(context)), split(attention.to_v(context))
    # Autocast would move the softmax to fp32, which costs more time here than it brings.
    with torch.autocast("cpu", enabled=False):
        mixed = torch.bmm(torch.bmm(query, key.transpose(1, 2)).softmax(-1), value)
    joined = mixed.reshape(number, attention.heads, places, width).transpose(1, 2).reshape(number, places, channels)
    result: Tensor = attention.to_out[0](joined)
    return result


def _loss(model: nn.ModuleDict, latents: Latents, chosen: Tensor, captions: list[text.Caption]) -> Tensor:
    mean, deviation = latents.mean[chosen], latents.deviation[chosen]
    clean = (mean + deviation * torch.randn_like(mean)) * latents.scale_factor
    noise = torch.randn_like(clean) + NOISE_OFFSET * torch.randn(len(clean), 4, 1, 1)
    timesteps = torch.randint(0, 1000, (len(captions),))
    timesteps[::2] = torch.randint(800, 1000, (len(timesteps[::2]),))
    signal = alphas_cumprod()[timesteps].view(-1, 1, 1, 1)
    noisy = signal.sqrt() * clean + (1 - signal).sqrt() * noise
    with torch.autocast("cpu", torch.bfloat16):
        context = model["text"](torch.tensor([caption.tokens for caption in captions])).last_hidden_state
        predicted = model["unet"](noisy, timesteps, context).sample
    snr = signal / (1 - signal)
    # A background is a color of the whole picture and settled in the noisiest steps, where a wrong one costs next to
    # nothing in noise prediction; half of the timesteps and the second factor go there. The first factor is min-SNR
    # (arXiv 2303.09556).
    weight = (SNR_LIMIT / snr).clamp(max=1.0) * snr.rsqrt().clamp(1.0, 10.0)
    return (weight * (predicted.float() - noise).square()).mean()


@torch.no_grad()
def _average(model: nn.ModuleDict, averages: dict[str, Tensor], step: int) -> None:
    decay = min(EMA_DECAY, (1 + step) / (10 + step))
    weights = dict(model.named_parameters())
    torch._foreach_lerp_(list(averages.values()), [weights[name] for name in averages], 1 - decay)


def averaged_weights(model: nn.ModuleDict, averages: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state of ``model`` with the averaged weights in place of the latest ones."""
    return {**model.state_dict(), **averages}


def _save(
    work: Path, model: nn.ModuleDict, optimizer: torch.optim.Optimizer, averages: dict[str, Tensor], step: int
) -> None:
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "averages": averages, "step": step}
    torch.save(state, work / "unet_state.tmp")
    (work / "unet_state.tmp").replace(work / "unet_state.pt")


def _resume(work: Path, model: nn.ModuleDict, optimizer: torch.optim.Optimizer, averages: dict[str, Tensor]) -> int:
    """Load ``unet_state.pt`` into the arguments if it is there; return the number of steps already done."""
    if not (work / "unet_state.pt").exists():
        return 0
    state = torch.load(work / "unet_state.pt")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    for name, average in state["averages"].items():
        averages[name].copy_(average)
    return int(state["step"])


def load_denoiser(work: Path) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """Return UNet and text encoder with averaged weights; those of the last saved state while training goes on."""
    model = nn.ModuleDict({"unet": make_unet(), "text": text.make_text_encoder()})
    if (work / "unet.pt").exists():
        model.load_state_dict(torch.load(work / "unet.pt"))
    else:
        state = torch.load(work / "unet_state.pt")
        model.load_state_dict({**state["model"], **state["averages"]})
    model.eval().requires_grad_(requires_grad=False)
    return model["unet"], model["text"]
