"""How epochs and weights are tried: the weights, the images of each, and what is asked of each image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lib_lora_trainer.base.setting import setting
from lib_lora_trainer.config.data import DataConfig
from lib_lora_trainer.evaluate.pick_subject import Subject, prompt
from lib_lora_trainer.hosts.values import ImageRequest

_STEP = 64  # pixels; every family makes images of its multiples
Kind = Literal["recall", "control", "bleed"]


@dataclass(frozen=True)
class PickOptions:
    """How epochs and weights are tried."""

    weights: tuple[float, ...] = setting(
        (0.4, 0.6, 0.8, 1.0, 1.2), "Weights at which each file is tried.", label="Weights", minimum=0.05, maximum=4.0
    )
    images: int = setting(
        8, "Images of each question and cell: the trigger alone, the trigger with other tags, and these without it. With "
        "fewer than eight, chance explains most differences.",
        label="Images", minimum=2, maximum=64,
    )  # fmt: skip
    seed: int = setting(1, "The first seed; equal for all cells.", label="Seed", minimum=0)
    steps: int = setting(20, "Sampling steps.", label="Steps", minimum=1, maximum=150)
    guidance: float = setting(7.0, "Guidance (CFG scale).", label="Guidance", minimum=1.0, maximum=30.0)
    side: int = setting(
        0, "Width and height of the images; 0: the resolution of the training.",
        label="Size", minimum=0, maximum=2048, unit="px",
    )  # fmt: skip
    sampler: str = setting("Euler a", "The host's name of the sampler.", label="Sampler")
    negative: str = setting("", "Negative prompt.", label="Negative prompt")
    clip_skip: int = setting(1, "As in training.", label="Clip skip", minimum=1, maximum=12)


@dataclass(frozen=True)
class Shot:
    """One image that every cell has. part: number of the trigger's part; tags: looked for; others: other parts' traits."""

    kind: Kind
    part: int
    tags: tuple[str, ...]
    others: tuple[str, ...]
    request: ImageRequest


def usual_side(data: DataConfig) -> int:
    """Return the width and height in pixels that images of a trained adapter have: its largest resolution, in 64s."""
    return max((data.resolution, *data.more_resolutions)) // _STEP * _STEP


def shots(asked: Subject, options: PickOptions, side: int) -> tuple[Shot, ...]:
    """Return what is asked: each trigger alone, then scenes with a trigger in turn, then these scenes without it.

    A scene with and without its trigger has the same seed. Scenes without tags ask for no control.
    """
    def request(text: str, number: int) -> ImageRequest:
        return ImageRequest(
            prompt=text,
            negative=options.negative,
            seed=options.seed + number,
            steps=options.steps,
            guidance=options.guidance,
            width=side,
            height=side,
            sampler=options.sampler,
            clip_skip=options.clip_skip,
        )

    found = [
        Shot("recall", place, tuple(part.traits), asked.others(part), request(prompt(part.words), number))
        for place, part in enumerate(asked.parts)
        for number in range(options.images)
    ]
    scenes = list(enumerate(asked.scenes[: options.images]))
    for number, scene in scenes:
        place = number % len(asked.parts)
        text = prompt(asked.parts[place].words, scene)
        if scene.tags:
            found.append(Shot("control", place, scene.tags, (), request(text, number)))
    found += [Shot("bleed", 0, asked.traits, (), request(prompt((), scene), number)) for number, scene in scenes]
    return tuple(found)
