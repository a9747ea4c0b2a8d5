"""The plan: what a run will do, decided before anything starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lib_lora_trainer.adapters.targets import Layer, choose
from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.dataset.buckets import Placement, place
from lib_lora_trainer.dataset.items import Concept, Scan
from lib_lora_trainer.dataset.order import batches_per_epoch, epoch_batches
from lib_lora_trainer.hosts.api import ModelInfo
from lib_lora_trainer.plan import checks
from lib_lora_trainer.plan.estimate import Estimate, Formats, estimate


@dataclass(frozen=True)
class Plan:
    """Everything decided about a run, and every problem found.

    images: seen over the whole run; seconds: None when the device's speed is not known yet.
    """

    config: RunConfig
    info: ModelInfo
    precision: str
    scan: Scan
    placements: tuple[Placement, ...]
    layers: tuple[Layer, ...]
    concepts: tuple[Concept, ...]
    buckets: dict[tuple[int, int], int]
    images: int
    steps: int
    epochs: int
    saves: int
    estimate: Estimate
    seconds: float | None
    problems: tuple[Problem, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that forbid the start."""
        return tuple(problem for problem in self.problems if problem.severity == "error")


@dataclass(frozen=True)
class Machine:
    """What the plan may know of the machine. flops: per second at the run's precision; outputs: where files go."""

    flops: float | None
    outputs: Path


def make(info: ModelInfo, layers: Sequence[Layer], config: RunConfig, scan: Scan, machine: Machine) -> Plan:
    """Return the plan of a run. Never raises for the user's mistakes: they are in its `problems`."""
    usable = not checks.settings(config)
    placements = tuple(place(item.width, item.height, config.data) for item in scan.items) if usable else ()
    images, steps, epochs = _length(placements, scan, config) if placements else (0, 0, config.training.epochs)
    unmatched = checks.unmatched(layers, config)
    chosen = () if unmatched else choose(layers, config.adapter)
    precision = resolve_precision(config.training.precision, info)
    figures = estimate(layers, chosen, config, Formats(precision, info.dtype))
    saves = _saves(config, steps, epochs)
    needed = saves * figures.file_bytes + 6 * figures.parameters * 4  # files, and two versions of the state
    problems = (*checks.check(info, config, scan, images), *unmatched, *checks.disk(machine.outputs, needed))
    return Plan(
        config=config,
        info=info,
        precision=precision,
        scan=scan,
        placements=placements,
        layers=chosen,
        concepts=scan.concepts,
        buckets=dict(sorted(Counter((p.bucket.width, p.bucket.height) for p in placements).items())),
        images=images,
        steps=steps,
        epochs=epochs,
        saves=saves,
        estimate=figures,
        seconds=steps * figures.flops_per_step / machine.flops if machine.flops else None,
        problems=problems,
    )


def resolve_precision(wanted: str, info: ModelInfo) -> str:
    """Return fp32, fp16 or bf16 for a setting that may be `auto`: what the loaded weights are in, on a GPU."""
    if wanted != "auto":
        return wanted
    if info.device == "cpu":
        return "fp32"
    return {"bfloat16": "bf16", "float16": "fp16"}.get(info.dtype, "fp16")


def _length(placements: Sequence[Placement], scan: Scan, config: RunConfig) -> tuple[int, int, int]:
    training = config.training
    repeats = [item.repeats for item in scan.items]

    def batch_sizes(epoch: int) -> list[int]:
        batches = epoch_batches(placements, repeats, config.data, training.batch_size, training.seed, epoch)
        return [len(batch.examples) for batch in batches]

    per_epoch = -(-batches_per_epoch(placements, repeats, training.batch_size) // training.accumulation)
    steps = training.epochs * per_epoch
    if not training.max_steps or training.max_steps >= steps:
        return training.epochs * sum(repeats), steps, training.epochs
    whole, rest = divmod(training.max_steps, per_epoch)
    tail = batch_sizes(whole + 1)[: rest * training.accumulation]
    return whole * sum(repeats) + sum(tail), training.max_steps, whole + (rest > 0)


def _saves(config: RunConfig, steps: int, epochs: int) -> int:
    by_epoch = epochs // config.save.every_epochs if config.save.every_epochs else 0
    by_step = steps // config.save.every_steps if config.save.every_steps else 0
    return by_epoch + by_step + 1
