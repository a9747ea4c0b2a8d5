"""The result of a trial as HTML, from its stored report: verdict and findings, curves, a table of cells, images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from lib_lora_trainer.app.projects import Project
from lib_lora_trainer.base.errors import DataError, Problem
from lib_lora_trainer.dataset.thumbnails import thumbnails
from lib_lora_trainer.ui import evaluate_pick_charts, findings
from lib_lora_trainer.ui.evaluate_txt2img import button_html, infotext_of
from lib_lora_trainer.ui.pictures import address

Report = Mapping[str, Any]
"""The content of a trial's report.json."""

SMALL, STRIP = 192, 256  # pixels of the longer side of a picture in the table, and in the strips
_TITLES = {
    "no-effect": "No file has an effect", "too-short": "Trained too short", "right": "Trained long enough",
    "too-long": "Trained too long",
}  # fmt: skip
_KINDS = {
    "recall": "The trigger alone", "control": "The trigger in a scene", "bleed": "The same scenes without the trigger",
}  # fmt: skip


def verdict_html(report: Report, page: str) -> str:
    """Return what to use, why, and what to change next. page: where the browser finds the report by itself, or ""."""
    best, why = report["recommended"], "".join(f"<p>{escape(text)}</p>" for text in report["why"])
    problems = [Problem(each["severity"], "", each["text"], each["fix"]) for each in report["findings"]]
    headline = f"Use {escape(best['file'])} at weight {best['weight']:g}" if best else "Nothing to recommend"
    numbers = findings.figures(_figures(report)) if best else ""
    link = f'<p><a href="{page}" target="_blank" rel="noopener">The report as a page of its own</a></p>' if page else ""
    return (
        f'<section class="lora-trainer-verdict" data-length="{escape(report["length"])}"><header><h3>{headline}</h3>'
        f'<span class="lora-trainer-badge">{_TITLES[report["length"]]}</span></header>{numbers}{why}'
        f"{findings.listed(problems)}{link}</section>"
    )


def _figures(report: Report) -> list[tuple[str, str]]:
    best = report["recommended"]
    cell = next(each for each in report["cells"] if (each["file"], each["weight"]) == (best["file"], best["weight"]))
    low, high = best["lowest_weight"], best["highest_weight"]
    when = f"epoch {best['epoch']}" if best["epoch"] else f"step {best['step']}"
    return [
        (f"{best['weight']:g}", f"weight, {when}"),
        (f"{low:g} – {high:g}" if low < high else f"{low:g}", "usable weights"),
        (f"{cell['recall']['mean']:.0%}", "of the traits with the trigger"),
        (f"{cell['quality']['value']:.2f}", "quality, 1 is best"),
    ]


def details_html(report: Report, folder: Path, project: Project) -> str:
    """Return the curves and the table of all cells."""
    curves = ""
    best = report["recommended"]
    if best is not None:
        column = sorted(
            (each for each in report["cells"] if each["weight"] == best["weight"]), key=lambda each: each["step"]
        )
        row = sorted(
            (each for each in report["cells"] if each["file"] == best["file"]), key=lambda each: each["weight"]
        )
        by_file = evaluate_pick_charts.charts(report, column, "step", best["step"])
        by_weight = evaluate_pick_charts.charts(report, row, "weight", best["weight"])
        curves = (
            f"<h4>By training, at weight {best['weight']:g}</h4>{by_file}"
            f"<h4>By weight, of {escape(best['file'])}</h4>{by_weight}{evaluate_pick_charts.legend(report)}"
        )
    return f"{curves}{_table(report, folder, project)}"


