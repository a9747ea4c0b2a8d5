"""Exclusive use of a standalone model."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

import numpy as np
import torch
from PIL import Image

from lib_lora_trainer.adapters.targets import Target
from lib_lora_trainer.base.errors import ConfigError, HostRefusal, NumericalError, RunConflict
from lib_lora_trainer.hosts.api import (
    Conditioning,
    Idle,
    ImageRequest,
    MadeImage,
    ModelInfo,
    Needs,
    PictureSize,
    Posterior,
    TextRequest,
)
from lib_lora_trainer.hosts.blocks import BlockForwards
from lib_lora_trainer.hosts.channels_last import laid_out_channels_last
from lib_lora_trainer.hosts.float8 import kept_in_8_bits
from lib_lora_trainer.hosts.identity import digest
from lib_lora_trainer.hosts.offload import Offload
from lib_lora_trainer.hosts.standalone import conditioning, restore, sampling, schedule, words
from lib_lora_trainer.hosts.standalone.infotext import write_infotext
from lib_lora_trainer.hosts.standalone.weights import Modules

_BATCH = 8
_NETWORK_TAG = re.compile(r"<(?:lora|lyco|hypernet):[^<>]*>")


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint in memory. alphas_cumprod: (1000,) float64, of the training schedule."""

    info: ModelInfo
    modules: Modules
    targets: tuple[Target, ...]
    alphas_cumprod: torch.Tensor
    device: torch.device


