"""The plan: what a run will do, decided before anything starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lib_lora_trainer.adapters import existing, loaders, methods, rules
from lib_lora_trainer.adapters.targets import Assignment, Layer, assign
from lib_lora_trainer.base.errors import ConfigError, DataError, Problem
from lib_lora_trainer.config.loss import NoiseConfig
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.dataset import order
from lib_lora_trainer.dataset.items import Concept, Scan
from lib_lora_trainer.dataset.views import View, histogram, views
from lib_lora_trainer.diffusion import combinations
from lib_lora_trainer.hosts.api import ModelInfo
from lib_lora_trainer.plan import checks
from lib_lora_trainer.plan.estimate import Estimate, Formats, estimate


@dataclass(frozen=True)
class Plan:
    """Everything decided about a run, and every problem found.

    views: the pictures at their training sizes; assignments: what each adapted layer gets, empty when the run goes on
    from a file; counts: trained values by layer, in the model's order; images: seen over the whole run; seconds: None
    when the device's speed is not known yet.
    """

    config: RunConfig
    info: ModelInfo
    precision: str
    scan: Scan
    views: tuple[View, ...]
    assignments: Mapping[Layer, Assignment]
    counts: Mapping[Layer, int]
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
    def layers(self) -> tuple[Layer, ...]:
        """The adapted layers in the model's order."""
        return tuple(self.counts)

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that forbid the start."""
        return tuple(problem for problem in self.problems if problem.severity == "error")


def _nothing(_rates: frozenset[float]) -> tuple[Problem, ...]:
    return ()


@dataclass(frozen=True)
class Machine:
    """What the plan may know of the machine. flops: per second at the run's precision; outputs: where files go.

    processes: that train together. judge: returns what is not installed or not possible here, given the factors of the
    learning rate that rules give to layers.
    """

    flops: float | None
    outputs: Path
    processes: int = 1
    judge: Callable[[frozenset[float]], tuple[Problem, ...]] = _nothing


@dataclass(frozen=True)
class _Chosen:
    assignments: Mapping[Layer, Assignment]
    counts: Mapping[Layer, int]
    problems: tuple[Problem, ...] = ()


def make(info: ModelInfo, layers: Sequence[Layer], config: RunConfig, scan: Scan, machine: Machine) -> Plan:
    """Return the plan of a run. Never raises for the user's mistakes: they are in its `problems`."""
    usable = not checks.settings(config)
    shown = views(scan, config.data) if usable else ()
    length = order.length(shown, config, machine.processes)
    chosen = _choose(layers, config, info) if usable else _Chosen({}, {})
    precision = resolve_precision(config.training.precision, info)
    formats = Formats(precision, info.dtype, info.device)
    figures = estimate(layers, chosen.counts, config, formats) if usable else Estimate(0, 0, 0.0, 0)
    parts = {layer.part for layer in chosen.counts} or None
    saves = _saves(config, length.steps, length.epochs)
    needed = saves * figures.file_bytes + 6 * figures.parameters * 4  # files, and two versions of the state
    problems = (
        *checks.check(info, config, scan, length.images, length.steps, parts),
        *(_others(info, config) if usable else ()),
        *chosen.problems,
        *machine.judge(frozenset(each.rate for each in chosen.assignments.values())),
        *checks.disk(machine.outputs, needed),
    )
    return Plan(
        config=config,
        info=info,
        precision=precision,
        scan=scan,
        views=shown,
        assignments=chosen.assignments,
        counts=chosen.counts,
        concepts=scan.concepts,
        buckets=histogram(shown),
        images=length.images,
        steps=length.steps,
        epochs=length.epochs,
        saves=saves,
        estimate=figures,
        seconds=length.steps * figures.flops_per_step / machine.flops if machine.flops else None,
        problems=tuple(dict.fromkeys(problems)),
    )


def _choose(layers: Sequence[Layer], config: RunConfig, info: ModelInfo) -> _Chosen:
    """Return which layers are adapted, and how: those the settings ask for, or those of the file to go on from."""
    adapter = config.adapter
    if adapter.start_from:
        try:
            return _Chosen({}, existing.layers_in(Path(adapter.start_from), layers, info.family))
        except DataError as error:
            text = str(error).removeprefix(f"{adapter.start_from}: ")
            return _Chosen({}, {}, (Problem("error", "adapter.start_from", text),))
    found = rules.problems(adapter, info.family)
    if any(problem.severity == "error" for problem in found):
        return _Chosen({}, {}, tuple(found))
    try:
        assigned = assign(layers, adapter, info.family)
    except ConfigError as error:
        return _Chosen({}, {}, (*found, Problem("error", "adapter", str(error).removeprefix("adapter: "))))
    able = {layer: each for layer, each in assigned.items() if methods.supports(layer, each.method)}
    counts = {layer: methods.parameter_count(layer, each, adapter) for layer, each in able.items()}
    idle = rules.idle(layers, adapter, info.family)
    lost = [each for layer, each in assigned.items() if layer not in able]
    return _Chosen(able, counts, (*found, *idle, *_left_out(lost)))


def _left_out(lost: Sequence[Assignment]) -> tuple[Problem, ...]:
    return tuple(
        Problem(
            "warning",
            "adapter.method",
            f"{count} of the chosen layers cannot be adapted by {method} and are left out.",
            "Choose adapter.layers = linear, or another method.",
        )
        for method, count in Counter(each.method for each in lost).items()
    )


def _others(info: ModelInfo, config: RunConfig) -> tuple[Problem, ...]:
    return (
        *methods.problems(config.adapter),
        *loaders.problems(info.host, info.family, config.adapter),
        *combinations.problems(config.loss, settled_noise(config.noise, info), info.prediction),
    )


def settled_noise(noise: NoiseConfig, info: ModelInfo) -> NoiseConfig:
    """Return the noise settings with `zero_terminal_snr` as it is for this model: `on` or `off`."""
    if noise.zero_terminal_snr != "auto":
        return noise
    return replace(noise, zero_terminal_snr="on" if info.zero_terminal_snr else "off")


def resolve_precision(wanted: str, info: ModelInfo) -> str:
    """Return fp32, fp16 or bf16 for a setting that may be `auto`: what the loaded weights are in, on a GPU."""
    if wanted != "auto":
        return wanted
    if info.device == "cpu":
        return "fp32"
    return {"bfloat16": "bf16", "float16": "fp16"}.get(info.dtype, "fp16")


def _saves(config: RunConfig, steps: int, epochs: int) -> int:
    save = config.save
    by_epoch = epochs // save.every_epochs if save.every_epochs else 0
    by_step = steps // save.every_steps if save.every_steps else 0
    kept = min(by_epoch + by_step, save.keep_last) if save.keep_last else by_epoch + by_step
    # dylora: a file for each rank below the full one.
    by_rank = config.adapter.rank // config.adapter.dylora_unit - 1 if config.adapter.method == "dylora" else 0
    return kept + 1 + by_rank
