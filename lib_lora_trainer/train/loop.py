"""The training loop."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.events import Event, Finished, Progress, Saved
from lib_lora_trainer.dataset.order import Step
from lib_lora_trainer.train import batches, lr, optim, state
from lib_lora_trainer.train.run import Run
from lib_lora_trainer.train.state import Position
from lib_lora_trainer.train.step import finished_weights, take, trains_text

SMOOTHING = 0.98  # of the exponential loss average
RECENT = 20  # steps over which the speed is averaged


def train(run: Run, position: Position, control: Control) -> Iterator[Event]:
    """Train from `position` to the end, or until `control` says otherwise, and report each step.

    Every draw is addressed by the image's place in the run, so a resumed run repeats the uninterrupted one bit for bit.
    Raises NumericalError when a loss is not finite; the weights are then those of the last good step. On any
    exception what was learned so far is written before it is passed on.
    """
    before, began = position.seconds, time.monotonic()
    recent: deque[float] = deque(maxlen=RECENT)
    try:
        if position.step == 0 and run.config.samples.at_start:
            yield from _samples(run, position)
        for step in batches.steps(run.material, run.config, run.processes.count):
            if step.number <= position.step:
                continue
            wish = run.processes.agree(control.wish)
            if wish != "go":
                break
            clock = time.monotonic()
            _set_rates(run, step)
            loss = take(run, step)
            position = _advanced(position, step, loss, before + time.monotonic() - began)
            recent.append(time.monotonic() - clock)
            yield _progress(run, position, loss, sum(recent) / len(recent))
            for event in _due(run, step, position):
                position = replace(position, files=_with(position.files, event))
                yield event
            position = replace(position, files=kept(run, position.files))
        yield from _finish(run, position, run.processes.agree(control.wish))
    except Exception:
        # GeneratorExit passes by: a generator that is being closed must not yield, and a close keeps the last state.
        _rescue(run, position)
        raise


def _set_rates(run: Run, step: Step) -> None:
    middle = (step.first_image + step.images / 2) / run.length.images
    factor = lr.factor(run.config.optimizer, middle, run.length.steps)
    optim.set_rates(run.live.optimizer, factor, 1.0 if trains_text(run, step) else 0.0)


def _advanced(position: Position, step: Step, loss: float, seconds: float) -> Position:
    average = loss if position.step == 0 else SMOOTHING * position.loss_average + (1 - SMOOTHING) * loss
    return Position(step.number, step.first_image + step.images, step.epoch, average, seconds, position.files)


def _progress(run: Run, position: Position, loss: float, seconds_per_step: float) -> Progress:
    return Progress(
        images_seen=position.images_seen,
        total_images=run.length.images,
        step=position.step,
        total_steps=run.length.steps,
        epoch=position.epoch,
        epochs=run.length.epochs,
        loss=loss,
        loss_average=position.loss_average,
        learning_rates=optim.effective_rates(run.live.optimizer),
        seconds_per_step=seconds_per_step,
        eta_seconds=seconds_per_step * (run.length.steps - position.step),
    )


def _due(run: Run, step: Step, position: Position) -> Iterator[Event]:
    """Write and show what falls due after this step; the last step's adapter and state are `_finish`'s."""
    last = step.number == run.length.steps
    save, samples = run.config.save, run.config.samples
    at_epoch = step.last_of_epoch and _divides(samples.every_epochs, step.epoch)
    if at_epoch or _divides(samples.every_steps, step.number):
        yield from _samples(run, position)  # before the save, whose preview is one of them
    if not last and step.last_of_epoch and _divides(save.every_epochs, step.epoch):
        for event in _saves(run, position, f"{step.epoch:06d}"):
            position = replace(position, files=_with(position.files, event))
            yield event
    if not last and _divides(save.every_steps, step.number):
        for event in _saves(run, position, f"step{step.number:08d}"):
            position = replace(position, files=_with(position.files, event))
            yield event
    if not last and _divides(save.state_every_steps, step.number):
        position = replace(position, files=kept(run, position.files))
        yield from _states(run, position)


def _divides(every: int, number: int) -> bool:
    return every > 0 and number % every == 0


def _samples(run: Run, position: Position) -> Iterator[Event]:
    if run.main:
        with finished_weights(run):
            yield from run.outputs.make_samples(position)
    run.processes.wait()


def _saves(run: Run, position: Position, label: str) -> Iterator[Saved]:
    if run.main:
        with finished_weights(run):
            yield from run.outputs.save_adapter(position, label)


def kept(run: Run, files: tuple[str, ...]) -> tuple[str, ...]:
    """Return the files that `save.keep_last` keeps, newest last; the others are removed."""
    limit = run.config.save.keep_last
    if not limit or len(files) <= limit:
        return files
    for path in files[:-limit]:
        run.outputs.discard(path)
    return files[-limit:]


def _with(files: tuple[str, ...], event: Event) -> tuple[str, ...]:
    if isinstance(event, Saved) and event.kind == "adapter" and event.path not in files:
        return (*files, event.path)
    return files


def _states(run: Run, position: Position) -> Iterator[Saved]:
    if run.main:
        state.save(run.outputs.state_file, run.live, position, run.outputs.belongs_to)
        yield Saved(str(run.outputs.state_file), "state", position.step, position.epoch)
    run.processes.wait()


def _finish(run: Run, position: Position, wish: str) -> Iterator[Event]:
    done = position.step == run.length.steps
    if done or wish == "stop":
        for event in _saves(run, position, "" if done else f"step{position.step:08d}"):
            position = replace(position, files=_with(position.files, event))
            yield event
    yield from _states(run, position)
    reason: Any = "done" if done else "stopped" if wish == "stop" else "paused"
    yield Finished(reason, position.step, position.files, position.seconds)


def _rescue(run: Run, position: Position) -> None:
    good = all(torch.isfinite(p).all() for p in optim.parameters(run.live.optimizer))
    if run.main and position.step > 0 and good:
        with finished_weights(run):
            for event in run.outputs.save_adapter(position, f"step{position.step:08d}"):
                position = replace(position, files=_with(position.files, event))
        state.save(run.outputs.state_file, run.live, position, run.outputs.belongs_to)
