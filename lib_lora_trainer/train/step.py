"""One optimizer step: losses of its images, gradients of all processes together, clipping, update."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext

import torch

from lib_lora_trainer.adapters import methods
from lib_lora_trainer.base.errors import NumericalError
from lib_lora_trainer.base.seeds import derive
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.dataset import order
from lib_lora_trainer.dataset.order import Step
from lib_lora_trainer.diffusion import noise, objective, schedule
from lib_lora_trainer.hosts.api import Conditioning, TextRequest
from lib_lora_trainer.train import average, batches, optim
from lib_lora_trainer.train.batches import Loaded
from lib_lora_trainer.train.run import Model, Run


def take(run: Run, step: Step) -> float:
    """Do one optimizer step and return its loss: the mean over all its images, however they were batched.

    Raises NumericalError, with the weights of the step before, when a loss or a gradient is not finite.
    """
    live, group = run.live, run.processes
    learning = trains_text(run, step)
    losses: list[torch.Tensor] = []
    names: list[str] = []
    for first_image, batch in order.mine(step, group.rank, group.count):
        # Addressed by image, so that several processes drop what one would.
        torch.manual_seed(derive(run.config.training.seed, "dropout", first_image))
        loaded = batches.load(batch, step, first_image, run.material, run.config)
        each = example_losses(run.model, run.config, loaded, learning) * loaded.weights.to(run.model.lease.device)
        loss = each.sum() / step.images
        live.scaler.scale(loss).backward()
        losses.append(loss.detach())
        names.append(", ".join(loaded.names))
    total = _total(run, losses)
    if not math.isfinite(total):
        live.optimizer.zero_grad(set_to_none=True)
        guilty = [name for name, loss in zip(names, losses, strict=True) if not torch.isfinite(loss)]
        raise NumericalError(
            f"step {step.number}: the loss is {total} on {'; '.join(guilty) or 'another process'}. The weights of the "
            "step before were kept. Lower the learning rate, or use bf16 or fp32 instead of fp16."
        )
    _update(run, step, learning)
    return total


def trains_text(run: Run, step: Step) -> bool:
    """Tell whether this step trains text encoders: the adapter has them, and their share of the run is not over."""
    share = step.first_image / run.length.images
    return any(layer.part != "unet" for layer in run.live.adapters) and share < run.config.training.text_encoder_until


def _total(run: Run, losses: list[torch.Tensor]) -> float:
    device = run.model.lease.device
    total = torch.stack(losses).sum() if losses else torch.zeros((), device=device)
    run.processes.sum([total])
    return float(total.item())


def _update(run: Run, step: Step, learning: bool) -> None:
    live = run.live
    trained = [
        parameter
        for layer, adapter in live.adapters.items()
        if learning or layer.part == "unet"
        for parameter in adapter.parameters()
        if parameter.requires_grad  # a rule may have given its layer the rate 0
    ]
    for parameter in trained:
        if parameter.grad is None:  # dropped module, or a process without a batch in this step
            parameter.grad = torch.zeros_like(parameter)
    run.processes.sum([parameter.grad for parameter in trained if parameter.grad is not None])
    live.scaler.unscale_(live.optimizer)
    largest = run.config.optimizer.gradient_clip or math.inf
    norm = torch.nn.utils.clip_grad_norm_(trained, largest)
    if not torch.isfinite(norm) and not live.scaler.is_enabled():  # with fp16 the scaler skips such a step
        live.optimizer.zero_grad(set_to_none=True)
        raise NumericalError(
            f"step {step.number}: a gradient is not finite. The weights of the step before were kept. "
            "Lower the learning rate, or use fp32."
        )
    live.scaler.step(live.optimizer)
    live.scaler.update()
    live.optimizer.zero_grad(set_to_none=True)
    if run.config.adapter.scale_weight_norms:
        for adapter in live.adapters.values():
            methods.limit_norm(adapter, run.config.adapter.scale_weight_norms)
    if live.averages is not None:
        average.update(live.averages, live.adapters, average.decay_at(step.number, run.config.training.ema))


def example_losses(model: Model, config: RunConfig, loaded: Loaded, learning: bool) -> torch.Tensor:
    """Return the loss of each example (B,) float32, differentiable in the attached adapters.

    learning: also in those of the text encoders. An example of a source with prior preservation is compared with what
    the model predicts without adapters.
    """
    lease = model.lease
    device, prediction = lease.device, lease.info.prediction
    seed, positions = config.training.seed, loaded.positions
    timesteps = noise.timesteps(len(model.alphas_cumprod), config.noise, seed, positions)
    drawn = noise.sample(loaded.latents, config.noise, seed, positions)
    alpha, sigma = schedule.alpha_sigma(model.alphas_cumprod, timesteps)
    noisy = schedule.add_noise(loaded.latents, drawn.input, alpha, sigma).to(device)
    wanted = objective.target(prediction, loaded.latents, drawn.target, alpha, sigma).to(device)
    if loaded.preserved.any():
        untouched = _untouched(model, config, loaded, noisy, timesteps)
        wanted = torch.where(loaded.preserved.to(device).view(-1, 1, 1, 1), untouched, wanted)
    predicted = lease.predict(noisy, timesteps.to(device), _encode(model, config, loaded, learning))
    return objective.example_losses(
        predicted,
        wanted,
        objective.At(timesteps.to(device), model.alphas_cumprod.to(device)),
        config.loss,
        prediction,
        None if loaded.masks is None else loaded.masks.to(device),
    )


@torch.no_grad()
def _untouched(
    model: Model, config: RunConfig, loaded: Loaded, noisy: torch.Tensor, timesteps: torch.Tensor
) -> torch.Tensor:
    """Return what the model predicts without adapters, in the UNet and in the text encoders."""
    with model.attachment.at_strength(0.0):
        text = _encode(model, config, loaded, learning=False)
        return model.lease.predict(noisy, timesteps.to(model.lease.device), text)


def _encode(model: Model, config: RunConfig, loaded: Loaded, learning: bool) -> Conditioning:
    lease = model.lease
    emphasis = config.data.caption.emphasis
    chunks = min(config.training.token_limit // 75, max(lease.count_chunks(loaded.captions, emphasis)))
    request = TextRequest(loaded.captions, config.training.clip_skip, chunks, loaded.sizes, emphasis)
    if model.texts is not None:
        return model.texts.encode(request, lease)
    with torch.set_grad_enabled(learning and torch.is_grad_enabled()):
        return lease.encode_text(request)


@contextmanager
def finished_weights(run: Run) -> Iterator[None]:
    """Have the adapters as they would be saved: without dropout, averaged where EMA or the optimizer averages.

    Afterwards everything is bit for bit as it was, so that saving and sampling change no later step.
    """
    adapters = run.live.adapters
    with ExitStack() as stack:
        for adapter in adapters.values():
            adapter.eval()
            stack.callback(adapter.train)
        averages = run.live.averages
        shown = nullcontext() if averages is None else average.shown(averages, adapters)
        stack.enter_context(optim.evaluated(run.live.optimizer) if averages is None else shown)
        yield
