"""The cells of a grid: where each one stands, which of them are one image, and in which order they are made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from lib_lora_trainer.evaluate import grid_axes
from lib_lora_trainer.evaluate.grid import KINDS, Axis, GridConfig
from lib_lora_trainer.evaluate.grid_axes import Scene

Position = tuple[int, int, int, int]
"""Column, row, page and seed of a cell, each from 0."""


@dataclass(frozen=True)
class Side:
    """One of the directions of a grid. title: what differs; labels: of its values; "" for a direction not used."""

    title: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """A grid as it is to be made. sides: columns, rows, pages, seeds; scenes: what is in each cell.

    todo: every image once, in the order in which they are made.
    """

    sides: tuple[Side, Side, Side, Side]
    scenes: Mapping[Position, Scene]
    todo: tuple[Scene, ...]


def build(config: GridConfig, settle: Callable[[Scene], Scene]) -> Grid:
    """Return a grid's cells. settle: writes what is the same image in the same way.

    The first axis gives columns, the second rows, the third pages. Raises ProblemsFound for axes that make no grid.
    """
    grid_axes.check(config)
    axes: list[Axis | None] = [*config.axes, None, None, None][:3]
    start = grid_axes.base(config)
    values = [axis.values if axis else ("",) for axis in axes]
    scenes = {}
    for place in product(*(range(len(each)) for each in values), range(len(config.seeds))):
        column, row, page, seed = place
        seeded = replace(start, seed=config.seeds[seed])
        chosen = [(axis, values[side][place[side]]) for side, axis in enumerate(axes) if axis is not None]
        scenes[column, row, page, seed] = settle(grid_axes.apply(seeded, chosen))
    sides = [
        Side(KINDS[axis.kind], tuple(grid_axes.label(axis, value) for value in axis.values))
        if axis
        else Side("", ("",))
        for axis in axes
    ]
    seeds = Side("Seed", tuple(f"Seed {seed}" for seed in config.seeds) if len(config.seeds) > 1 else ("",))
    # Reading order: along a row, then the next row, seed and page.
    reading = sorted(scenes, key=lambda place: (place[2], place[3], place[1], place[0]))
    return Grid((sides[0], sides[1], sides[2], seeds), scenes, ordered([scenes[place] for place in reading]))


def ordered(scenes: Sequence[Scene]) -> tuple[Scene, ...]:
    """Return every image once, so that what takes longest to change changes least.

    A checkpoint changes least, then the VAE, the adapters' files, their weights, the text; else as they are given.
    Groups are in the order of their first image, what the host has loaded before anything else.
    """
    unique = list(dict.fromkeys(scenes))
    parts: list[Callable[[Scene], Hashable]] = [
        lambda scene: scene.checkpoint,
        lambda scene: scene.vae,
        lambda scene: tuple(worn.file for worn in scene.worn),
        lambda scene: scene.worn,
        lambda scene: (scene.clip_skip, scene.prompt, scene.negative),
    ]
    ranks: list[dict[Hashable, int]] = []
    for index, part in enumerate(parts):
        first = [""] if index < 2 else []
        found = dict.fromkeys([*(value for value in first if value in map(part, unique)), *map(part, unique)])
        ranks.append({value: number for number, value in enumerate(found)})
    return tuple(sorted(unique, key=lambda scene: [rank[part(scene)] for part, rank in zip(parts, ranks, strict=True)]))


def prompt_of(scene: Scene) -> str:
    """Return the prompt with the tags of the adapters, with which txt2img makes the image."""
    return " ".join([scene.prompt, *map(tag, scene.worn)]).strip()


def tag(worn: grid_axes.Worn) -> str:
    """Return an adapter's tag: `<lora:name:weight>`, `<lora:name:text:unet>`, and lbw= with block weights."""
    stem = worn.file.replace("\\", "/").rpartition("/")[2].removesuffix(".safetensors")
    text, unet = _plain(worn.text), _plain(worn.unet)
    weights = text if text == unet else f"{text}:{unet}"
    return f"<lora:{stem}:{weights}{f':lbw={worn.blocks}' if worn.blocks else ''}>"


def _plain(number: float) -> str:
    short = f"{number:g}"
    return short if float(short) == number else repr(number)


def facts(scene: Scene, made_by: Mapping[str, str], digests: Mapping[str, str]) -> dict[str, Any]:
    """Return what an image is made from, in JSON's types.

    made_by: what the host says of itself and its model; digests: SHA-256 of each adapter's file, which stands for it, so
    that an adapter written anew is another one and a folder that was moved is the same.
    """
    content = asdict(scene)
    del content["checkpoint"], content["vae"]  # what they are named; made_by says what they are
    for name, worn in (("adapter", scene.adapter), ("second", scene.second)):
        if worn is not None:
            content[name] = {**asdict(worn), "file": digests[worn.file], "tag": tag(worn)}
    return {**content, "made_by": dict(sorted(made_by.items()))}


def key(content: Mapping[str, Any]) -> str:
    """Return the name of an image: 24 hex digits of a digest of what it is made from."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]
