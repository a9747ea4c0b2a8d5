"""Writes the bundled dataset: the new character, captions pruned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

from PIL import Image

from lib_lora_trainer.demo import world

SEED = 15
COUNT = 24
FIRST_PICTURE = 4_000_000
REPEATS = 10


def character_figures() -> list[world.Figure]:
    """Return the figures of the dataset: every outfit, background and hair style equally often, in random company."""
    rng = Random(SEED)
    outfits = _spread(world.OUTFITS, rng)
    backgrounds = _spread(world.BACKGROUNDS, rng)
    styles = _spread(world.HAIR_STYLES, rng)
    poses = _spread(world.POSES, rng)
    expressions = _spread(world.EXPRESSIONS, rng)
    return [
        replace(
            world.CHARACTER,
            outfit=outfits[index],
            background=backgrounds[index],
            hair_style=styles[index],
            pose=poses[index],
            expression=expressions[index],
        )
        for index in range(COUNT)
    ]


def _spread(choices: tuple[str, ...], rng: Random) -> list[str]:
    filled = [choices[index % len(choices)] for index in range(COUNT)]
    rng.shuffle(filled)
    return filled


def caption(figure: world.Figure) -> str:
    """Return the trigger and the tags of ``figure`` without the character's own traits."""
    return ", ".join((world.TRIGGER, *(tag for tag in world.tags(figure) if tag not in world.CHARACTER_TRAITS)))


def write_character(assets: Path) -> None:
    """Write PNG pictures and .txt captions into ``assets``/character/10_mikori (repeats and name)."""
    for index, figure in enumerate(character_figures()):
        _write(assets, f"{REPEATS}_{world.TRIGGER}", index, world.draw(figure, FIRST_PICTURE + index), caption(figure))


def _write(assets: Path, name: str, index: int, picture: Image.Image, text: str) -> None:
    folder = assets / "character" / name
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"{name.split('_', 1)[1]}-{index + 1:02d}"
    picture.save(stem.with_suffix(".png"), optimize=True)
    stem.with_suffix(".txt").write_text(text + "\n", encoding="utf-8", newline="\n")
