"""The report of an analysis in pictures: the ranking, the heat map and the smallest set as HTML, and a sheet of images."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lib_lora_trainer.base.files import replacing, write_text
from lib_lora_trainer.evaluate import blocks, grid_sheet
from lib_lora_trainer.evaluate.blocks import Row
from lib_lora_trainer.evaluate.blocks_report import Report
from lib_lora_trainer.evaluate.grid_sheet import Labels
from lib_lora_trainer.evaluate.pick import Gain
from lib_lora_trainer.evaluate.pick_store import Store

THUMB = 256
"""Pixels of the longer side of an image on the sheet; the whole ones lie beside it."""
_LEFT, _CELL, _LINE, _HEAD = 62, 76, 24, 44  # pixels of the heat map
_MORE, _LESS = "#2563eb", "#d97706"
_STRONGEST = 0.6  # opacity: text on it stays readable in light and dark

STYLE = """.lora-trainer-blocks{overflow-wrap:anywhere}
.lora-trainer-blocks svg{max-width:100%;min-width:26rem;height:auto;font-size:13px}
.lora-trainer-blocks-wide{overflow-x:auto}.lora-trainer-blocks table{border-collapse:collapse}
.lora-trainer-blocks td,.lora-trainer-blocks th{padding:.2rem .6rem;text-align:right;white-space:nowrap}
.lora-trainer-blocks th:first-child{text-align:left}
.lora-trainer-blocks thead th{white-space:normal;overflow-wrap:normal;vertical-align:bottom}
.lora-trainer-blocks meter{width:6rem;max-width:100%}.lora-trainer-blocks tr[data-kept] th{font-weight:700}"""
"""How the parts look, on the page and in the tab alike."""
_PAGE = (
    "body{font:16px system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}"
)


@dataclass(frozen=True)
class _Column:
    head: tuple[str, str]
    value: Callable[[Row], float]
    shown: Callable[[float], str]


def _percent(value: float) -> str:
    return f"{value:.0%}"


def _levels(value: float) -> str:
    return f"{value:.1f}"


_COLUMNS = (
    _Column(("recall", "lost off"), lambda row: row.lost.mean, _percent),
    _Column(("recall", "alone"), lambda row: row.brought.mean, _percent),
    _Column(("pixels", "off"), lambda row: row.pixels_off, _levels),
    _Column(("pixels", "alone"), lambda row: row.pixels_alone, _levels),
    _Column(("drift", "less off"), lambda row: row.drift_off, _levels),
    _Column(("drift", "alone"), lambda row: row.drift_alone, _levels),
)


def write(path: Path, report: Report) -> None:
    """Write the page, which needs no other file. Raises OSError."""
    write_text(path, page(report))


def page(report: Report) -> str:
    """Return the whole page."""
    title = f"Which blocks of {html.escape(report.file)} matter"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width"><title>{title}</title><style>{_PAGE}{STYLE}</style></head><body>'
        f"<h1>{title}</h1>{about(report)}{smallest(report)}{written(report)}<h2>What each block does</h2>{ranking(report)}"
        f"<h2>By place in the model</h2>{heat_map(report)}</body></html>"
    )


def about(report: Report) -> str:
    """Return what was asked, and what the whole adapter does."""
    analysis = report.analysis
    traits = "; ".join(f"{words}: {', '.join(found)}" for words, found in report.parts)
    full, base = (_mean(cell.recall) for cell in (analysis.full, analysis.base))
    drift = _mean(analysis.full.drift)
    spoken = f" Without the trigger it moves the style by {drift:.1f} grey levels." if analysis.full.drift else ""
    return (
        f'<div class="lora-trainer-blocks"><p>Looked for: {html.escape(traits)}. All blocks at weight {report.options.weight:g} '
        f"show {full:.0%} of it, the base model {base:.0%}.{spoken} {report.images} images of each set of blocks.</p></div>"
    )


def ranking(report: Report) -> str:
    """Return the table of blocks, the one that matters most to the recall first."""
    kept = set(report.chosen.blocks) if report.chosen else set()
    heads = (
        "Block", "Share of the recall", "", "Recall lost when off", "Recall it brings alone", "Pixels changed when off",
        "Pixels changed alone", "Style drift less when off", "Style drift alone",
    )  # fmt: skip
    body = ""
    for row in blocks.rows(report.analysis):
        mark = " data-kept" if row.block in kept else ""
        meter = f'<meter min="0" max="1" value="{max(0.0, min(1.0, row.share)):.3f}" aria-hidden="true"></meter>'
        cells = (
            _percent(row.share), meter, _gain(row.lost), _gain(row.brought), _levels(row.pixels_off),
            _levels(row.pixels_alone), _levels(row.drift_off), _levels(row.drift_alone),
        )  # fmt: skip
        body += f"<tr{mark}><th>{row.block}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    head = "".join(f"<th>{text}</th>" for text in heads)
    return (
        '<div class="lora-trainer-blocks"><div class="lora-trainer-blocks-wide"><table><thead><tr>'
        f"{head}</tr></thead><tbody>{body}</tbody></table></div><p><small>± holds it in 90 % of all cases. Pixels and "
        "style: grey levels of 255, on average. Style drift: colours, contrast and texture of images without the trigger, "
        "from the base model's.</small></p></div>"
    )


def heat_map(report: Report) -> str:
    """Return every measure of every block in the model's order as an SVG picture; each column has a scale of its own."""
    rows = {row.block: row for row in blocks.rows(report.analysis)}
    height = _HEAD + _LINE * len(report.order)
    parts = []
    for number, column in enumerate(_COLUMNS):
        values = {block: column.value(rows[block]) for block in report.order}
        most = max((abs(value) for value in values.values()), default=0.0) or 1.0
        left = _LEFT + number * _CELL
        middle = left + _CELL / 2
        for line, word in enumerate(column.head):
            parts.append(f'<text x="{middle:g}" y="{16 + 17 * line}" text-anchor="middle">{word}</text>')
        for place, (block, value) in enumerate(values.items()):
            top, colour = _HEAD + place * _LINE, _MORE if value >= 0 else _LESS
            parts.append(
                f'<rect x="{left + 1}" y="{top + 1}" width="{_CELL - 2}" height="{_LINE - 2}" rx="3" fill="{colour}" '
                f'fill-opacity="{_STRONGEST * abs(value) / most:.3f}"><title>{block} {" ".join(column.head)}</title></rect>'
                f'<text x="{middle:g}" y="{top + 17}" text-anchor="middle">{column.shown(value)}</text>'
            )
    for place, block in enumerate(report.order):
        parts.append(f'<text x="0" y="{_HEAD + place * _LINE + 17}">{block}</text>')
    width = _LEFT + _CELL * len(_COLUMNS)
    return (
        f'<div class="lora-trainer-blocks lora-trainer-blocks-wide"><svg viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="What each block does, in the order of the model" fill="currentColor">'
        f"{''.join(parts)}</svg></div>"
    )


