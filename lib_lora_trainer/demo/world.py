"""The toy world: drawn figures and the booru-style tags that describe them.

A :class:`Figure` is a value: one choice per group of traits. ``tags`` names its traits, ``draw`` paints them. The
checkpoint of the demo was trained on figures from ``sample_figure`` only; ``CHARACTER_TRAITS`` never occur there, so a
character built from them is new to it. The tagger and the autoencoder know both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from PIL import Image

SIDE = 128
"""Width and height of every picture, pixels."""

PERSONS = ("1girl", "1boy")
HAIR_COLORS = ("blonde hair", "brown hair", "black hair", "red hair", "pink hair", "white hair", "purple hair")
HAIR_STYLES = ("short hair", "long hair", "twintails", "ponytail")
EYES = ("blue eyes", "green eyes", "red eyes", "yellow eyes")
EXPRESSIONS = ("smile", "open mouth")
OUTFITS = ("red dress", "blue dress", "school uniform", "white shirt", "black coat", "yellow raincoat")
POSES = ("arms at sides", "arms up")
ACCESSORIES = ("hat", "bow", "glasses", "cat ears", "halo")
BACKGROUNDS = ("white background", "forest", "beach", "night sky", "indoors", "sunset")

GROUPS: dict[str, tuple[str, ...]] = {
    "person": PERSONS,
    "hair_color": HAIR_COLORS,
    "hair_style": HAIR_STYLES,
    "eyes": EYES,
    "expression": EXPRESSIONS,
    "outfit": OUTFITS,
    "pose": POSES,
    "accessory": ACCESSORIES,
    "background": BACKGROUNDS,
}
"""Tags of every group the checkpoint knows. A figure has one of each, except that it may have no accessory."""

NEW_HAIR_COLOR = "aqua hair"
NEW_EYES = "purple eyes"
NEW_ORNAMENTS = ("horns", "star hair ornament", "striped scarf")
CHARACTER_TRAITS = (NEW_HAIR_COLOR, NEW_EYES, *NEW_ORNAMENTS)
"""Traits that no training picture of the checkpoint shows; the captions of the bundled character leave them out."""

TRIGGER = "mikori"
"""The word that stands for the bundled character; no tag of the world contains it."""

VOCABULARY = tuple(tag for group in GROUPS.values() for tag in group)
"""Every tag the checkpoint was trained on."""

TAGGER_TAGS = VOCABULARY + CHARACTER_TRAITS
"""Every tag the toy tagger answers, in the order of its outputs after the four ratings."""


@dataclass(frozen=True)
class Figure:
    """One figure of the world: a tag of every group, ``accessory`` may be empty, ``ornaments`` holds new traits."""

    person: str
    hair_color: str
    hair_style: str
    eyes: str
    expression: str
    outfit: str
    pose: str
    accessory: str
    background: str
    ornaments: tuple[str, ...] = ()


CHARACTER = Figure(
    person="1girl",
    hair_color=NEW_HAIR_COLOR,
    hair_style="short hair",
    eyes=NEW_EYES,
    expression="smile",
    outfit="white shirt",
    pose="arms at sides",
    accessory="",
    background="white background",
    ornaments=NEW_ORNAMENTS,
)
"""The bundled character in plain clothes; outfit, background, pose, expression and hair style vary in its dataset."""


def tags(figure: Figure) -> tuple[str, ...]:
    """Return the tags of ``figure`` in the order of the groups, new ornaments last."""
    named = (
        figure.person,
        figure.hair_color,
        figure.hair_style,
        figure.eyes,
        figure.expression,
        figure.outfit,
        figure.pose,
        figure.accessory,
        figure.background,
    )
    return tuple(tag for tag in named if tag) + figure.ornaments


def sample_figure(rng: Random) -> Figure:
    """Draw a figure of the world the checkpoint knows: every group uniform, one accessory in five figures of six."""
    return Figure(
        person=rng.choice(PERSONS),
        hair_color=rng.choice(HAIR_COLORS),
        hair_style=rng.choice(HAIR_STYLES),
        eyes=rng.choice(EYES),
        expression=rng.choice(EXPRESSIONS),
        outfit=rng.choice(OUTFITS),
        pose=rng.choice(POSES),
        accessory=rng.choice(("", *ACCESSORIES)),
        background=rng.choice(BACKGROUNDS),
    )


def sample_any_figure(rng: Random) -> Figure:
    """Draw a figure in which every new trait occurs too, each on its own; for the autoencoder and the tagger."""
    figure = sample_figure(rng)
    return replace(
        figure,
        hair_color=rng.choice((NEW_HAIR_COLOR, figure.hair_color, figure.hair_color, figure.hair_color)),
        eyes=rng.choice((NEW_EYES, figure.eyes, figure.eyes, figure.eyes)),
        ornaments=tuple(trait for trait in NEW_ORNAMENTS if rng.random() < 0.3),
    )


def sample_character(rng: Random) -> Figure:
    """Draw the bundled character with an outfit, background, pose, expression and hair style the checkpoint knows."""
    return replace(
        CHARACTER,
        hair_style=rng.choice(HAIR_STYLES),
        expression=rng.choice(EXPRESSIONS),
        outfit=rng.choice(OUTFITS),
        pose=rng.choice(POSES),
        background=rng.choice(BACKGROUNDS),
    )


def draw(figure: Figure, seed: int) -> Image.Image:
    """Paint ``figure``; ``seed`` decides place, size and shades only.

    Returns an RGB image of ``SIDE`` x ``SIDE`` pixels. The same arguments give the same pixels.
    """
    from lib_lora_trainer.demo.figures import paint

    return paint(figure, seed)
