"""The training loop."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lib_lora_trainer.adapters.attach import Attachment
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import NumericalError
from lib_lora_trainer.base.events import Event, Finished, Progress, Saved
from lib_lora_trainer.base.seeds import derive
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.diffusion import objective, schedule
from lib_lora_trainer.hosts.api import Lease, TextRequest
from lib_lora_trainer.train import batches, lr, optim, state
from lib_lora_trainer.train.batches import Loaded, Material, Step
from lib_lora_trainer.train.state import Live, Position

SMOOTHING = 0.98  # of the exponential loss average
RECENT = 20  # steps over which the speed is averaged


@dataclass(frozen=True)
class Length:
    """How long the run is. images: over all epochs, cut at the step limit."""

    images: int
    steps: int
    epochs: int


@dataclass(frozen=True)
class Run:
    """Everything settled before the first step.

    save_adapter(position, label) writes an adapter file and yields what it did; make_samples(position) sample images.
    """

    config: RunConfig
    lease: Lease
    material: Material
    attachment: Attachment
    live: Live
    length: Length
    state_file: Path
    belongs_to: str
    save_adapter: Callable[[Position, str], Iterator[Saved]]
    make_samples: Callable[[Position], Iterator[Event]]


def train(run: Run, position: Position, control: Control) -> Iterator[Event]:
    """Train from `position` to the end, or until `control` says otherwise, and report each step.

    Every draw is addressed by the image's place in the run, so a resumed run repeats the uninterrupted one bit for bit.
    Raises NumericalError when a loss is not finite; the weights are then those of the last good step. On any
    exception what was learned so far is written before it is passed on.
    """
    before, began = position.seconds, time.monotonic()
    recent: deque[float] = deque(maxlen=RECENT)
    repeats = [item.repeats for item in run.material.items]
    try:
        if position.step == 0 and run.config.samples.at_start:
            yield from run.make_samples(position)
        for step in batches.steps(run.material.placements, repeats, run.config):
            if step.number <= position.step:
                continue
            if control.wish != "go":
                break
            clock = time.monotonic()
            rates = optim.set_rates(run.live.optimizer, lr.factor(run.config.optimizer, _middle(step, run.length)))
            loss = _step(run, step)
            position = _advanced(position, step, loss, before + time.monotonic() - began)
            recent.append(time.monotonic() - clock)
            yield _progress(run, position, loss, rates, sum(recent) / len(recent))
            for event in _due(run, step, position):
                position = replace(position, files=_with(position.files, event))
                yield event
        yield from _finish(run, position, control)
    except Exception:
        # GeneratorExit passes by: a generator that is being closed must not yield, and a close keeps the last state.
        _rescue(run, position)
        raise


def _middle(step: Step, length: Length) -> float:
    return (step.first_image + step.images / 2) / length.images


def _step(run: Run, step: Step) -> float:
    """Do one optimizer step and return its loss: the mean over all its images, however they were batched."""
    torch.manual_seed(derive(run.config.training.seed, "dropout", step.number))
    live, total, first_image = run.live, 0.0, step.first_image
    for batch in step.batches:
        loaded = batches.load(batch, first_image, run.material, run.config)
        share = len(batch.examples) / step.images
        loss = example_losses(run.lease, loaded, run.config).mean() * share
        if not torch.isfinite(loss):
            live.optimizer.zero_grad(set_to_none=True)
            names = ", ".join(run.material.items[example.item].path.name for example in batch.examples)
            raise NumericalError(
                f"step {step.number}: the loss is {loss.item()} on {names}. The weights of the step before were kept. "
                "Lower the learning rate, or use bf16 or fp32 instead of fp16."
            )
        live.scaler.scale(loss).backward()
        total += loss.item()
        first_image += len(batch.examples)
    live.scaler.unscale_(live.optimizer)
    largest = run.config.optimizer.gradient_clip or math.inf
    norm = torch.nn.utils.clip_grad_norm_(optim.parameters(live.optimizer), largest)
    if not torch.isfinite(norm) and not live.scaler.is_enabled():  # with fp16 the scaler skips such a step
        live.optimizer.zero_grad(set_to_none=True)
        raise NumericalError(
            f"step {step.number}: a gradient is not finite. The weights of the step before were kept. "
            "Lower the learning rate, or use fp32."
        )
    live.scaler.step(live.optimizer)
    live.scaler.update()
    live.optimizer.zero_grad(set_to_none=True)
    return total


def example_losses(lease: Lease, loaded: Loaded, config: RunConfig) -> torch.Tensor:
    """Return the loss of each example (B,) float32, differentiable in the attached adapters."""
    device = lease.device
    alpha, sigma = schedule.alpha_sigma(lease.alphas_cumprod, loaded.timesteps)
    noisy = schedule.add_noise(loaded.latents, loaded.noise, alpha, sigma)
    wanted = objective.target(lease.info.prediction, loaded.latents, loaded.noise, alpha, sigma)
    chunks = min(config.training.token_limit // 75, max(lease.count_chunks(loaded.captions)))
    request = TextRequest(loaded.captions, config.training.clip_skip, chunks, loaded.sizes)
    with torch.set_grad_enabled(config.adapter.text_encoder):
        text = lease.encode_text(request)
    predicted = lease.predict(noisy.to(device), loaded.timesteps.to(device), text)
    return objective.squared_error(predicted, wanted.to(device))


def _advanced(position: Position, step: Step, loss: float, seconds: float) -> Position:
    average = loss if position.step == 0 else SMOOTHING * position.loss_average + (1 - SMOOTHING) * loss
    return Position(step.number, step.first_image + step.images, step.epoch, average, seconds, position.files)


def _progress(run: Run, position: Position, loss: float, rates: dict[str, float], seconds_per_step: float) -> Progress:
    return Progress(
        images_seen=position.images_seen,
        total_images=run.length.images,
        step=position.step,
        total_steps=run.length.steps,
        epoch=position.epoch,
        epochs=run.length.epochs,
        loss=loss,
        loss_average=position.loss_average,
        learning_rates=rates,
        seconds_per_step=seconds_per_step,
        eta_seconds=seconds_per_step * (run.length.steps - position.step),
    )


def _due(run: Run, step: Step, position: Position) -> Iterator[Event]:
    """Write and show what falls due after this step; the last step's adapter and state are `_finish`'s."""
    last = step.number == run.length.steps
    save, samples = run.config.save, run.config.samples
    at_epoch = step.last_of_epoch and _divides(samples.every_epochs, step.epoch)
    if at_epoch or _divides(samples.every_steps, step.number):
        yield from run.make_samples(position)  # before the save, whose preview is one of them
    if not last and step.last_of_epoch and _divides(save.every_epochs, step.epoch):
        for event in run.save_adapter(position, f"{step.epoch:06d}"):
            position = replace(position, files=_with(position.files, event))
            yield event
    if not last and _divides(save.every_steps, step.number):
        for event in run.save_adapter(position, f"step{step.number:08d}"):
            position = replace(position, files=_with(position.files, event))
            yield event
    if not last and _divides(save.state_every_steps, step.number):
        yield _save_state(run, position)


def _divides(every: int, number: int) -> bool:
    return every > 0 and number % every == 0


def _with(files: tuple[str, ...], event: Event) -> tuple[str, ...]:
    if isinstance(event, Saved) and event.kind == "adapter" and event.path not in files:
        return (*files, event.path)
    return files


def _save_state(run: Run, position: Position) -> Saved:
    state.save(run.state_file, run.live, position, run.belongs_to)
    return Saved(str(run.state_file), "state", position.step, position.epoch)


def _finish(run: Run, position: Position, control: Control) -> Iterator[Event]:
    done = position.step == run.length.steps
    if done or control.wish == "stop":
        for event in run.save_adapter(position, "" if done else f"step{position.step:08d}"):
            position = replace(position, files=_with(position.files, event))
            yield event
    yield _save_state(run, position)
    reason: Any = "done" if done else "stopped" if control.wish == "stop" else "paused"
    yield Finished(reason, position.step, position.files, position.seconds)


def _rescue(run: Run, position: Position) -> None:
    if position.step > 0 and all(torch.isfinite(p).all() for p in optim.parameters(run.live.optimizer)):
        for event in run.save_adapter(position, f"step{position.step:08d}"):
            position = replace(position, files=_with(position.files, event))
        _save_state(run, position)
