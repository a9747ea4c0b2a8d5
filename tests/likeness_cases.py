"""Pictures of which it is known who is the same, who is a variant, and who is another: drawn figures and photographs."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from lib_lora_trainer.demo import world

Sides = tuple[float, float, float, float]
MIRROR = Image.Transpose.FLIP_LEFT_RIGHT


def photograph(seed: int, size: tuple[int, int] = (384, 288)) -> Image.Image:
    """Return a picture with the spectrum of photographs (1/f), some flat shapes and a little blur."""
    rng, (width, height) = np.random.default_rng(seed), size
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    shared, channels = np.zeros((height, width)), []
    for _ in range(3):
        waves = rng.normal(size=(2, height, width // 2 + 1))
        noise = np.fft.irfft2((waves[0] + 1j * waves[1]) / frequency ** rng.uniform(1.0, 1.5), s=(height, width))
        shared = 0.7 * shared + 0.5 * (noise - noise.mean()) / noise.std()
        channels.append(shared)
    values = np.stack(channels, -1) * 60 + rng.uniform(70, 180, 3)
    image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    draw, drawn = ImageDraw.Draw(image), Random(seed)
    for _ in range(drawn.randint(3, 9)):
        x, y, side = drawn.randrange(width), drawn.randrange(height), drawn.randint(15, 90)
        box = (x - side, y - side // 2, x + side, y + side // 2)
        colour = tuple(drawn.randrange(256) for _ in range(3))
        (draw.ellipse if drawn.random() < 0.5 else draw.rectangle)(box, fill=colour)
    return image.filter(ImageFilter.GaussianBlur(0.7))


def figure(seed: int, scale: int = 3, **changes: str) -> Image.Image:
    """Return a drawn figure, 128 · scale pixels wide; changes: traits that differ from the figure of this seed."""
    drawn = world.draw(replace(world.sample_figure(Random(seed)), **changes), seed)
    return drawn.resize((128 * scale, 128 * scale), Image.Resampling.LANCZOS)


def variants(seed: int, scale: int = 3) -> dict[str, Image.Image]:
    """Return the figure of a seed with another expression, with other eyes and in another outfit."""
    traits = world.sample_figure(Random(seed))

    def other(group: tuple[str, ...], now: str) -> str:
        return group[(group.index(now) + 1) % len(group)]

    return {
        "expression": figure(seed, scale, expression=other(world.EXPRESSIONS, traits.expression)),
        "eyes": figure(seed, scale, eyes=other(world.EYES, traits.eyes)),
        "outfit": figure(seed, scale, outfit=other(world.OUTFITS, traits.outfit)),
    }


def recompressed(image: Image.Image, quality: int) -> Image.Image:
    """Return a picture as it comes back from a JPEG file."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def resized(image: Image.Image, factor: float) -> Image.Image:
    """Return a picture with each side multiplied."""
    size = (round(image.width * factor), round(image.height * factor))
    return image.resize(size, Image.Resampling.BICUBIC)


def cropped(image: Image.Image, sides: Sides) -> Image.Image:
    """Return a picture without a share of its (left, top, right, bottom)."""
    left, top, right, bottom = sides
    width, height = image.size
    return image.crop(
        (round(width * left), round(height * top), round(width * (1 - right)), round(height * (1 - bottom)))
    )


def copies(image: Image.Image) -> dict[str, Image.Image]:
    """Return a picture in the ways in which the same one comes into a folder twice."""
    some = cropped(image, (0.03, 0.0, 0.02, 0.05))
    return {
        "half": resized(image, 0.5),
        "enlarged": resized(image, 1.5),
        "quality 30": recompressed(image, 30),
        "quality 60": recompressed(image, 60),
        "cropped": cropped(image, (0.05, 0.05, 0.05, 0.05)),
        "without left": cropped(image, (0.05, 0.0, 0.0, 0.0)),
        "without corner": cropped(image, (0.0, 0.05, 0.05, 0.0)),
        "mirrored": image.transpose(MIRROR),
        "all of it": recompressed(resized(some, 2 / 3), 50),
        "all of it mirrored": recompressed(resized(some.transpose(MIRROR), 2 / 3), 50),
    }


@dataclass(frozen=True)
class Truth:
    """What is known of a set. pictures: each file's (motif, version); files of one version are the same picture."""

    pictures: dict[Path, tuple[str, str]]

    def pairs(self) -> Iterator[tuple[Path, Path]]:
        """Return every pair of files, in order."""
        return combinations(sorted(self.pictures), 2)

    @property
    def same(self) -> set[tuple[Path, Path]]:
        """The pairs that are one picture."""
        return {pair for pair in self.pairs() if self.pictures[pair[0]] == self.pictures[pair[1]]}

    @property
    def variants(self) -> set[tuple[Path, Path]]:
        """The pairs that are variants of each other."""
        known = self.pictures
        return {(a, b) for a, b in self.pairs() if known[a][0] == known[b][0] and known[a][1] != known[b][1]}


def make(folder: Path, motifs: int, seed: int = 0) -> Truth:
    """Write a set of figures with variants, photographs, and copies of all of them, under names that say nothing."""
    drawn, found = Random(seed), {}
    numbers = Random(seed + 1).sample(range(100_000), 20 * motifs)

    def put(image: Image.Image, motif: str, version: str) -> None:
        path = folder / f"{numbers[len(found)]:05d}.png"
        image.save(path, compress_level=1)
        found[path] = (motif, version)

    for number in range(motifs):
        scale, name = drawn.choice((1, 2, 3)), f"figure {number}"
        versions = {"": figure(seed + number, scale), **variants(seed + number, scale)}
        for version, image in versions.items():
            put(image, name, version)
            more = copies(image)
            for way in drawn.sample(list(more), 2 if version == "" else drawn.randint(0, 1)):
                put(more[way], name, version)
        image, name = photograph(seed + number), f"photograph {number}"
        put(image, name, "")
        more = copies(image)
        for way in drawn.sample(list(more), 3):
            put(more[way], name, "")
    return Truth(found)
