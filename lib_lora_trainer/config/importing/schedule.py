"""The learning-rate schedule: lr_scheduler, its warm-up, cycles and arguments."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType

from lib_lora_trainer.config.importing import values
from lib_lora_trainer.config.importing.outcomes import Argument, Arguments, Leave, Outcome, Put, Silent, attempt, one

_NAMES = MappingProxyType({
    "constant": "constant",
    "constant_with_warmup": "constant",
    "linear": "linear",
    "cosine": "cosine",
    "cosine_with_restarts": "cosine-restarts",
    "cosine_with_min_lr": "cosine",
    "polynomial": "polynomial",
})  # fmt: skip
_NEAREST = MappingProxyType({
    "adafactor": ("constant", "Adafactor with relative_step sets its learning rate itself, which needs no schedule."),
    "inverse_sqrt": ("constant", "There is no 1/√t schedule here; constant is set, linear or cosine are near."),
    "warmup_stable_decay": ("constant", "There is no decay after a constant time here; constant is set."),
    "piecewise_constant": ("constant", "There are no steps here; constant is set."),
})  # fmt: skip
_CLASSES = MappingProxyType({
    "loraeasycustomoptimizer.cosineannealingwarmrestarts.cosineannealingwarmrestarts": "annealed-cosine",
    "loraeasycustomoptimizer.rexannealingwarmrestarts.rexannealingwarmrestarts": "rex",
})  # fmt: skip
_PREFIX = "lr_scheduler_args."
_ALL = frozenset({
    "lr_scheduler", "lr_scheduler_type", "lr_scheduler_num_cycles", "lr_scheduler_power", "lr_scheduler_timescale",
    "lr_scheduler_min_lr_ratio", "lr_warmup_steps", "lr_decay_steps", "warmup_ratio",
})  # fmt: skip
_USED = ("min_lr", "gamma", "d", "warmup_steps", "first_cycle_max_steps", "cycle_multiplier")


def translate(arguments: Arguments) -> Iterator[Outcome]:
    """Yield what becomes of the schedule. Sources: `get_scheduler_fix` of sd-scripts, LoRA_Easy's two own schedules."""
    if str(arguments.get("optimizer_type", Argument("", "")).value).lower().endswith("schedulefree"):
        yield Put("", "optimizer.schedule", "constant")  # there they get a schedule that does nothing
        idle = [name for name in arguments if name in _ALL or name.startswith("lr_scheduler_args")]
        yield from (Silent(arguments[name].key) for name in idle)
        return
    kind = arguments.get("lr_scheduler_type", Argument("", ""))
    chosen = _CLASSES.get(str(kind.value).strip().lower(), "")
    if chosen:
        yield from _annealed(arguments, kind, chosen)
    else:
        yield from _named(arguments)
        if not values.is_empty(kind.value):
            text = "Schedules by class are not offered here; the one of lr_scheduler is taken."
            yield Leave(kind.key, kind.value, text)
        elif kind.key:
            yield Silent(kind.key)
        for name, argument in arguments.items():
            if name.startswith(_PREFIX):
                yield Leave(argument.key, argument.value, "Schedules have no free arguments here.")
    for name, text in (
        ("lr_decay_steps", "There is no decay after a constant time here."),
        ("lr_scheduler_timescale", "There is no 1/√t schedule here."),
    ):
        useless = arguments.get(name)
        if useless is not None:
            yield Silent(useless.key) if values.is_off(useless.value) else Leave(useless.key, useless.value, text)
    if "lr_scheduler_args" in arguments:
        yield Silent(arguments["lr_scheduler_args"].key)


def _named(arguments: Arguments) -> Iterator[Outcome]:
    name = arguments.get("lr_scheduler", Argument("", "constant"))
    word = str(name.value or "constant").strip().lower()
    if word in _NEAREST:
        nearest, text = _NEAREST[word]
        yield Put("", "optimizer.schedule", nearest)
        yield Leave(name.key, name.value, text)
    elif word in _NAMES:
        yield Put(name.key, "optimizer.schedule", _NAMES[word])
    else:
        yield Put("", "optimizer.schedule", "constant")
        yield Leave(
            name.key, name.value, "This schedule is not known here; constant is set. Choose optimizer.schedule."
        )
    yield from _applying(arguments, "lr_scheduler_num_cycles", word == "cosine_with_restarts", "optimizer.cycles")
    yield from _applying(arguments, "lr_scheduler_power", word == "polynomial", "optimizer.power")
    yield from _applying(arguments, "lr_scheduler_min_lr_ratio", word == "cosine_with_min_lr", "optimizer.minimum")
    for warmup in ("lr_warmup_steps", "warmup_ratio"):
        yield from one(arguments, warmup, "optimizer.warmup", values.number)


def _applying(arguments: Arguments, name: str, applies: bool, setting: str) -> Iterator[Outcome]:
    """Yield an argument that other schedules than its own ignore."""
    argument = arguments.get(name)
    if argument is None:
        return
    if values.is_empty(argument.value) or not applies:
        yield Silent(argument.key)
    else:
        yield attempt(argument, setting, values.whole if setting == "optimizer.cycles" else values.number)


def _annealed(arguments: Arguments, kind: Argument, chosen: str) -> Iterator[Outcome]:
    """Yield LoRA_Easy's schedules with restarts: each cycle warms up, and begins at gamma times the one before."""
    yield Put(kind.key, "optimizer.schedule", chosen)
    if "lr_scheduler" in arguments:
        yield Silent(arguments["lr_scheduler"].key)
    cycles = arguments.get("lr_scheduler_num_cycles", Argument("", 1))
    given = {name: arguments[_PREFIX + name] for name in _USED if _PREFIX + name in arguments}
    lowest = given.get("min_lr", Argument("", 1e-6))
    common = arguments.get("learning_rate", Argument("", 0.0))
    try:
        ratio = values.number(lowest.value) / (values.number(common.value) or 1.0)
        yield Put(lowest.key, "optimizer.minimum", min(float(f"{ratio:.6g}"), 1.0))
    except ValueError as error:
        yield Leave(lowest.key, lowest.value, f"{error}.")
    if chosen == "annealed-cosine":
        yield from one(arguments, "lr_scheduler_num_cycles", "optimizer.cycles", values.whole)
        if "gamma" in given:
            yield attempt(given["gamma"], "optimizer.cycle_decay", values.number)
        yield from one(arguments, "warmup_ratio", "optimizer.cycle_warmup", values.number, 0.0)
    else:
        yield from one(arguments, "warmup_ratio", "optimizer.warmup", values.number)
        yield from _rex(cycles, given, kind)
    for name in ("warmup_steps", "first_cycle_max_steps", "cycle_multiplier"):
        if name in given:
            text = "The length of cycles follows from optimizer.cycles here."
            yield Leave(given[name].key, given[name].value, text)


def _rex(cycles: Argument, given: dict[str, Argument], kind: Argument) -> Iterator[Outcome]:
    if cycles.key:
        once = values.is_empty(cycles.value) or str(cycles.value) == "1"
        text = "rex has no restarts here; it runs once. annealed-cosine has them."
        yield Silent(cycles.key) if once else Leave(cycles.key, cycles.value, text)
    if "gamma" in given:
        yield Silent(given["gamma"].key)  # what a cycle begins at, and there is one
    shape = given.get("d", Argument(kind.key, 0.9))
    if str(shape.value).strip() not in ("0.5", ".5"):
        text = f"rex has its paper's shape here, d = 0.5; with d = {shape.value} the fall comes later."
        yield Leave(shape.key, shape.value, text)
    elif shape.key:
        yield Silent(shape.key)
