"""The lease: exclusive use of the model that the WebUI has loaded, which is afterwards bit for bit what it was."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Literal

import torch
from modules import call_queue, devices, sd_models, shared

from lib_lora_trainer.adapters.targets import Target
from lib_lora_trainer.base.errors import HostRefusal, RunConflict
from lib_lora_trainer.hosts import compiled, float8, identity
from lib_lora_trainer.hosts.api import Conditioning, Idle, ImageRequest, MadeImage, Needs, Posterior, TextRequest
from lib_lora_trainer.hosts.blocks import BlockForwards
from lib_lora_trainer.hosts.channels_last import laid_out_channels_last
from lib_lora_trainer.hosts.offload import Offload
from lib_lora_trainer.hosts.webui import pictures, restoring, samples, text
from lib_lora_trainer.hosts.webui.forwards import TrainingAttention, text_blocks, unet_blocks
from lib_lora_trainer.hosts.webui.loaded import Loaded, examine, kept_in_8_bits, schedule

logger = logging.getLogger(__name__)

JOB = "lora-trainer"
_TAKEN = threading.Lock()


def check_needs(loaded: Loaded, needs: Needs) -> None:
    """Raise HostRefusal when the loaded model cannot be computed with as `needs` says."""
    title, dtype, device = loaded.info.title, needs.compute_dtype, devices.device
    if kept_in_8_bits(loaded) and not needs.fp8_base:
        raise HostRefusal(
            f"{title} is kept in 8 bits (Settings, Optimizations, FP8 weight). Set FP8 weight to Disable and apply, or "
            'switch on "8-bit base model" to train on these weights as they are.'
        )
    if dtype is torch.float32:
        halves = [p for part in (loaded.unet, *loaded.wrappers) for p in part.parameters() if p.dtype != torch.float32]
        if halves:
            raise HostRefusal(
                f"{title} is loaded in half precision, which float32 arithmetic cannot use. Choose bf16 or fp16, or "
                "start the WebUI with --no-half."
            )
    elif dtype is torch.float16 and device.type == "cpu":
        raise HostRefusal("fp16 arithmetic needs a GPU. Choose bf16 or fp32.")
    elif dtype is torch.bfloat16 and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise HostRefusal(f"{torch.cuda.get_device_name(device)} has no bf16 arithmetic. Choose fp16.")
    elif device.type not in ("cpu", "cuda"):
        raise HostRefusal(f"Mixed precision is not available on {device.type}. Choose fp32, and start with --no-half.")
    if needs.fp8_base and float8.reason_against():
        raise HostRefusal(f'{float8.reason_against()}. Switch "8-bit base model" off, or update torch.')
    if needs.compile:
        compiled.check(device, needs.fp8_base)


class WebuiLease:
    """Exclusive use of the loaded model, from entering to leaving.

    Entering waits for the WebUI's queue, whose lock is not reentrant: enter in a thread of your own, never in a
    callback of the WebUI. `generate` leaves out an image during which the user pressed Interrupt; each MadeImage names
    its request.
    """

    def __init__(self, loaded: Loaded, needs: Needs) -> None:
        self.info = loaded.info
        self.device = devices.device
        self.alphas_cumprod = schedule(loaded.model)
        self._loaded = loaded
        self._needs = needs
        self._file = loaded.model.sd_model_checkpoint
        self._identities: dict[str, str] = {}
        self._stack: ExitStack | None = None

    def __enter__(self) -> WebuiLease:
        with ExitStack() as stack:
            stack.enter_context(only_lease())
            stack.enter_context(call_queue.queue_lock)
            stack.enter_context(restoring.job_shown(JOB))
            self._check_switch()
            # Settings applied while this waited may have replaced the text encoders' wrappers or the VAE.
            self._loaded = examine()
            self.info = self._loaded.info
            check_needs(self._loaded, self._needs)
            model = self._loaded.model
            stack.enter_context(restoring.random_state_kept())
            stack.enter_context(restoring.attributes_kept(devices, "dtype_unet", "dtype_vae", "nv_rng"))
            stack.enter_context(restoring.attributes_kept(model, "alphas_cumprod"))
            restoring.take_out_networks(model)
            stack.enter_context(restoring.without_hypernetworks())
            stack.enter_context(restoring.without_tricks(model))
            stack.enter_context(restoring.placed(model))
            stack.enter_context(restoring.frozen(model))
            stack.enter_context(restoring.forwards_kept(model))
            self.device = next(self._loaded.unet.parameters()).device
            self._prepare(stack)
            self._stack = stack.pop_all()
        return self

    def _prepare(self, stack: ExitStack) -> None:
        """Have the model's layers and blocks compute as training needs it; the stack undoes it in reverse."""
        loaded, needs = self._loaded, self._needs
        if needs.fp8_base:
            if kept_in_8_bits(loaded):
                logger.info("%s is in 8 bits already (FP8 weight); it is trained on as it is", self.info.title)
            stack.enter_context(float8.kept_in_8_bits(loaded.unet))
        if needs.channels_last:
            stack.enter_context(laid_out_channels_last(loaded.unet))
        self._layered = stack.enter_context(loaded.layered())
        self._attention = stack.enter_context(TrainingAttention(loaded.unet, bool(shared.opts.upcast_attn)))
        blocks = unet_blocks(loaded.unet)
        recomputed = list(blocks) if needs.gradient_checkpointing else []
        if recomputed and needs.text_encoder_gradient:
            recomputed += [block for wrapper in loaded.wrappers for block in text_blocks(wrapper)]
        # ldm's `forward` hands `_forward` and all parameters to a function of its own, which torch 2.1 cannot trace.
        self._blocks = stack.enter_context(BlockForwards(recomputed, blocks if needs.compile else [], "_forward"))
        parts: dict[Idle, Sequence[torch.nn.Module]] = {"vae": (loaded.vae,), "text": loaded.wrappers}
        movable = needs.offload and self.device.type == "cuda"
        self._offload = stack.enter_context(Offload(parts, movable, self._layered.refresh))

    def __exit__(self, *_: object) -> None:
        if self._stack is not None:
            stack, self._stack = self._stack, None
            stack.close()

    def targets(self) -> Sequence[Target]:
        """Return every Linear, Conv2d and norm that can be adapted, with its module, in the model's order."""
        self._check()
        return tuple(self._loaded.targets(self._layered))

    def identity(self, part: Literal["vae", "text"]) -> str:
        """Return a digest of the VAE's or all text encoders' weights; computed once."""
        self._check()
        if part not in self._identities:
            self._identities[part] = identity.digest([self._loaded.vae] if part == "vae" else self._loaded.wrappers)
        return self._identities[part]

    def idle(self, *parts: Idle) -> None:
        """Say which parts are not needed until the next call. With `offload` they leave the GPU until they are used.

        Images need all of them; afterwards the idle ones leave again.
        """
        self._check()
        self._offload.idle(*parts)

    def encode_images(self, pixels: torch.Tensor) -> Posterior:
        """Encode pixels (B, 3, H, W) in [-1, 1], each picture by itself. Raises NumericalError on NaN."""
        self._check()
        self._offload.use("vae")
        return pictures.encode(self._loaded, pixels, self.device)

    def count_chunks(self, captions: Sequence[str], emphasis: bool = False) -> tuple[int, ...]:
        """Return how many 75-token chunks each caption takes, at least 1."""
        return text.count_chunks(self._loaded, captions, emphasis)

    def encode_text(self, request: TextRequest) -> Conditioning:
        """Encode captions; differentiable when gradients are enabled. Longer ones are cut at 75·chunks tokens."""
        self._check()
        self._offload.use("text")
        with self._arithmetic():
            return text.encode(self._loaded, request, self.device)

    def predict(self, latents: torch.Tensor, timesteps: torch.Tensor, text: Conditioning) -> torch.Tensor:
        """Return the UNet's output (B, 4, h, w) float32.

        The UNet is called directly: the WebUI's `apply_model` opens its own fp16 autocast inside ours and changes the
        conditioning in place. Its `timestep_embedding` returns `devices.dtype_unet`.
        """
        self._check()
        self._blocks.look()
        vector = {} if text.vector is None else {"y": text.vector.to(self.device)}
        latents = latents.to(self.device)
        if self._needs.channels_last:
            latents = latents.contiguous(memory_format=torch.channels_last)
        with restoring.attributes_kept(devices, dtype_unet=torch.float32), self._arithmetic():
            output: torch.Tensor = self._loaded.unet(
                latents, timesteps.to(self.device), context=text.context.to(self.device), **vector
            )
        return output.float()

    def generate(
        self, requests: Sequence[ImageRequest], go_on: Callable[[], bool] = lambda: True
    ) -> Iterator[MadeImage]:
        """Make images with the model as it is now, adapters included, while `go_on` says so; random state is kept."""
        for request in requests:
            samples.check_sampler(request.sampler)
        for request in requests:
            if not go_on():
                return
            self._check()
            with self._offload.lent("vae", "text"):
                try:
                    with self._attention.suspended(), self._blocks.suspended():
                        made = samples.generate(self._loaded, request, go_on)
                finally:
                    restoring.place(self._loaded.model)
                    self._layered.refresh()
            self._check()
            if made is not None:
                yield made

    def _arithmetic(self) -> AbstractContextManager[object]:
        dtype = self._needs.compute_dtype
        if dtype is torch.float32:
            return torch.autocast(self.device.type, enabled=False)
        return torch.autocast(self.device.type, dtype=dtype)

    def _check(self) -> None:
        if self._stack is None:
            raise RunConflict("The lease on the model has not begun or is over. Take a new one.")
        self._check_switch()
        weight = next(self._loaded.unet.parameters())
        if weight.is_meta or weight.device != self.device:
            raise RunConflict(
                f"{self.info.title} was moved from {self.device} to {weight.device} while it was in training (the "
                "API's unload-checkpoint does that without waiting). Load it again and resume."
            )

    def _check_switch(self) -> None:
        model = sd_models.model_data.sd_model
        if model is not self._loaded.model or model.sd_model_checkpoint != self._file:
            now = "no checkpoint" if model is None else model.sd_checkpoint_info.title
            raise RunConflict(
                f"The WebUI has changed from {self.info.title} to {now} in the meantime. Choose {self.info.title} "
                "again, then start or resume."
            )


@contextmanager
def only_lease() -> Iterator[None]:
    """Hold the loaded model for one run. Raises HostRefusal while another has it."""
    # The queue's lock would make a second lease wait for the end of the first run, in the same thread for ever.
    if not _TAKEN.acquire(blocking=False):
        raise HostRefusal("The loaded checkpoint is in training already. Wait for the end of that run, or stop it.")
    try:
        yield
    finally:
        _TAKEN.release()