def _table(report: Report, folder: Path, project: Project) -> str:
    """Return every file at every weight: an image, which opens large, and the quality, which shows all its images."""
    cells, best = report["cells"], report["recommended"]
    weights = sorted({cell["weight"] for cell in cells})
    small = _thumbnails([_first(cell, folder) for cell in cells], project, SMALL)
    rows = ""
    for label in dict.fromkeys(cell["file"] for cell in sorted(cells, key=lambda each: each["step"])):
        fields = ""
        for weight in weights:
            number = next(
                (n for n, each in enumerate(cells, 1) if (each["file"], each["weight"]) == (label, weight)), 0
            )
            chosen = bool(best) and (best["file"], best["weight"]) == (label, weight)
            fields += _field(cells[number - 1], number, (folder, project), small, chosen) if number else "<td></td>"
        epoch = next(cell["epoch"] for cell in cells if cell["file"] == label)
        told = f"<small>epoch {epoch}</small>" if epoch else ""
        rows += f"<tr><th>{escape(label)}{told}</th>{fields}</tr>"
    heads = "".join(f"<th>{weight:g}</th>" for weight in weights)
    return (
        '<div class="lora-trainer-samples"><section><h4>Every file at every weight</h4><p><small>The number is the quality; '
        "bold ones are as good as the best, as far as so few images tell. Press it for all images of a cell.</small></p>"
        f'<div class="lora-trainer-cells"><table><thead><tr><th>weight</th>{heads}</tr></thead><tbody>{rows}</tbody>'
        '</table></div><p><button type="button" class="lora-trainer-button" data-pick-cell="0">The base model’s images'
        "</button></p></section></div>"
    )


def _field(cell: Report, number: int, where: tuple[Path, Project], small: Mapping[Path, str], chosen: bool) -> str:
    folder, project = where
    value, path = cell["quality"], _first(cell, folder)
    name = f"{cell['file']} at {cell['weight']:g}"
    text = f"{value['value']:.2f}" if value else "–"
    told = f' title="{value["low"]:.2f} to {value["high"]:.2f}"' if value else ""
    image = (
        f'<img loading="lazy" src="{small[path]}" data-whole="{address(path, project.folder)}" alt="{escape(name)}" tabindex="0">'
        if path in small
        else '<div class="lora-trainer-broken">moved away</div>'
    )
    return (
        f"<td{' data-best=1' if chosen else ''}{' data-tied=1' if value and value['tied'] else ''}>{image}"
        f'<button type="button" data-pick-cell="{number}" aria-label="{escape(name)}, quality {text}"{told}>{text}</button>'
        "</td>"
    )


def images_html(report: Report, number: int, folder: Path, project: Project) -> str:
    """Return all images of a cell, those of one question together. number: 0 for the base model's."""
    cell = report["cells"][number - 1] if number else report["base"]
    name = f"{cell['file']} at weight {cell['weight']:g}" if number else "The base model"
    small = _thumbnails([folder / each["file"] for each in cell["images"]], project, STRIP)
    parts = ""
    for kind, title in _KINDS.items():
        made = [each for each in cell["images"] if each["kind"] == kind]
        figures = "".join(_figure(each, cell if number else None, small, (folder, project)) for each in made)
        if made:
            parts += (
                f"<section><h4>{escape(name)}: {title.lower()}{_rate(cell, kind)}</h4>"
                f'<div class="lora-trainer-strip">{figures}</div></section>'
            )
    return f'<div class="lora-trainer-samples lora-trainer-of-cell">{parts}</div>'


def _figure(image: Report, cell: Report | None, small: Mapping[Path, str], where: tuple[Path, Project]) -> str:
    folder, project = where
    path = folder / image["file"]
    prompt = escape(image["prompt"]) or "(nothing)"
    damaged = ' <b class="lora-trainer-damaged">damaged</b>' if image["damaged"] else ""
    caption = f"<figcaption>{prompt} <small>seed {image['seed']}</small>{damaged}"
    if path not in small:
        return f'<figure><div class="lora-trainer-broken">moved away</div>{caption}</figcaption></figure>'
    text = infotext_of(path, cell["file"], cell["weight"]) if cell else infotext_of(path)
    return (
        f'<figure><img loading="lazy" src="{small[path]}" data-whole="{address(path, project.folder)}" alt="{prompt}" tabindex="0">'
        f"{caption}</figcaption>{button_html(text)}</figure>"
    )


def _rate(cell: Report, kind: str) -> str:
    known = cell.get(kind)
    what = {"recall": "of the traits", "control": "of the tags obeyed", "bleed": "of the traits"}[kind]
    return f" <small>{known['mean']:.0%} {what}</small>" if known else ""


def _first(cell: Report, folder: Path) -> Path:
    return folder / str(cell["images"][0]["file"])


def _thumbnails(paths: Sequence[Path], project: Project, side: int) -> dict[Path, str]:
    """Return where the page finds small copies of images, as far as they are still there."""
    found = thumbnails(paths, project.cache / "thumbnails", side)
    return {
        path: address(small, project.folder)
        for path, small in zip(paths, found, strict=True)
        if not isinstance(small, DataError)
    }
