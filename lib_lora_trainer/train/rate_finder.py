"""The learning-rate finder: one short run in which the learning rate rises until the loss does.

The range test of Smith 2017 (arXiv:1506.01186), with one change for diffusion models: a step's own loss depends on its
timesteps and noise far more than on what was learned, so after each step the loss is taken on the same few pictures
with the same noise and timesteps. The curve is then the adapter's doing alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import NumericalError
from lib_lora_trainer.base.events import Event, Finished, RateFound, RateTried
from lib_lora_trainer.dataset import order
from lib_lora_trainer.train import batches, optim
from lib_lora_trainer.train.run import Run
from lib_lora_trainer.train.step import example_losses, take

LOWEST, HIGHEST = 1e-6, 1.0
STEPS = 80
PROBED = 4  # batches whose loss is taken
SMOOTHING = 0.6
DIVERGED = 1.5  # the search ends when the loss is this many times the one before the first step
FALL = 0.02  # a smaller fall of the loss, as a share, is none


@dataclass(frozen=True)
class Point:
    """One try. loss: on the probed batches after a step at this rate; average: smoothed."""

    rate: float
    loss: float
    average: float


def rate_at(step: int, steps: int) -> float:
    """Return the learning rate of a step, counted from 0: from LOWEST to HIGHEST in equal factors."""
    return LOWEST * (HIGHEST / LOWEST) ** (step / max(1, steps - 1))


def find(run: Run, control: Control) -> Iterator[Event]:
    """Try learning rates and report each; the last event but one is RateFound. The run's weights are spent by it.

    The rate tried is the faster part's, as its setting states it; the other part, LoRA+'s factors and rules keep their
    proportions to it, so the curve is for the settings as they are.
    """
    probes = _probes(run)
    upcoming = batches.steps(run.material, run.config)
    start = _loss(run, probes)
    points: list[Point] = []
    for number in range(STEPS):
        if control.wish != "go":
            break
        rate = rate_at(number, STEPS)
        step = next(upcoming, None)
        if step is None:  # a small dataset: its pictures again, in the order of the next epochs
            upcoming = batches.steps(run.material, run.config)
            step = next(upcoming)
        optim.set_rates(run.live.optimizer, rate / _stated(run))
        try:
            take(run, step)
            loss = _loss(run, probes)
        except NumericalError:
            break
        average = loss if not points else SMOOTHING * points[-1].average + (1 - SMOOTHING) * loss
        points.append(Point(rate, loss, average))
        yield RateTried(number + 1, STEPS, rate, loss, average)
        if not math.isfinite(loss) or average > DIVERGED * start:
            break
    yield read(points, start)
    yield Finished("done" if control.wish == "go" else "stopped", len(points), (), 0.0)


def read(points: Sequence[Point], start: float) -> RateFound:
    """Return the suggestion for a curve: a third of the rate at its lowest point.

    start: the loss before the first step. The range is from the first rate at which a tenth of the fall is reached to
    the lowest point. A third, because the rate is held for a whole run, not for one step.
    """
    finite = [point for point in points if math.isfinite(point.average)]
    if not finite or start - min(point.average for point in finite) < FALL * start:
        return RateFound(
            0.0, 0.0, 0.0,
            "The loss did not fall at any learning rate. Check that the captions and pictures are the right ones, or "
            "search with more pictures.",
        )  # fmt: skip
    lowest = min(range(len(finite)), key=lambda index: finite[index].average)
    fall = start - finite[lowest].average
    first = next(index for index, point in enumerate(finite) if start - point.average >= 0.1 * fall)
    suggested = max(finite[first].rate, finite[lowest].rate / 3)
    text = (
        f"The loss begins to fall at {finite[first].rate:.1e} and is lowest at {finite[lowest].rate:.1e}; beyond that "
        "it rises. A third of the latter is a good start for a whole run."
    )
    return RateFound(suggested, finite[first].rate, finite[lowest].rate, text)


def _stated(run: Run) -> float:
    """Return the larger learning rate in the settings of the parts that are trained."""
    rates = {"unet": run.config.optimizer.unet_learning_rate, "text": run.config.optimizer.text_learning_rate}
    parts = {"unet" if layer.part == "unet" else "text" for layer in run.live.adapters}
    return max(rates[part] for part in parts) or 1.0


def _probes(run: Run) -> list[batches.Loaded]:
    found: list[batches.Loaded] = []
    for step in batches.steps(run.material, run.config):
        for first_image, batch in order.mine(step, 0, 1):
            found.append(batches.load(batch, step, first_image, run.material, run.config))
            if len(found) == PROBED:
                return found
    return found


@torch.no_grad()
def _loss(run: Run, probes: Sequence[batches.Loaded]) -> float:
    for adapter in run.live.adapters.values():
        adapter.eval()
    try:
        losses = torch.cat([example_losses(run.model, run.config, probe, learning=False) for probe in probes])
    finally:
        for adapter in run.live.adapters.values():
            adapter.train()
    return float(losses.mean().item())
