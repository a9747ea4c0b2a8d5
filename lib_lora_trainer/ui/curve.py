"""Loss curves as inline SVG: a band of the raw loss, the smoothed line, and where files were saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from lib_lora_trainer.base.events import Progress

WIDTH, HEIGHT = 720.0, 200.0
BINS = 240
"""Points per line at most; more steps are gathered, so that a page update stays small."""


@dataclass(frozen=True)
class Line:
    """One run's curve. name: shown in the legend, already escaped. saved: steps at which an adapter was written."""

    name: str
    points: Sequence[Progress]
    saved: frozenset[int] = frozenset()


@dataclass(frozen=True)
class _Bin:
    step: float
    low: float
    high: float
    smooth: float


@dataclass(frozen=True)
class _Scale:
    first: float
    last: float
    low: float
    high: float

    def x(self, step: float) -> float:
        return (step - self.first) / max(self.last - self.first, 1e-9) * WIDTH

    def y(self, loss: float) -> float:
        share = (loss - self.low) / max(self.high - self.low, 1e-12)
        return HEIGHT * (1.0 - min(max(share, -0.05), 1.05))


def drawn(lines: Sequence[Line], *, band: bool = True) -> str:
    """Return the curves as HTML; "" without a finite loss. band: show the raw loss behind the first line."""
    binned = [(line, _bins(line.points)) for line in lines]
    binned = [(line, bins) for line, bins in binned if bins]
    if not binned:
        return ""
    scale = _scale([bins for _, bins in binned], raw=band)
    body = _band(binned[0][1], scale) if band else ""
    for number, (line, bins) in enumerate(binned):
        body += _line(bins, scale, number) + _marks(line, bins, scale)
    if band:
        body = _epochs(binned[0][0].points, scale) + body
    ticks = "".join(
        f'<span style="top:{scale.y(value) / HEIGHT * 100:.1f}%">{value:.3g}</span>'
        for value in (scale.low + (scale.high - scale.low) * share for share in (0.1, 0.5, 0.9))
    )
    legend = "".join(
        f'<span class="lora-trainer-key lora-trainer-line-{number}">{line.name}</span>'
        for number, (line, _) in enumerate(binned)
    )
    return (
        '<figure class="lora-trainer-curve"><div class="lora-trainer-plot">'
        f'<div class="lora-trainer-ticks">{ticks}</div>'
        f'<svg viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" preserveAspectRatio="none" role="img" aria-label="Loss curve">'
        f"{body}</svg></div><figcaption><span>step {scale.first:.0f}</span>{legend}<span>{scale.last:.0f}</span>"
        "</figcaption></figure>"
    )


def _bins(points: Sequence[Progress]) -> list[_Bin]:
    finite = [point for point in points if abs(point.loss) < 1e9 and abs(point.loss_average) < 1e9]
    size = -(-len(finite) // BINS) or 1
    bins = []
    for start in range(0, len(finite), size):
        part = finite[start : start + size]
        losses = [point.loss for point in part]
        bins.append(_Bin(part[-1].step, min(losses), max(losses), part[-1].loss_average))
    return bins


def _scale(curves: Sequence[Sequence[_Bin]], *, raw: bool) -> _Scale:
    """Return the axes. raw: the raw loss is drawn as well."""
    # A single outlier must not flatten the rest: the raw loss counts up to its 95th percentile, the smoothed one whole.
    smooth = [item.smooth for bins in curves for item in bins]
    high = sorted(item.high for bins in curves for item in bins)
    low = sorted(item.low for bins in curves for item in bins)
    top = max(high[int(0.95 * (len(high) - 1))], *smooth) if raw else max(smooth)
    bottom = min(low[int(0.05 * (len(low) - 1))], *smooth) if raw else min(smooth)
    margin = max((top - bottom) * 0.06, abs(top) * 0.01, 1e-6)
    first = min(bins[0].step for bins in curves)
    last = max(bins[-1].step for bins in curves)
    return _Scale(first, last, bottom - margin, top + margin)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _band(bins: Sequence[_Bin], scale: _Scale) -> str:
    upper = [(scale.x(item.step), scale.y(item.high)) for item in bins]
    lower = [(scale.x(item.step), scale.y(item.low)) for item in reversed(bins)]
    if all(item.high == item.low for item in bins):  # one step per point: a thin raw line instead of an empty band
        return f'<polyline class="lora-trainer-raw" points="{_path(upper)}"/>'
    return f'<polygon class="lora-trainer-band" points="{_path(upper + lower)}"/>'


def _line(bins: Sequence[_Bin], scale: _Scale, number: int) -> str:
    points = _path([(scale.x(item.step), scale.y(item.smooth)) for item in bins])
    return f'<polyline class="lora-trainer-line lora-trainer-line-{number}" points="{points}"/>'


def _marks(line: Line, bins: Sequence[_Bin], scale: _Scale) -> str:
    marks = ""
    for step in sorted(line.saved):
        near = min(bins, key=lambda item: abs(item.step - step))
        x, y = scale.x(step), scale.y(near.smooth)
        marks += f'<path class="lora-trainer-saved" d="M{x:.1f},{y:.1f}h0"><title>saved at step {step}</title></path>'
    return marks


def _epochs(points: Sequence[Progress], scale: _Scale) -> str:
    starts = [b.step for a, b in pairwise(points) if b.epoch != a.epoch]
    shown = starts if len(starts) <= 40 else ()
    return "".join(f'<path class="lora-trainer-epoch" d="M{scale.x(step):.1f},0V{HEIGHT:.0f}"/>' for step in shown)
