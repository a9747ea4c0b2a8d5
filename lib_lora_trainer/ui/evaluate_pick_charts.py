"""What a trial measured as small curves, one for each measure, as inline SVG."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

WIDTH, HEIGHT = 240.0, 110.0
LEFT, RIGHT, TOP, BOTTOM = 30.0, 10.0, 8.0, 18.0


@dataclass(frozen=True)
class Measure:
    """A curve. title: what it is; good: where it should be; most: the upper end of its axis; percent: shares."""

    name: str
    title: str
    good: str
    most: float = 1.0
    percent: bool = True


MEASURES = (
    Measure("recall", "Traits with the trigger", "high"),
    Measure("control", "Prompted tags obeyed", "as the base model"),
    Measure("bleed", "Traits without the trigger", "as the base model"),
    Measure("mixed", "Other triggers’ traits", "low"),
    Measure("defects", "Damaged images", "low"),
    Measure("copies", "Copies of the dataset", "low"),
    Measure("similarity", "Similarity to the dataset", "above the base model"),
    Measure("nearest", "Distance to the nearest picture", "not near 0", most=2.0, percent=False),
)


def charts(report: Mapping[str, Any], cells: Sequence[Mapping[str, Any]], across: str, chosen: float) -> str:
    """Return a chart of each measure over cells. across: what is from left to right, step or weight; chosen: marked."""
    drawn = "".join(
        _chart(measure, report["base"], cells, (across, chosen)) for measure in MEASURES if measure.name in cells[0]
    )
    return f'<div class="lora-trainer-measures">{drawn}</div>'


def legend(report: Mapping[str, Any]) -> str:
    """Return what the lines mean."""
    return (
        '<p class="lora-trainer-legend"><small>Dashed: the base model. Bars hold 90 %. The large dot is recommended. The '
        f"dataset’s own pictures show {report['ceiling']:.0%} of the traits; 1 is how far they are from each other.</small></p>"
    )


def _chart(
    measure: Measure, base: Mapping[str, Any], cells: Sequence[Mapping[str, Any]], axis: tuple[str, float]
) -> str:
    across, chosen = axis
    places = [float(cell[across]) for cell in cells]
    x = _scale(places)
    values = [_of(cell, measure) for cell in cells]
    body = "".join(
        f'<path class="lora-trainer-rule" d="M{LEFT},{_y(share * measure.most, measure):.1f}H{WIDTH}"/>'
        f'<text x="{LEFT - 4}" y="{_y(share * measure.most, measure) + 3:.1f}" text-anchor="end">'
        f"{_text(share * measure.most, measure)}</text>"
        for share in (0.0, 0.5, 1.0)
    )
    if measure.name in base:
        level = _y(_of(base, measure)[0], measure)
        body += f'<path class="lora-trainer-base" d="M{LEFT},{level:.1f}H{WIDTH}"/>'
    points = " ".join(f"{x(at):.1f},{_y(value[0], measure):.1f}" for at, value in zip(places, values, strict=True))
    body += f'<polyline class="lora-trainer-line lora-trainer-line-0" points="{points}"/>'
    for at, (mean, low, high), cell in zip(places, values, cells, strict=True):
        name = f"epoch {cell['epoch'] or cell['step']}" if across == "step" else f"weight {at:g}"
        told = f"{name}: {_text(mean, measure)}"
        told += f" ({_text(low, measure)} to {_text(high, measure)})" if low < high else ""
        body += (
            f'<path class="lora-trainer-bar" d="M{x(at):.1f},{_y(low, measure):.1f}V{_y(high, measure):.1f}"/>'
            f'<circle cx="{x(at):.1f}" cy="{_y(mean, measure):.1f}" r="{5 if at == chosen else 2.5}">'
            f"<title>{escape(told)}</title></circle>"
        )
    body += _ends(cells, places, x, across)
    return (
        f'<figure><figcaption>{measure.title} <small>{measure.good}</small></figcaption><svg viewBox="0 0 {WIDTH:.0f} '
        f'{HEIGHT:.0f}" role="img" aria-label="{measure.title}">{body}</svg></figure>'
    )


def _ends(cells: Sequence[Mapping[str, Any]], places: Sequence[float], x: Callable[[float], float], across: str) -> str:
    """Return the names of the first and the last place."""
    found = ""
    for number, anchor in ((0, "start"), (-1, "end")) if len(cells) > 1 else ((0, "middle"),):
        cell = cells[number]
        name = (f"epoch {cell['epoch']}" if cell["epoch"] else f"step {cell['step']}") if across == "step" else ""
        found += (
            f'<text x="{x(places[number]):.1f}" y="{HEIGHT - 4}" text-anchor="{anchor}">{name or f"{places[number]:g}"}'
            "</text>"
        )
    return found


def _scale(places: Sequence[float]) -> Callable[[float], float]:
    low, high = min(places), max(places)
    first, last = LEFT + 8, WIDTH - RIGHT

    def x(at: float) -> float:
        return first + (last - first) * ((at - low) / (high - low) if high > low else 0.5)

    return x


def _of(cell: Mapping[str, Any], measure: Measure) -> tuple[float, float, float]:
    """Return a measure with the interval that holds it; the measure itself where there is none."""
    found = cell[measure.name]
    if isinstance(found, Mapping):
        return found["mean"], found["low"], found["high"]
    return found, found, found


def _y(value: float, measure: Measure) -> float:
    return TOP + (HEIGHT - BOTTOM - TOP) * (1 - min(max(value / measure.most, 0.0), 1.0))


def _text(value: float, measure: Measure) -> str:
    return f"{value:.0%}" if measure.percent else f"{value:.2g}"
