"""The backgrounds of the toy world."""

from __future__ import annotations

from random import Random

from PIL import Image, ImageDraw

from lib_lora_trainer.demo.canvas import SUPERSAMPLING, Canvas, Color, blank, vary

SIDE = 128


def paint_background(name: str, rng: Random) -> Image.Image:
    """Return a supersampled picture of the background ``name``; raises KeyError for a name the world lacks."""
    painters = {
        "white background": _white,
        "forest": _forest,
        "beach": _beach,
        "night sky": _night_sky,
        "indoors": _indoors,
        "sunset": _sunset,
    }
    return painters[name](rng)


def _gradient(top: Color, bottom: Color) -> Image.Image:
    image = blank(SIDE, top)
    pen = ImageDraw.Draw(image)
    height = SIDE * SUPERSAMPLING
    for row in range(height):
        part = row / (height - 1)
        color = tuple(round(a + (b - a) * part) for a, b in zip(top, bottom, strict=True))
        pen.line([(0, row), (height, row)], fill=color)
    return image


def _white(rng: Random) -> Image.Image:
    shade = rng.randint(244, 255)
    return blank(SIDE, (shade, shade, shade))


def _forest(rng: Random) -> Image.Image:
    image = blank(SIDE, vary((118, 186, 104), rng))
    canvas = Canvas(image)
    leaf = vary((34, 120, 48), rng)
    trunk = vary((110, 74, 40), rng)
    canvas.polygon([(-2, 100), (130, 100), (130, 130), (-2, 130)], vary((66, 140, 52), rng))
    for x in (6, 30, 54, 78, 102, 126):
        middle = x + rng.uniform(-5, 5)
        top = rng.uniform(-6, 22)
        canvas.polygon([(middle - 4, 60), (middle + 4, 60), (middle + 4, 108), (middle - 4, 108)], trunk)
        canvas.polygon([(middle, top), (middle - 17, 82), (middle + 17, 82)], vary(leaf, rng, 12))
    return image


def _beach(rng: Random) -> Image.Image:
    image = blank(SIDE, vary((150, 214, 250), rng))
    canvas = Canvas(image)
    horizon = rng.uniform(46, 56)
    shore = rng.uniform(84, 92)
    canvas.polygon([(-2, horizon), (130, horizon), (130, shore), (-2, shore)], vary((30, 130, 205), rng))
    canvas.polygon([(-2, shore), (130, shore), (130, 130), (-2, 130)], vary((244, 220, 150), rng))
    canvas.line([(-2, shore), (130, shore)], (255, 255, 255), 3)
    for x in (16, 108):
        center = (x + rng.uniform(-8, 8), rng.uniform(12, 30))
        canvas.ellipse(center, (13, 5), (255, 255, 255))
    return image


def _night_sky(rng: Random) -> Image.Image:
    image = _gradient(vary((10, 12, 44), rng, 4), vary((42, 44, 104), rng, 6))
    canvas = Canvas(image)
    for _ in range(26):
        radius = rng.uniform(0.8, 1.7)
        canvas.ellipse((rng.uniform(0, 128), rng.uniform(0, 124)), (radius, radius), (250, 248, 214))
    moon = rng.choice(((16, 20), (112, 20)))
    canvas.ellipse((moon[0] + rng.uniform(-3, 3), moon[1] + rng.uniform(-3, 3)), (10, 10), (250, 244, 190))
    return image


def _indoors(rng: Random) -> Image.Image:
    image = blank(SIDE, vary((222, 196, 170), rng))
    canvas = Canvas(image)
    floor = rng.uniform(92, 100)
    canvas.polygon([(-2, floor), (130, floor), (130, 130), (-2, 130)], vary((150, 98, 60), rng))
    left = rng.uniform(-2, 4)
    frame = (255, 250, 240)
    for x in (left, left + 94):
        canvas.polygon([(x, 16), (x + 32, 16), (x + 32, 62), (x, 62)], frame)
        canvas.polygon([(x + 3, 19), (x + 29, 19), (x + 29, 59), (x + 3, 59)], vary((130, 200, 240), rng, 5))
        canvas.line([(x + 16, 16), (x + 16, 62)], frame, 3)
        canvas.line([(x, 39), (x + 32, 39)], frame, 3)
    return image


def _sunset(rng: Random) -> Image.Image:
    image = _gradient(vary((150, 60, 130), rng, 8), vary((255, 170, 60), rng, 8))
    canvas = Canvas(image)
    center = (rng.choice((18, 110)) + rng.uniform(-5, 5), rng.uniform(56, 70))
    canvas.ellipse(center, (15, 15), (255, 232, 130))
    canvas.polygon([(-2, 100), (30, 92), (64, 102), (98, 92), (130, 100), (130, 130), (-2, 130)], (90, 36, 70))
    return image
