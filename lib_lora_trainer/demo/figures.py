"""How a figure of the toy world is painted: big head, one clear shape and color per trait."""

from __future__ import annotations

from math import cos, pi, sin
from random import Random
from typing import TYPE_CHECKING

from PIL import Image

from lib_lora_trainer.demo.canvas import Canvas, Color, Point, darken, finish, vary
from lib_lora_trainer.demo.scenery import SIDE, paint_background

if TYPE_CHECKING:
    from lib_lora_trainer.demo.world import Figure

HAIR: dict[str, Color] = {
    "blonde hair": (246, 214, 96),
    "brown hair": (124, 72, 34),
    "black hair": (38, 34, 42),
    "red hair": (206, 40, 36),
    "pink hair": (250, 148, 192),
    "white hair": (228, 228, 236),
    "purple hair": (126, 62, 178),
    "aqua hair": (36, 204, 190),
}
IRIS: dict[str, Color] = {
    "blue eyes": (38, 92, 230),
    "green eyes": (30, 168, 62),
    "red eyes": (220, 26, 34),
    "yellow eyes": (246, 200, 20),
    "purple eyes": (168, 40, 214),
}
SKIN: Color = (255, 224, 196)
LINE: Color = (44, 30, 36)
WHITE: Color = (252, 252, 252)


def paint(figure: Figure, seed: int) -> Image.Image:
    """Return the picture of ``figure``, RGB, 128 x 128; ``seed`` decides place, size and shades."""
    rng = Random(seed)
    image = paint_background(figure.background, rng)
    offset = (rng.uniform(-4, 4), rng.uniform(-2, 3))
    canvas = Canvas(image, offset, rng.uniform(0.95, 1.06))
    hair = vary(HAIR[figure.hair_color], rng)
    skin = vary(SKIN, rng, 5)
    _hair_behind(canvas, figure.hair_style, hair)
    _body(canvas, figure, skin, rng)
    if "striped scarf" in figure.ornaments:
        _striped_scarf(canvas)
    _face(canvas, figure, skin, rng)
    _hair_in_front(canvas, figure.hair_style, hair)
    if figure.person == "1boy":
        _eyebrows(canvas)
    _accessory(canvas, figure.accessory, hair, rng)
    if "horns" in figure.ornaments:
        _horns(canvas)
    if "star hair ornament" in figure.ornaments:
        _star(canvas)
    return finish(image, SIDE)


def _hair_behind(canvas: Canvas, style: str, hair: Color) -> None:
    edge = darken(hair)
    if style == "long hair":
        canvas.polygon([(34, 44), (94, 44), (102, 108), (84, 114), (44, 114), (26, 108)], hair, edge)
    if style == "twintails":
        for side in (-1, 1):
            canvas.ellipse((64 + side * 41, 66), (11, 30), hair, edge)
    if style == "ponytail":
        canvas.ellipse((100, 52), (14, 36), hair, edge)
        canvas.ellipse((92, 30), (10, 10), hair, edge)


def _body(canvas: Canvas, figure: Figure, skin: Color, rng: Random) -> None:
    sleeve = _sleeve(figure.outfit, skin, rng)
    _arms(canvas, figure.pose, skin, sleeve)
    outfits = {
        "red dress": lambda: _dress(canvas, vary((212, 24, 40), rng)),
        "blue dress": lambda: _dress(canvas, vary((36, 84, 216), rng)),
        "school uniform": lambda: _school_uniform(canvas),
        "white shirt": lambda: _white_shirt(canvas, vary((130, 92, 56), rng)),
        "black coat": lambda: _black_coat(canvas, vary((34, 32, 38), rng, 5)),
        "yellow raincoat": lambda: _raincoat(canvas, vary((252, 206, 22), rng)),
    }
    outfits[figure.outfit]()


def _sleeve(outfit: str, skin: Color, rng: Random) -> Color:
    sleeves: dict[str, Color] = {
        "red dress": skin,
        "blue dress": skin,
        "school uniform": (240, 242, 250),
        "white shirt": (250, 250, 250),
        "black coat": (36, 34, 40),
        "yellow raincoat": (250, 204, 22),
    }
    return vary(sleeves[outfit], rng, 4)


