import re
from contextlib import nullcontext
from dataclasses import dataclass
from types import SimpleNamespace

import networks
import torch
from modules import devices, sd_hijack, sd_models, sd_samplers, shared
from modules.shared import cmd_opts, opts, state
from PIL import Image

_TAG = re.compile(r"<lora:([^:>]+):([^:>]+)>")


@dataclass
class StableDiffusionProcessing:
    sd_model: object = None
    prompt: str = ""
    negative_prompt: str = ""
    seed: int = -1
    steps: int = 50
    cfg_scale: float = 7.0
    width: int = 512
    height: int = 512
    sampler_name: str = None
    scheduler: str = None
    batch_size: int = 1
    n_iter: int = 1
    restore_faces: bool = None
    tiling: bool = None
    do_not_save_samples: bool = False
    do_not_save_grid: bool = False
    do_not_reload_embeddings: bool = False
    disable_extra_networks: bool = False

    cached_c = [None, None]  # noqa: RUF012
    cached_uc = [None, None]  # noqa: RUF012

    def __post_init__(self):
        self.cached_c, self.cached_uc = StableDiffusionProcessing.cached_c, StableDiffusionProcessing.cached_uc

    def conditioning(self, texts, cache, tags):
        model = sd_models.model_data.sd_model
        key = (tuple(texts), self.steps, opts.CLIP_stop_at_last_layers, model.sd_checkpoint_info, tags)
        if cache[0] != key:
            with devices.autocast():
                cache[:] = [key, model.get_learned_conditioning(texts)]
        return cache[1]

    def close(self):
        if not opts.persistent_cond_cache:
            StableDiffusionProcessing.cached_c, StableDiffusionProcessing.cached_uc = [None, None], [None, None]


class StableDiffusionProcessingTxt2Img(StableDiffusionProcessing):
    cached_hr_c = [None, None]  # noqa: RUF012
    cached_hr_uc = [None, None]  # noqa: RUF012


def process_images(p):
    sd_models.reload_model_weights()
    sd_models.apply_token_merging(p.sd_model, opts.token_merging_ratio)
    p.sampler_name, p.scheduler = sd_samplers.get_sampler_and_scheduler(p.sampler_name, p.scheduler)
    try:
        with torch.no_grad():
            return process_images_inner(p)
    finally:
        sd_models.apply_token_merging(p.sd_model, 0)


def process_images_inner(p):
    model = sd_models.model_data.sd_model
    sd_hijack.model_hijack.apply_circular(opts.tiling if p.tiling is None else p.tiling)
    if state.job_count == -1:
        state.job_count = p.n_iter
    prompt, tags = _TAG.sub("", p.prompt), tuple(_TAG.findall(p.prompt))
    infotext = f"{p.prompt}\nNegative prompt: {p.negative_prompt}\nSteps: {p.steps}, Sampler: {p.sampler_name}, "
    infotext += f"CFG scale: {p.cfg_scale}, Seed: {p.seed}, Size: {p.width}x{p.height}"
    if state.interrupted or state.stopping_generation:
        return SimpleNamespace(images=[], infotexts=[infotext])
    if not p.disable_extra_networks:
        networks.load_networks([name for name, _ in tags], *[[float(strength) for _, strength in tags]] * 2)
    negative = p.conditioning([p.negative_prompt], p.cached_uc, tags)
    positive = p.conditioning([prompt], p.cached_c, tags)
    if not cmd_opts.no_prompt_history:
        (shared.data_path / "params.txt").write_text(infotext, encoding="utf-8")
    model.alphas_cumprod = model.alphas_cumprod_original.clone()
    torch.manual_seed(p.seed)
    latents = torch.randn(1, 4, p.height // 8, p.width // 8)
    sigmas = ((1 - model.alphas_cumprod) / model.alphas_cumprod) ** 0.5
    times = torch.linspace(999, 0, p.steps).long()
    latents = latents * sigmas[999]
    state.sampling_steps = p.steps
    for number, time in enumerate(times):
        state.sampling_step = number
        if state.interrupted:
            break
        sigma = sigmas[time]
        scaled = (latents / (sigma**2 + 1) ** 0.5).repeat(2, 1, 1, 1)
        with nullcontext() if devices.unet_needs_upcast else devices.autocast():
            noise = model.apply_model(scaled, time.repeat(2), {"c_crossattn": [_pair(negative, positive)]})
        guided = noise[:1] + p.cfg_scale * (noise[1:] - noise[:1])
        following = sigmas[times[number + 1]] if number + 1 < p.steps else 0.0
        latents = latents + guided * (following - sigma)
        state.current_latent = latents
    decoded = model.decode_first_stage(latents)[0]
    state.nextjob()
    pixels = ((decoded + 1) / 2).clamp(0, 1).mul(255).to(torch.uint8).permute(1, 2, 0).numpy()
    return SimpleNamespace(images=[Image.fromarray(pixels)], infotexts=[infotext])


def _pair(first, second):
    length = max(first.shape[1], second.shape[1])
    return torch.cat([cond.repeat(1, length // cond.shape[1], 1) for cond in (first, second)])
