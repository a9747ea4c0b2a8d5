"""The report of a trial as one HTML page that needs no other file: verdict, curves, table, and images by cell."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from lib_lora_trainer.base.files import write_text
from lib_lora_trainer.evaluate.pick import Cell, Rate, quality, rate
from lib_lora_trainer.evaluate.pick_report import Report
from lib_lora_trainer.evaluate.pick_store import Store

WIDTH, HEIGHT, LEFT, BOTTOM = 640, 260, 44, 34
THUMB = 160
"""Pixels of the longer side of an embedded image; the whole ones lie beside the page."""
SHOWN = {"recall": 4, "control": 3, "bleed": 2}
"""Images of each kind that a cell shows."""
_COLOURS = {
    "recall": "#2563eb", "control": "#16a34a", "bleed": "#dc2626", "mixed": "#d97706", "defects": "#7c3aed",
    "copies": "#64748b",
}  # fmt: skip
_NAMES = {
    "recall": "traits with the trigger", "control": "prompted tags obeyed", "bleed": "traits without the trigger",
    "mixed": "other triggers' traits", "defects": "damaged images", "copies": "copies of the dataset",
}  # fmt: skip
_TITLES = {
    "no-effect": "No effect", "too-short": "Trained too short", "right": "Trained long enough",
    "too-long": "Trained too long",
}  # fmt: skip
_STYLE = """body{font:16px system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse}td,th{padding:.25rem .7rem;text-align:right}th:first-child{text-align:left}
svg{max-width:100%;height:auto}.best{outline:3px solid #2563eb}.images{display:flex;flex-wrap:wrap;gap:.3rem}
figure{margin:0;width:160px}figcaption{font-size:.75rem;overflow-wrap:anywhere}.error,.warning{font-weight:600}
summary{cursor:pointer;padding:.2rem 0}"""


def write(path: Path, report: Report, store: Store) -> None:
    """Write the page. Raises OSError."""
    write_text(path, page(report, store))


def page(report: Report, store: Store) -> str:
    """Return the page; an image that is gone is left out."""
    verdict, choice = report.verdict, report.verdict.choice
    why = "".join(f"<p>{html.escape(text)}</p>" for text in verdict.why)
    findings = "".join(
        f'<li><span class="{each.severity}">{html.escape(each.text)}</span> {html.escape(each.fix)}</li>'
        for each in verdict.findings
    )
    curves = ""
    if choice is not None:
        cell = choice.cell
        row = sorted((each for each in report.trial.cells if each.label == cell.label), key=lambda each: each.weight)
        column = sorted((each for each in report.trial.cells if each.weight == cell.weight), key=lambda each: each.step)
        curves = (
            f"<h2>By training, at weight {cell.weight:g}</h2>"
            + chart(report, column, lambda each: each.step, lambda each: f"{each.epoch or each.step}")
            + f"<h2>By weight, of {html.escape(cell.label)}</h2>"
            + chart(report, row, lambda each: each.weight, lambda each: f"{each.weight:g}")
            + _legend(report)
        )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Picking an epoch</title><style>{_STYLE}</style>'
        f"<h1>{_TITLES[verdict.length]}</h1>{why}<ul>{findings}</ul>{curves}<h2>Quality</h2>{_table(report)}"
        f"<h2>Images</h2>{_images(report, store)}</html>\n"
    )


def chart(report: Report, cells: Sequence[Cell], across: Callable[[Cell], float], named: Callable[[Cell], str]) -> str:
    """Return the rates of cells as inline SVG, each with its interval; from left to right as `across` says."""
    places = [across(cell) for cell in cells]
    low, high = min(places), max(places)
    xs = [LEFT + 20 + (WIDTH - LEFT - 40) * ((at - low) / (high - low) if high > low else 0.5) for at in places]
    parts = [
        f'<line x1="{LEFT}" x2="{WIDTH}" y1="{_y(share):.1f}" y2="{_y(share):.1f}" stroke="#ddd"/>'
        f'<text x="4" y="{_y(share) + 4:.1f}" font-size="12">{share:.0%}</text>'
        for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    for kind in _kinds(report):
        rates = [rate(getattr(cell, kind)) for cell in cells]
        parts.append(_line(kind, xs, rates))
    chosen = report.verdict.choice.cell if report.verdict.choice else None
    for x, cell in zip(xs, cells, strict=True):
        weight = "bold" if cell is chosen else "normal"
        label = html.escape(named(cell))
        parts.append(
            f'<text x="{x:.1f}" y="{HEIGHT - 10}" font-size="12" font-weight="{weight}" text-anchor="middle">{label}</text>'
        )
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="rates by cell">{"".join(parts)}</svg>'


def _line(kind: str, xs: Sequence[float], rates: Sequence[Rate]) -> str:
    colour = _COLOURS[kind]
    points = " ".join(f"{x:.1f},{_y(each.mean):.1f}" for x, each in zip(xs, rates, strict=True))
    marks = "".join(
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_y(each.low):.1f}" y2="{_y(each.high):.1f}" stroke="{colour}" '
        f'stroke-opacity=".35"/><circle cx="{x:.1f}" cy="{_y(each.mean):.1f}" r="3" fill="{colour}">'
        f"<title>{_NAMES[kind]}: {each.mean:.0%} ({each.low:.0%} to {each.high:.0%})</title></circle>"
        for x, each in zip(xs, rates, strict=True)
    )
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>{marks}'


def _y(share: float) -> float:
    return 10 + (HEIGHT - BOTTOM - 10) * (1 - share)


def _kinds(report: Report) -> list[str]:
    return [kind for kind in _NAMES if getattr(report.trial.cells[0], kind)]


def _legend(report: Report) -> str:
    base = report.trial.base
    return (
        "<p>"
        + " · ".join(
            f'<span style="color:{_COLOURS[kind]}">{_NAMES[kind]} (base model {rate(getattr(base, kind)).mean:.0%})</span>'
            for kind in _kinds(report)
        )
        + f"; bars hold 90 %. The dataset's own pictures show {report.trial.ceiling:.0%} of the traits.</p>"
    )


def _table(report: Report) -> str:
    """Return the quality of every file at every weight; the recommended one framed, those tied with it bold."""
    trial, choice = report.trial, report.verdict.choice
    weights = sorted({cell.weight for cell in trial.cells})
    rows = []
    for label in dict.fromkeys(cell.label for cell in sorted(trial.cells, key=lambda each: each.step)):
        fields = [f"<th>{html.escape(label)}</th>"]
        for weight in weights:
            number = next(n for n, each in enumerate(trial.cells) if (each.label, each.weight) == (label, weight))
            cell, value = trial.cells[number], quality(trial, trial.cells[number])
            best = ' class="best"' if choice and cell is choice.cell else ""
            text = f"<b>{value:.2f}</b>" if choice and choice.qualities[number].tied else f"{value:.2f}"
            fields.append(f'<td{best} style="background:rgba(37,99,235,{0.6 * value:.2f})">{text}</td>')
        rows.append(f"<tr>{''.join(fields)}</tr>")
    heads = "".join(f"<th>{weight:g}</th>" for weight in weights)
    return f"<table><tr><th>weight</th>{heads}</tr>{''.join(rows)}</table>"


def _images(report: Report, store: Store) -> str:
    choice = report.verdict.choice
    sections = []
    for number, cell in enumerate((report.trial.base, *report.trial.cells)):
        left = dict(SHOWN)
        figures = []
        for shot, key in zip(report.shots, report.keys[number], strict=True):
            left[shot.kind] -= 1
            image = store.load_image(key) if left[shot.kind] >= 0 else None
            if image is not None:
                text = html.escape(shot.request.prompt or "(nothing)")
                figures.append(
                    f'<figure><img alt="{text}" src="{_embedded(image)}"><figcaption>{text}</figcaption></figure>'
                )
        name = f"{html.escape(cell.label)} at {cell.weight:g}" if number else "The base model"
        opened = " open" if number == 0 or (choice and cell is choice.cell) else ""
        sections.append(
            f"<details{opened}><summary>{name}</summary><div class=images>{''.join(figures)}</div></details>"
        )
    return "".join(sections)


def _embedded(image: Image.Image) -> str:
    small = image.copy()
    small.thumbnail((THUMB, THUMB), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, format="JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
