"""One image of a grid as values, and what each value of an axis makes of it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib_lora_trainer.base.errors import ConfigError, Problem, ProblemsFound
from lib_lora_trainer.evaluate.grid import KINDS, LOADED, NONE, Axis, GridConfig

# In this order, whatever the order of the axes: an epoch is looked for among the saves of the axis's adapter.
_FIRST = ("checkpoint", "vae", "adapter", "epoch", "step", "second", "weight")
_OF_HOST = ("checkpoint", "vae")
_SPOKEN = ("adapter", "blocks", "second", "sampler", "size", "prompt")
_SAVE = re.compile(r"-(?:[0-9]{6}|step[0-9]{8})$")
_SIZE = re.compile(r"([0-9]+)\s*[x×X]\s*([0-9]+)")


@dataclass(frozen=True)
class Worn:
    """An adapter in force. unet, text: weights; blocks: block weights, "" for none.

    chosen: blocks that have the weight `value` instead; "" for none.
    """

    file: str
    unet: float = 1.0
    text: float = 1.0
    blocks: str = ""
    chosen: str = ""
    value: float = 0.0


@dataclass(frozen=True)
class Scene:
    """Everything that one image is made from. checkpoint, vae: "" for what the host has; hires: 1 for no second pass."""

    prompt: str
    negative: str
    seed: int
    steps: int
    guidance: float
    width: int
    height: int
    sampler: str
    scheduler: str
    clip_skip: int
    checkpoint: str
    vae: str
    hires: float
    hires_upscaler: str
    hires_steps: int
    hires_denoising: float
    adapter: Worn | None
    second: Worn | None

    @property
    def worn(self) -> tuple[Worn, ...]:
        """The adapters in force."""
        return tuple(worn for worn in (self.adapter, self.second) if worn is not None)


def base(config: GridConfig) -> Scene:
    """Return the image that the settings describe without any axis, with the first seed."""
    text = config.weight if config.text_weight is None else config.text_weight
    adapter = Worn(config.adapter, config.weight, text, config.blocks.strip()) if config.adapter else None
    second = Worn(config.second, config.second_weight, config.second_weight) if config.second else None
    return Scene(
        prompt=config.prompt,
        negative=config.negative,
        seed=config.seeds[0] if config.seeds else 0,
        steps=config.steps,
        guidance=config.guidance,
        width=config.width,
        height=config.height,
        sampler=config.sampler,
        scheduler=config.scheduler.strip() or "Automatic",
        clip_skip=config.clip_skip,
        checkpoint=config.checkpoint,
        vae=config.vae,
        hires=config.hires,
        hires_upscaler=config.hires_upscaler,
        hires_steps=config.hires_steps,
        hires_denoising=config.hires_denoising,
        adapter=replace(adapter, value=config.block_value) if adapter else None,
        second=second,
    )


def apply(scene: Scene, choices: list[tuple[Axis, str]]) -> Scene:
    """Return an image with one value of each axis. Raises ConfigError for a value that cannot be read."""

    def turn(choice: tuple[Axis, str]) -> int:
        kind = choice[0].kind
        return _FIRST.index(kind) if kind in _FIRST else len(_FIRST)

    for axis, value in sorted(choices, key=turn):
        scene = _CHANGES[axis.kind](scene, value.strip() if axis.kind != "prompt" else value, axis)
    return scene


def label(axis: Axis, value: str) -> str:
    """Return what a sheet writes beside a row or a column."""
    if axis.kind in ("adapter", "second"):
        return "no adapter" if value == NONE else Path(value).stem
    if axis.kind in ("epoch", "step") and not value.strip().isdecimal():
        return value.strip()
    if axis.kind == "hires" and value.strip() == NONE:
        return "no hires"
    if axis.kind in _OF_HOST:
        # A path is too long for a sheet, and says no more than the name at its end.
        return value.strip().replace("\\", "/").rpartition("/")[2].removesuffix(".safetensors") or LOADED
    return value.strip() if axis.kind in _SPOKEN else f"{KINDS[axis.kind]} {value.strip()}"


def check(config: GridConfig) -> None:
    """Raise ProblemsFound with everything that stands against the axes and seeds by themselves."""
    problems = list(_problems(config))
    if problems:
        raise ProblemsFound(tuple(problems))


def _problems(config: GridConfig) -> Iterator[Problem]:
    if len(config.axes) > 3:
        yield Problem("error", "axes", f"there are {len(config.axes)}.", "Use up to three, and seeds.")
    if not config.seeds:
        yield Problem("error", "seeds", "there is none.", "Give one seed at least.")
    kinds = [axis.kind for axis in config.axes]
    for kind in sorted({kind for kind in kinds if kinds.count(kind) > 1}):
        yield Problem("error", "axes", f"{kind} is there twice.", "Put all its values into one axis.")
    if "epoch" in kinds and "step" in kinds:
        yield Problem("error", "axes", "epoch and step both name one save.", "Use one of them.")
    if "seed" in kinds and len(config.seeds) > 1:
        yield Problem("error", "seeds", "an axis of seeds has them already.", "Give one seed, or take the axis away.")
    if "block_value" in kinds and "block" not in kinds:
        yield Problem("error", "axes", "block_value is the weight of no block.", "Add an axis of the kind block.")
    if not config.adapter and "adapter" not in kinds:
        need = {"epoch", "step", "weight", "unet", "text", "blocks", "block"} & {*kinds}
        for kind in sorted(need):
            yield Problem("error", "adapter", f"is empty, and the axis {kind} is about it.", "Name the file.")
    if not config.second and "second" not in kinds and "second_weight" in kinds:
        yield Problem("error", "second", "is empty, and the axis second_weight is about it.", "Name the file.")
    start = base(config)
    for index, axis in enumerate(config.axes):
        if not axis.values:
            yield Problem("error", f"axes[{index}].values", "there is none.", "Give one value at least.")
        for number, value in enumerate(axis.values):
            try:
                apply(start, [(axis, value)])
            except ConfigError as error:
                yield Problem("error", f"axes[{index}].values[{number}]", str(error))


def saved(file: str, value: str, kind: str) -> str:
    """Return the file of an adapter's save at an epoch or step; `end` is the finished adapter.

    file: any of the saves. Names are those that training gives: NAME-000003, NAME-step00000120, NAME.
    """
    path = Path(file)
    stem = _SAVE.sub("", path.stem)
    if value == "end":
        return str(path.with_name(f"{stem}{path.suffix}"))
    number = _whole(value, kind, 0)
    return str(path.with_name(f"{stem}-{number:06d}{path.suffix}" if kind == "epoch" else f"{stem}-step{number:08d}"
                              f"{path.suffix}"))  # fmt: skip


def _save(scene: Scene, value: str, axis: Axis) -> Scene:
    name = "end" if value == "end" else str(_whole(value, axis.kind, 0))
    if scene.adapter is None:
        return scene
    return replace(scene, adapter=replace(scene.adapter, file=saved(scene.adapter.file, name, axis.kind)))


def _adapter(scene: Scene, value: str, axis: Axis) -> Scene:
    if not value:
        raise ConfigError(f"a value is empty. Name a file, or write {NONE}.")
    before = scene.adapter if axis.kind == "adapter" else scene.second
    now = None if value == NONE else replace(before, file=value) if before else Worn(value)
    return replace(scene, adapter=now) if axis.kind == "adapter" else replace(scene, second=now)


def _weight(scene: Scene, value: str, axis: Axis) -> Scene:
    unet, slash, text = value.partition("/")
    if slash and axis.kind in ("unet", "text"):
        raise ConfigError(f"{value!r} is two weights. Use an axis of the kind weight for both.")
    first = _number(unet, axis.kind)
    second = _number(text, axis.kind) if slash else first
    changed: dict[str, Any] = {"unet": first, "text": second}
    if axis.kind in changed:
        changed = {axis.kind: first}
    if axis.kind == "second_weight":
        return replace(scene, second=replace(scene.second, **changed) if scene.second else None)
    return replace(scene, adapter=replace(scene.adapter, **changed) if scene.adapter else None)


def _of_adapter(scene: Scene, value: str, axis: Axis) -> Scene:
    if not value:
        raise ConfigError("a value is empty. Write a preset such as MIDD, a vector, or blocks.")
    changed: dict[str, Any] = {"blocks": value}
    if axis.kind == "block":
        changed = {"chosen": value}
    elif axis.kind == "block_value":
        changed = {"value": _number(value, axis.kind)}
    return replace(scene, adapter=replace(scene.adapter, **changed) if scene.adapter else None)


def _prompt(scene: Scene, value: str, axis: Axis) -> Scene:
    searched = axis.values[0]
    if not searched or (searched not in scene.prompt and searched not in scene.negative):
        raise ConfigError(f"{searched!r}, the first value, is not in the prompt. Begin with words that are.")
    found = {name: getattr(scene, name).replace(searched, value) for name in ("prompt", "negative")}
    return replace(scene, **found)


def _size(scene: Scene, value: str, axis: Axis) -> Scene:
    match = _SIZE.fullmatch(value)
    if match is None:
        raise ConfigError(f"{value!r} is no size. Write {axis.kind} values such as 512x768.")
    return replace(scene, width=int(match[1]), height=int(match[2]))


def _hires(scene: Scene, value: str, axis: Axis) -> Scene:
    scale = 1.0 if value == NONE else _number(value, axis.kind)
    if not 1 <= scale <= 4:
        raise ConfigError(f"hires {value}: write a factor from 1 to 4, or {NONE}.")
    return replace(scene, hires=scale)


def _text(scene: Scene, value: str, axis: Axis) -> Scene:
    if not value and axis.kind in ("sampler", "scheduler"):
        raise ConfigError(f"a {axis.kind} is empty. Write its name.")
    changed: dict[str, Any] = {axis.kind: "" if axis.kind in _OF_HOST and value == LOADED else value}
    return replace(scene, **changed)


def _count(scene: Scene, value: str, axis: Axis) -> Scene:
    changed: dict[str, Any] = {axis.kind: _whole(value, axis.kind, 0 if axis.kind == "seed" else 1)}
    return replace(scene, **changed)


def _guidance(scene: Scene, value: str, axis: Axis) -> Scene:
    return replace(scene, guidance=_number(value, axis.kind))


def _whole(value: str, kind: str, lowest: int) -> int:
    if not (value.isascii() and value.isdecimal()) or int(value) < lowest:
        raise ConfigError(f"{kind} {value!r}: write a whole number, {lowest} or more.")
    return int(value)


def _number(value: str, kind: str) -> float:
    try:
        number = float(value)
    except ValueError as error:
        raise ConfigError(f"{kind} {value!r}: is no number. Write for instance 0.8.") from error
    if not math.isfinite(number):
        raise ConfigError(f"{kind} {value!r}: is no finite number. Write for instance 0.8.")
    return number


_CHANGES: dict[str, Callable[[Scene, str, Axis], Scene]] = {
    **dict.fromkeys(("adapter", "second"), _adapter),
    **dict.fromkeys(("epoch", "step"), _save),
    **dict.fromkeys(("weight", "unet", "text", "second_weight"), _weight),
    **dict.fromkeys(("blocks", "block", "block_value"), _of_adapter),
    **dict.fromkeys(("sampler", "scheduler", "checkpoint", "vae"), _text),
    **dict.fromkeys(("seed", "clip_skip", "steps"), _count),
    "guidance": _guidance,
    "prompt": _prompt,
    "size": _size,
    "hires": _hires,
}
