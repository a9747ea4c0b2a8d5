"""Shapes in the coordinates of a 128-pixel picture, drawn twice as large and averaged down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw

SUPERSAMPLING = 2

Color = tuple[int, int, int]
Point = tuple[float, float]


@dataclass(frozen=True)
class Canvas:
    """A picture under construction; figure coordinates (x, y) land at ``scale * (x - 64) + 64 + offset``."""

    image: Image.Image
    offset: Point = (0.0, 0.0)
    scale: float = 1.0

    def place(self, x: float, y: float) -> Point:
        """Return the pixel of the supersampled image for figure coordinates ``x``, ``y``."""
        return (
            SUPERSAMPLING * (self.scale * (x - 64) + 64 + self.offset[0]),
            SUPERSAMPLING * (self.scale * (y - 64) + 64 + self.offset[1]),
        )

    def ellipse(self, center: Point, radii: Point, fill: Color, edge: Color | None = None) -> None:
        """Fill an ellipse; with ``edge`` it gets an outline of about one pixel."""
        box = (
            *self.place(center[0] - radii[0], center[1] - radii[1]),
            *self.place(center[0] + radii[0], center[1] + radii[1]),
        )
        ImageDraw.Draw(self.image).ellipse(box, fill=fill, outline=edge, width=0 if edge is None else 3)

    def ring(self, center: Point, radii: Point, color: Color, width: float) -> None:
        """Draw the outline of an ellipse, ``width`` in pixels of the final picture."""
        box = (
            *self.place(center[0] - radii[0], center[1] - radii[1]),
            *self.place(center[0] + radii[0], center[1] + radii[1]),
        )
        ImageDraw.Draw(self.image).ellipse(box, outline=color, width=round(SUPERSAMPLING * width))

    def polygon(self, points: Sequence[Point], fill: Color, edge: Color | None = None) -> None:
        """Fill a polygon; with ``edge`` it gets an outline of about one pixel."""
        placed = [self.place(x, y) for x, y in points]
        pen = ImageDraw.Draw(self.image)
        pen.polygon(placed, fill=fill)
        if edge is not None:
            pen.line([*placed, placed[0], placed[1]], fill=edge, width=3)

    def line(self, points: Sequence[Point], color: Color, width: float) -> None:
        """Draw a polyline, ``width`` in pixels of the final picture."""
        pen = ImageDraw.Draw(self.image)
        pen.line([self.place(x, y) for x, y in points], fill=color, width=round(SUPERSAMPLING * width), joint="curve")

    def pie(self, center: Point, radii: Point, angles: Point, fill: Color) -> None:
        """Fill the part of an ellipse between two angles, degrees clockwise from three o'clock, chord as the edge."""
        box = (
            *self.place(center[0] - radii[0], center[1] - radii[1]),
            *self.place(center[0] + radii[0], center[1] + radii[1]),
        )
        ImageDraw.Draw(self.image).chord(box, angles[0], angles[1], fill=fill)


def blank(side: int, color: Color) -> Image.Image:
    """Return a supersampled image of one color for a picture of ``side`` pixels."""
    return Image.new("RGB", (side * SUPERSAMPLING, side * SUPERSAMPLING), color)


def finish(image: Image.Image, side: int) -> Image.Image:
    """Average the supersampled ``image`` down to ``side`` pixels."""
    return image.resize((side, side), Image.Resampling.BOX)


def vary(color: Color, rng: Random, amount: int = 9) -> Color:
    """Return ``color`` with every channel moved by at most ``amount`` of 255, clipped."""
    shift = rng.randint(-amount, amount)
    red, green, blue = (min(255, max(0, part + shift + rng.randint(-amount // 2, amount // 2))) for part in color)
    return (red, green, blue)


def darken(color: Color, factor: float = 0.6) -> Color:
    """Return ``color`` multiplied by ``factor``."""
    return (round(color[0] * factor), round(color[1] * factor), round(color[2] * factor))