class StandaloneLease:
    """The `Lease` of `StandaloneHost`: enter it with `with`; use it only inside."""

    def __init__(self, load: Callable[[], LoadedModel], needs: Needs, lock: threading.Lock) -> None:
        self._load = load
        self._needs = needs
        self._lock = lock
        self._stack: ExitStack | None = None
        self._model: LoadedModel | None = None
        self._identities: dict[str, str] = {}

    def __enter__(self) -> StandaloneLease:
        if not self._lock.acquire(blocking=False):
            raise HostRefusal("The model is in use by another run. Wait until it ends, or stop it.")
        with ExitStack() as stack:
            stack.callback(self._lock.release)
            model = self._load()
            networks = model.modules.all()
            trained = [module for _, module in model.modules.parts()]
            stack.enter_context(restore.kept_random_state())
            stack.enter_context(restore.kept_flags(networks))
            if self._needs.compute_dtype == torch.float32 or model.device.type == "cpu":
                # Also for autocast on the CPU, whose norms take no weights of another half precision.
                stack.enter_context(restore.in_dtype(trained, torch.float32))
            self._prepare(stack, model)
            stack.enter_context(restore.kept_attachments(networks))
            self._model = model
            self._stack = stack.pop_all()
        return self

    def _prepare(self, stack: ExitStack, model: LoadedModel) -> None:
        """Have the UNet's layers and the blocks compute as training needs it; the stack undoes it in reverse."""
        needs, modules = self._needs, model.modules
        if needs.fp8_base:
            stack.enter_context(kept_in_8_bits(modules.unet))
        if needs.channels_last:
            stack.enter_context(laid_out_channels_last(modules.unet))
        blocks = restore.unet_blocks(modules.unet)
        recomputed = list(blocks) if needs.gradient_checkpointing else []
        if recomputed and needs.text_encoder_gradient:
            recomputed += [block for encoder in modules.text.values() for block in restore.text_blocks(encoder)]
        self._blocks = stack.enter_context(BlockForwards(recomputed, blocks if needs.compile else []))
        parts: dict[Idle, Sequence[torch.nn.Module]] = {"vae": (modules.vae,), "text": tuple(modules.text.values())}
        self._offload = stack.enter_context(Offload(parts, needs.offload and model.device.type == "cuda"))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stack is not None:
            stack, self._stack = self._stack, None
            stack.__exit__(kind, error, trace)

    @property
    def _open(self) -> LoadedModel:
        return self._check()

    def _check(self) -> LoadedModel:
        if self._model is None or self._stack is None:
            raise RunConflict("The lease of the model has ended or not begun. Use it inside its `with` block.")
        return self._model

    @property
    def info(self) -> ModelInfo:
        """What is loaded."""
        return self._open.info

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self._open.device

    @property
    def alphas_cumprod(self) -> torch.Tensor:
        """Products of 1 - beta up to each timestep: (1000,) float32 on the CPU."""
        return self._open.alphas_cumprod.float()

    def targets(self) -> Sequence[Target]:
        """Return every Linear, Conv2d and norm of the UNet and the text encoders with its module, in model order."""
        return self._open.targets

    def identity(self, part: Literal["vae", "text"]) -> str:
        """Return a digest of the VAE's or all text encoders' weights; computed once."""
        modules = self._open.modules
        if part not in self._identities:
            self._identities[part] = digest([modules.vae] if part == "vae" else modules.text.values())
        return self._identities[part]

    def idle(self, *parts: Idle) -> None:
        """Say which parts are not needed until the next call. With `offload` they leave the GPU until they are used.

        Images need all of them; afterwards the idle ones leave again.
        """
        self._check()
        self._offload.idle(*parts)

    @torch.no_grad()
    def encode_images(self, pixels: torch.Tensor) -> Posterior:
        """Encode pixels (B, 3, H, W) float32 in [-1, 1], H and W multiples of 8; always in float32.

        Raises NumericalError on NaN, ConfigError for pixels of another shape.
        """
        if pixels.ndim != 4 or pixels.shape[1] != 3 or pixels.shape[2] % 8 or pixels.shape[3] % 8:
            raise ConfigError(f"pixels: shape {list(pixels.shape)}; (B, 3, H, W) with multiples of 8 is needed.")
        model = self._open
        self._offload.use("vae")
        with torch.autocast(model.device.type, enabled=False):
            posterior = model.modules.vae.encode(pixels.to(model.device, torch.float32)).latent_dist
        mean, std = (value.float().cpu() * model.info.latent_scale for value in (posterior.mean, posterior.std))
        if not (torch.isfinite(mean).all() and torch.isfinite(std).all()):
            raise NumericalError("The VAE's latents are not finite. The picture, or the checkpoint's VAE, is damaged.")
        return Posterior(mean, std)

    def count_chunks(self, captions: Sequence[str], emphasis: bool = False) -> tuple[int, ...]:
        """Return how many 75-token chunks each caption takes, at least 1."""
        return tuple(words.count_chunks(caption, emphasis) for caption in captions)

    def encode_text(self, request: TextRequest) -> Conditioning:
        """Encode captions; differentiable when gradients are enabled. Longer ones are cut at 75·chunks tokens."""
        model = self._open
        self._offload.use("text")
        with self._arithmetic():
            return conditioning.encode(model.modules.text, model.info.family, request, model.device)

    def predict(self, latents: torch.Tensor, timesteps: torch.Tensor, text: Conditioning) -> torch.Tensor:
        """Return the UNet's output (B, 4, h, w) float32 for noisy latents (B, 4, h, w) and timesteps (B,) int64."""
        model = self._open
        self._blocks.look()
        latents = latents.to(model.device, torch.float32)
        if self._needs.channels_last:
            latents = latents.contiguous(memory_format=torch.channels_last)
        with self._arithmetic():
            output: torch.Tensor = model.modules.unet(
                latents,
                timesteps.to(model.device),
                encoder_hidden_states=text.context.to(model.device, torch.float32),
                class_labels=None if text.vector is None else text.vector.to(model.device, torch.float32),
                return_dict=False,
            )[0]
        return output.float()

    def generate(
        self, requests: Sequence[ImageRequest], go_on: Callable[[], bool] = lambda: True
    ) -> Iterator[MadeImage]:
        """Make images while `go_on` says so, in the order of the requests, neighbours of equal size and sampler together.

        Of prompts' syntax emphasis and BREAK are read; network tags such as `<lora:name:1>` are left out.
        Raises ConfigError, before anything is made, for a request that cannot be met.
        """
        for request in requests:
            sampling.check_request(request)
        return self._generate(requests, go_on)

    def _generate(self, requests: Sequence[ImageRequest], go_on: Callable[[], bool]) -> Iterator[MadeImage]:
        for batch in _batches(requests):
            # Nothing stays switched between two images: whoever iterates may train in the meantime.
            try:
                images = self._make(batch, go_on)
            except sampling.Unwanted:
                return
            for image, request in zip(images, batch, strict=True):
                yield MadeImage(image, write_infotext(request, self._open.info), request)

    @torch.no_grad()
    def _make(self, batch: Sequence[ImageRequest], go_on: Callable[[], bool]) -> list[Image.Image]:
        model = self._open
        with restore.kept_random_state(), self._offload.lent("vae", "text"), self._blocks.suspended():
            wanted = self._texts([request.prompt for request in batch], batch)
            unwanted = self._texts([request.negative for request in batch], batch)
            guidance = torch.tensor([request.guidance for request in batch], device=model.device).view(-1, 1, 1, 1)

            def predict(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
                if not go_on():
                    raise sampling.Unwanted
                times = timestep.expand(len(latents))
                if (guidance == 1).all():
                    return self.predict(latents, times, wanted)
                with_prompt, without = self._predict_both(latents, times, wanted, unwanted)
                return without + guidance * (with_prompt - without)

            betas = schedule.sampling_betas(model.alphas_cumprod, model.info.zero_terminal_snr)
            scheduler = sampling.make_scheduler(batch[0].sampler, betas, model.info.prediction)
            latents = sampling.sample(batch, scheduler, predict, model.device)
            # One at a time: at full size the decoder needs more memory than the UNet.
            return [self.decode(latent) for latent in latents]

    def _texts(self, texts: Sequence[str], batch: Sequence[ImageRequest]) -> Conditioning:
        captions = tuple(map(plain, texts))
        chunks = max(self.count_chunks(captions, emphasis=True))
        size = (batch[0].height, batch[0].width)
        sizes = (PictureSize(size, (0, 0), size),) * len(batch)
        return self.encode_text(TextRequest(captions, batch[0].clip_skip, chunks, sizes, emphasis=True))

    def _predict_both(
        self, latents: torch.Tensor, times: torch.Tensor, wanted: Conditioning, unwanted: Conditioning
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if wanted.context.shape != unwanted.context.shape:
            return self.predict(latents, times, wanted), self.predict(latents, times, unwanted)
        vector = None
        if wanted.vector is not None and unwanted.vector is not None:
            vector = torch.cat([wanted.vector, unwanted.vector])
        both = Conditioning(torch.cat([wanted.context, unwanted.context]), vector)
        first, second = self.predict(torch.cat([latents, latents]), torch.cat([times, times]), both).chunk(2)
        return first, second

    @torch.no_grad()
    def decode(self, latent: torch.Tensor) -> Image.Image:
        """Return the picture of one latent (4, H/8, W/8), already scaled. Raises NumericalError on NaN."""
        model = self._open
        self._offload.use("vae")
        with torch.autocast(model.device.type, enabled=False):
            pixels = model.modules.vae.decode(latent[None] / model.info.latent_scale).sample[0]
        if not torch.isfinite(pixels).all():
            raise NumericalError("The image is not finite. Lower the learning rate or the adapter's strength.")
        levels = (pixels.clamp(-1, 1) + 1).mul(127.5).round().byte().permute(1, 2, 0).cpu().numpy()
        return Image.fromarray(np.ascontiguousarray(levels))

    def _arithmetic(self) -> torch.autocast:
        dtype = self._needs.compute_dtype
        half = dtype != torch.float32
        return torch.autocast(self._open.device.type, dtype if half else None, enabled=half)


def plain(prompt: str) -> str:
    """Return a prompt without its tags of extra networks."""
    return _NETWORK_TAG.sub("", prompt).strip()


def _batches(requests: Sequence[ImageRequest]) -> Iterator[list[ImageRequest]]:
    """Yield neighbours that can be made together: equal in everything but prompt text, seed and guidance."""
    batch: list[ImageRequest] = []
    for request in requests:
        if batch and (len(batch) == _BATCH or _shape(batch[0]) != _shape(request)):
            yield batch
            batch = []
        batch.append(request)
    if batch:
        yield batch


def _shape(request: ImageRequest) -> tuple[object, ...]:
    texts = (words.count_chunks(plain(text), emphasis=True) for text in (request.prompt, request.negative))
    return request.width, request.height, request.steps, request.sampler, request.clip_skip, *texts
