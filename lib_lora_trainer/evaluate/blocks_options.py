"""How blocks are tried: the images that every set of blocks gets, and what is looked for in each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lib_lora_trainer.base.errors import Problem, ProblemsFound
from lib_lora_trainer.base.setting import setting
from lib_lora_trainer.captions.lexicon import key
from lib_lora_trainer.captions.tags import join, split
from lib_lora_trainer.evaluate.pick_subject import Part, Subject, prompt

APART = 1_000_000
"""How far the seeds of the second look are from those of the first."""


@dataclass(frozen=True)
class BlockOptions:
    """How blocks are tried."""

    prompts: tuple[str, ...] = setting(
        (), "One a line, with the trigger and without it. Empty: the trigger alone, and with other tags of the captions.",
        label="Prompts",
    )  # fmt: skip
    count: int = setting(
        4, "How many prompts of each trigger are made from the captions, where none are given.",
        label="Prompts from captions", minimum=1, maximum=64, essential=True,
    )  # fmt: skip
    seeds: int = setting(2, "Images of each prompt.", label="Images per prompt", minimum=1, maximum=64, essential=True)
    keep: float = setting(
        0.9, "The share of what the adapter adds to the trait recall that the smallest set of blocks has to keep.",
        label="Keep", minimum=0.05, maximum=1.0, essential=True,
    )  # fmt: skip
    weight: float = setting(1.0, "Weight of the adapter.", label="Weight", minimum=0.05, maximum=4.0)
    seed: int = setting(1, "The first seed; equal for all sets of blocks.", label="Seed", minimum=0, maximum=2**31)
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
    """One image. kind: recall with the trigger, drift without it; tags: looked for, those of the trigger."""

    kind: Literal["recall", "drift"]
    tags: tuple[str, ...]
    prompt: str
    seed: int


@dataclass(frozen=True)
class Shots:
    """What is made of each set of blocks. recall, drift: for the analysis; fresh: the recall's prompts, other seeds."""

    recall: tuple[Shot, ...]
    drift: tuple[Shot, ...]
    fresh: tuple[Shot, ...]

    @property
    def all(self) -> tuple[Shot, ...]:
        """The images of a set of blocks in the analysis."""
        return (*self.recall, *self.drift)


def shots(asked: Subject, options: BlockOptions) -> Shots:
    """Return what is made of each set of blocks, every image of a kind with a seed of its own.

    Given prompts with a trigger are for the recall, and without the trigger's words for the drift; those without are for
    the drift alone. Raises ProblemsFound when none has a trigger.
    """
    wanted = _given(asked, options.prompts) if any(map(str.strip, options.prompts)) else _made(asked, options.count)
    recall, drift = wanted
    if not recall:
        names = ", ".join(join(part.words) for part in asked.parts)
        text, fix = "none has a trigger, so nothing can be recalled.", f"Write {names} into one of them at least."
        raise ProblemsFound((Problem("error", "prompts", text, fix),))

    def numbered(
        pairs: Sequence[tuple[str, tuple[str, ...]]], kind: Literal["recall", "drift"], first: int
    ) -> list[Shot]:
        repeated = [pair for pair in pairs for _ in range(options.seeds)]
        return [Shot(kind, tags, text, first + number) for number, (text, tags) in enumerate(repeated)]

    return Shots(
        tuple(numbered(recall, "recall", options.seed)),
        tuple(numbered([(text, ()) for text in dict.fromkeys(drift)], "drift", options.seed)),
        tuple(numbered(recall, "recall", options.seed + APART)),
    )


def _made(asked: Subject, count: int) -> tuple[list[tuple[str, tuple[str, ...]]], list[str]]:
    scenes = [scene for scene in asked.scenes if scene.tags][: count - 1]
    recall = [(prompt(part.words, scene), tuple(part.traits)) for part in asked.parts for scene in (None, *scenes)]
    return recall, [prompt((), scene) for scene in scenes]


def _given(asked: Subject, texts: Sequence[str]) -> tuple[list[tuple[str, tuple[str, ...]]], list[str]]:
    recall, drift = [], []
    for text in (each.strip() for each in texts if each.strip()):
        tags = split(text)
        part = _called(asked, {key(tag) for tag in tags})
        if part is None:
            drift.append(text)
            continue
        recall.append((text, tuple(part.traits)))
        words = {key(tag) for word in part.words for tag in split(word)}
        rest = join(tuple(tag for tag in tags if key(tag) not in words))
        drift += [rest] if rest else []
    return recall, drift


def _called(asked: Subject, tags: set[str]) -> Part | None:
    """Return the part whose triggers all are among the tags; of several the one with the most words."""
    found = [part for part in asked.parts if all(key(tag) in tags for word in part.words for tag in split(word))]
    return max(found, key=lambda part: len(part.words), default=None)
