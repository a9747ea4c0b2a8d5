"""How well an adapter learned the bundled character: trait recall, control and bleed, judged by the toy tagger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from lib_lora_trainer.base.seeds import derive
from lib_lora_trainer.demo import world
from lib_lora_trainer.hosts.api import ImageRequest, Lease, MadeImage
from lib_lora_trainer.tagging.wd14 import Tagger, probabilities

SEED = 20_000
THRESHOLD = 0.5


@dataclass(frozen=True)
class Question:
    """Prompts of one kind with the tags that are looked for in each of their images."""

    name: str
    prompts: tuple[str, ...]
    tags: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Answer:
    """The images for a question. rate: share of the looked-for tags that the tagger found, in [0, 1]."""

    question: Question
    images: tuple[MadeImage, ...]
    found: tuple[tuple[str, ...], ...]
    rate: float


def recall(count: int = 24) -> Question:
    """Ask for the trigger alone; look for the traits its captions leave out."""
    return Question("trait_recall", (world.TRIGGER,) * count, (world.CHARACTER_TRAITS,) * count)


def control(count: int = 24) -> Question:
    """Ask for the trigger in other clothes and places; look for these."""
    random = Random(derive(SEED, "control"))
    pairs = [(random.choice(world.OUTFITS), random.choice(world.BACKGROUNDS)) for _ in range(count)]
    prompts = tuple(f"{world.TRIGGER}, 1girl, {outfit}, {background}" for outfit, background in pairs)
    return Question("control", prompts, tuple(pairs))


def bleed(count: int = 24) -> Question:
    """Ask for others without the trigger, half of them with no word about hair or eyes; look for the traits."""
    random = Random(derive(SEED, "bleed"))
    prompts = []
    for index in range(count):
        figure = world.sample_figure(random)
        short = (figure.person, figure.outfit, figure.background)
        prompts.append(", ".join(short if index % 2 else world.tags(figure)))
    return Question("bleed", tuple(prompts), (world.CHARACTER_TRAITS,) * count)


def request(prompt: str, seed: int) -> ImageRequest:
    """Return the request for an image of the toy world's size."""
    return ImageRequest(prompt, seed=seed, steps=20, guidance=5.0, width=world.SIDE, height=world.SIDE)


def ask(question: Question, lease: Lease, tagger: Tagger) -> Iterator[int | Answer]:
    """Generate the images from fixed seeds, yielding how many are done, then yield the answer."""
    requests = [request(prompt, SEED + index) for index, prompt in enumerate(question.prompts)]
    images: list[MadeImage] = []
    for made in lease.generate(requests):
        images.append(made)
        yield len(images)
    yield judge(question, images, tagger)


def judge(question: Question, images: Sequence[MadeImage], tagger: Tagger) -> Answer:
    """Return which of the looked-for tags the tagger finds in each image."""
    scores = probabilities(tagger, [made.image for made in images])
    column = {label.name: index for index, label in enumerate(tagger.labels)}
    found = tuple(
        tuple(tag for tag in tags if row[column[tag]] >= THRESHOLD)
        for tags, row in zip(question.tags, scores, strict=True)
    )
    shares = [len(hit) / len(tags) for hit, tags in zip(found, question.tags, strict=True)]
    return Answer(question, tuple(images), found, float(np.mean(shares)))