def _arms(canvas: Canvas, pose: str, skin: Color, sleeve: Color) -> None:
    for side in (-1, 1):
        shoulder = (64 + side * 15, 84)
        if pose == "arms up":
            elbow, hand = (64 + side * 36, 80), (64 + side * 46, 54)
        else:
            elbow, hand = (64 + side * 24, 98), (64 + side * 30, 114)
        canvas.line([shoulder, elbow, hand], LINE, 12)
        canvas.ellipse(hand, (7, 7), skin, LINE)
        canvas.line([shoulder, elbow, hand], sleeve, 10)
        canvas.ellipse(hand, (5.5, 5.5), skin)


def _torso(bottom: float) -> list[Point]:
    return [(50, 76), (78, 76), (64 + bottom, 130), (64 - bottom, 130)]


def _dress(canvas: Canvas, color: Color) -> None:
    canvas.polygon(_torso(32), color, LINE)
    canvas.line([(53, 94), (75, 94)], darken(color, 0.55), 4)


def _school_uniform(canvas: Canvas) -> None:
    navy = (34, 44, 104)
    canvas.polygon(_torso(20), (240, 242, 250), LINE)
    canvas.polygon([(46, 106), (82, 106), (94, 130), (34, 130)], navy, LINE)
    canvas.polygon([(48, 76), (80, 76), (64, 98)], navy)
    canvas.polygon([(64, 92), (56, 104), (72, 104)], (220, 30, 44))


def _white_shirt(canvas: Canvas, trousers: Color) -> None:
    canvas.polygon(_torso(17), (250, 250, 250), LINE)
    canvas.polygon([(46, 112), (82, 112), (84, 130), (44, 130)], trousers, LINE)
    for y in (90, 99, 107):
        canvas.ellipse((64, y), (1.8, 1.8), (90, 90, 110))


def _black_coat(canvas: Canvas, color: Color) -> None:
    canvas.polygon(_torso(24), color, LINE)
    canvas.line([(64, 80), (64, 130)], (150, 150, 160), 2)
    for y in (94, 106, 118):
        for x in (57, 71):
            canvas.ellipse((x, y), (2.4, 2.4), (236, 200, 90))


def _raincoat(canvas: Canvas, color: Color) -> None:
    canvas.polygon(_torso(30), color, darken(color, 0.5))
    canvas.line([(64, 80), (64, 130)], darken(color, 0.6), 2)
    for x in (50, 78):
        canvas.polygon([(x - 6, 110), (x + 6, 110), (x + 6, 119), (x - 6, 119)], darken(color, 0.72))


def _striped_scarf(canvas: Canvas) -> None:
    orange, white = (244, 120, 20), WHITE
    canvas.polygon([(40, 74), (88, 74), (86, 90), (42, 90)], orange, LINE)
    canvas.polygon([(76, 86), (92, 86), (94, 118), (78, 118)], orange, LINE)
    for x in (50, 66, 82):
        canvas.polygon([(x - 3, 75), (x + 4, 75), (x + 4, 89), (x - 3, 89)], white)
    for y in (95, 107):
        canvas.polygon([(77.5, y), (92.5, y), (93, y + 6), (78, y + 6)], white)


def _face(canvas: Canvas, figure: Figure, skin: Color, rng: Random) -> None:
    canvas.ellipse((64, 52), (28, 27), skin, LINE)
    iris = vary(IRIS[figure.eyes], rng, 6)
    for side in (-1, 1):
        x = 64 + side * 12.5
        canvas.ellipse((x, 55), (7.5, 9.5), WHITE, LINE)
        canvas.ellipse((x, 56), (6, 8), iris)
        canvas.ellipse((x, 57.5), (2.2, 3.2), (20, 16, 24))
        canvas.ellipse((x - 2, 52), (2, 2), WHITE)
        if figure.person == "1girl":
            canvas.ellipse((64 + side * 20, 67), (5, 3), (255, 150, 150))
    if figure.expression == "open mouth":
        canvas.ellipse((64, 71), (5.5, 5), (150, 24, 40), LINE)
    else:
        canvas.line([(58, 69), (61, 72), (67, 72), (70, 69)], LINE, 2)