def smallest(report: Report) -> str:
    """Return what is told of the smallest set; "" before the search."""
    chosen = report.chosen
    if chosen is None:
        return ""
    names = ", ".join(block for block in report.order if block in chosen.blocks)
    least = "".join(f"<li>without {block}: {share:.0%}</li>" for block, share in chosen.without.items())
    minimal = (
        f"<p>None of them can be left out, as measured: less than {chosen.keep:.0%} is then kept.</p><ul>{least}</ul>"
        if least
        else ""
    )
    return (
        f'<div class="lora-trainer-blocks"><h2>The smallest set</h2><p><b>{names}</b>: {len(chosen.blocks)} of '
        f"{len(report.order)} blocks keep {chosen.share:.0%} of what the adapter adds to the recall, and {chosen.fresh:.0%} "
        f"with other seeds; {chosen.keep:.0%} were asked for. They show {chosen.after:.0%} of the traits, all blocks "
        f"{chosen.before:.0%}. {len(chosen.tried)} sets were measured; a smaller one of quite other blocks may exist.</p>"
        f"{minimal}</div>"
    )


def written(report: Report) -> str:
    """Return the smallest set as a preset and as the setting for training; "" before the search."""
    chosen = report.chosen
    if chosen is None:
        return ""
    return (
        f'<div class="lora-trainer-blocks"><p>Preset: <code>{chosen.preset}</code></p><p>Blocks for the next training: '
        f"<code>{chosen.training}</code></p></div>"
    )


def write_sheet(path: Path, report: Report, store: Store) -> None:
    """Write the first images with and without the trigger of every set, as one picture. Raises OSError."""
    sheet = draw_sheet(report, store)
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG")


def draw_sheet(report: Report, store: Store) -> Image.Image:
    """Return the sheet: a row for each block, off and alone; the first row has all blocks, and the base model."""
    analysis = report.analysis
    shown = [("", 0)] + ([(", without the trigger", len(analysis.base.recall))] if analysis.base.drift else [])
    pairs = [(analysis.full, analysis.base), *((analysis.off[each], analysis.alone[each]) for each in analysis.blocks)]
    images = {}
    for row, pair in enumerate(pairs):
        for column, (cell, place) in enumerate((cell, place) for _, place in shown for cell in pair):
            image = store.load_image(cell.images[place])
            if image is not None:
                image.thumbnail((THUMB, THUMB))
                images[column, row] = image
    columns = tuple(f"{word}{text}" for text, _ in shown for word in ("off", "alone"))
    return grid_sheet.draw(images, Labels(columns, ("none off; none on", *analysis.blocks), report.file))


def _gain(value: Gain) -> str:
    return f"{value.mean:.0%} ± {(value.high - value.low) / 2:.0%}"


def _mean(values: tuple[float, ...]) -> float:
    return sum(values) / len(values) if values else 0.0
