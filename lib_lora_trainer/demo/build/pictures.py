"""Draws the training pictures once and keeps them as one array."""

from __future__ import annotations

import logging
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from lib_lora_trainer.demo import world

logger = logging.getLogger(__name__)


def draw_figures(figures: list[world.Figure], first_seed: int) -> NDArray[np.uint8]:
    """Return the pictures of ``figures``, (N, 128, 128, 3) uint8 RGB, drawn with seeds from ``first_seed`` on."""
    pictures = np.empty((len(figures), world.SIDE, world.SIDE, 3), np.uint8)
    for index, figure in enumerate(figures):
        pictures[index] = np.asarray(world.draw(figure, first_seed + index))
    return pictures


def any_figures(count: int, seed: int) -> list[world.Figure]:
    """Return ``count`` figures with the new traits among them, for the autoencoder and the tagger."""
    rng = Random(seed)
    return [world.sample_any_figure(rng) for _ in range(count)]


def known_figures(count: int, seed: int) -> list[world.Figure]:
    """Return ``count`` figures without the new traits, for the text encoder and the UNet."""
    rng = Random(seed)
    return [world.sample_figure(rng) for _ in range(count)]


def cached_pictures(path: Path, figures: list[world.Figure], first_seed: int) -> NDArray[np.uint8]:
    """Return ``draw_figures(figures, first_seed)``, read from ``path`` if it is there, else drawn and written."""
    if path.exists():
        pictures: NDArray[np.uint8] = np.load(path)[: len(figures)]
        return pictures
    logger.info("drawing %d pictures for %s", len(figures), path.name)
    pictures = draw_figures(figures, first_seed)
    np.save(path, pictures)
    return pictures