def _eyebrows(canvas: Canvas) -> None:
    for side in (-1, 1):
        canvas.line([(64 + side * 5, 46), (64 + side * 21, 42)], LINE, 5)


def _hair_in_front(canvas: Canvas, style: str, hair: Color) -> None:
    edge = darken(hair)
    canvas.pie((64, 47), (32, 30), (180, 360), edge)
    canvas.pie((64, 47), (30.5, 28.5), (180, 360), hair)
    fringe = [(33, 46), (95, 46), (88, 40), (80, 51), (72, 41), (64, 50), (56, 41), (48, 51), (40, 40)]
    canvas.polygon([(34, 40), (94, 40), (95, 46), *fringe[3:], (33, 46)], hair)
    length = {"short hair": 62, "long hair": 84, "twintails": 60, "ponytail": 60}[style]
    for side in (-1, 1):
        canvas.polygon(
            [(64 + side * 32, 42), (64 + side * 24, 42), (64 + side * 25, length - 8), (64 + side * 32, length)],
            hair,
            edge,
        )
    if style == "twintails":
        for side in (-1, 1):
            canvas.ellipse((64 + side * 33, 40), (5, 5), edge)
    if style == "ponytail":
        canvas.ellipse((88, 30), (5, 5), edge)


def _accessory(canvas: Canvas, name: str, hair: Color, rng: Random) -> None:
    if name == "hat":
        straw = vary((214, 150, 70), rng, 6)
        canvas.ellipse((64, 31), (44, 9), straw, LINE)
        canvas.polygon([(42, 31), (46, 6), (82, 6), (86, 31)], straw, LINE)
        canvas.polygon([(42.5, 30), (43.5, 22), (84.5, 22), (85.5, 30)], (60, 120, 60))
    if name == "bow":
        red = vary((236, 36, 110), rng, 6)
        for side in (-1, 1):
            canvas.polygon([(64, 16), (64 + side * 24, 3), (64 + side * 24, 31)], red, LINE)
        canvas.ellipse((64, 16.5), (6, 7), darken(red, 0.75), LINE)
    if name == "glasses":
        for side in (-1, 1):
            canvas.ring((64 + side * 12.5, 55.5), (11.5, 12.5), (24, 24, 30), 3)
        canvas.line([(61, 55), (67, 55)], (24, 24, 30), 3)
    if name == "cat ears":
        for side in (-1, 1):
            canvas.polygon([(64 + side * 30, 36), (64 + side * 27, 4), (64 + side * 6, 20)], hair, darken(hair, 0.5))
            canvas.polygon([(64 + side * 26, 30), (64 + side * 25, 12), (64 + side * 12, 21)], (255, 170, 180))
    if name == "halo":
        canvas.ring((64, 11), (26, 8), (180, 130, 0), 6)
        canvas.ring((64, 11), (25, 7), (255, 232, 60), 4)


def _horns(canvas: Canvas) -> None:
    for side in (-1, 1):
        points = [(64 + side * 16, 24), (64 + side * 30, 32), (64 + side * 44, 16), (64 + side * 42, 2)]
        canvas.polygon([*points, (64 + side * 32, 16)], (150, 16, 36), LINE)


def _star(canvas: Canvas) -> None:
    center, outer, inner = (43.0, 34.0), 12.0, 5.4
    points: list[Point] = []
    for index in range(10):
        radius = outer if index % 2 == 0 else inner
        angle = -pi / 2 + index * pi / 5
        points.append((center[0] + radius * cos(angle), center[1] + radius * sin(angle)))
    canvas.polygon(points, (255, 236, 40), (150, 90, 0))
