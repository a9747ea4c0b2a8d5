"""The demo's report: figures, a labelled sheet of images and a page that shows both."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from lib_lora_trainer.base.files import replacing, write_text
from lib_lora_trainer.demo import world
from lib_lora_trainer.demo.measure import Answer

_ROWS = (
    ("before.trait_recall", f"Before training, prompt '{world.TRIGGER}'"),
    ("after.trait_recall", f"After training, prompt '{world.TRIGGER}'"),
    ("after.control", f"After, '{world.TRIGGER}' in prompted clothes and places"),
    ("after.bleed", "After, other figures without the trigger"),
)
_COLUMNS, _GAP, _LABEL = 8, 6, 26


@dataclass(frozen=True)
class Result:
    """What the demo measured. answers: by `before.trait_recall` and the like; losses: one per step."""

    answers: Mapping[str, Answer]
    losses: tuple[float, ...]
    plan: tuple[str, ...]
    files: tuple[str, ...]
    seconds: float


def figures(result: Result) -> dict[str, dict[str, float]]:
    """Return the rates as `{"before": {"trait_recall"}, "after": {"trait_recall", "control", "bleed"}}`."""
    rates: dict[str, dict[str, float]] = {}
    for key, answer in result.answers.items():
        when, _, name = key.partition(".")
        rates.setdefault(when, {})[name] = round(answer.rate, 4)
    return rates


def summary(result: Result) -> tuple[str, ...]:
    """Return the result in words, one figure a line."""
    rates = figures(result)
    after = rates["after"]
    return (
        f"trait recall: {rates['before']['trait_recall']:.0%} before, {after['trait_recall']:.0%} after",
        f"control: {after['control']:.0%} of the prompted clothes and places",
        f"bleed: {after['bleed']:.0%} of the traits without the trigger",
        f"time: {result.seconds:.0f} s in all",
    )


def write(result: Result, out: Path) -> Iterator[Path]:
    """Write `report.json`, `grid.png` and `report.html`, and yield their paths."""
    sheet = grid(result)
    with replacing(out / "grid.png") as temporary:
        sheet.save(temporary, format="PNG")
    yield out / "grid.png"
    write_text(out / "report.html", page(result, sheet))
    yield out / "report.html"
    content = {
        **figures(result),
        "seconds": round(result.seconds, 1),
        "steps": len(result.losses),
        "files": [Path(path).name for path in result.files],
        "images": {key: _image_facts(answer) for key, answer in result.answers.items()},
    }
    write_text(out / "report.json", json.dumps(content, indent=2, ensure_ascii=False))
    yield out / "report.json"


def _image_facts(answer: Answer) -> list[dict[str, object]]:
    return [
        {"prompt": made.request.prompt, "seed": made.request.seed, "found": list(found)}
        for made, found in zip(answer.images, answer.found, strict=True)
    ]


def grid(result: Result) -> Image.Image:
    """Return a sheet with one labelled row of images per question."""
    height = len(_ROWS) * (world.SIDE + _LABEL + _GAP) + _GAP
    sheet = Image.new("RGB", (_COLUMNS * (world.SIDE + _GAP) + _GAP, height), "white")
    pen = ImageDraw.Draw(sheet)
    font = _font()
    for row, (key, label) in enumerate(_ROWS):
        answer = result.answers[key]
        top = _GAP + row * (world.SIDE + _LABEL + _GAP)
        text = f"{label}: {answer.question.name.replace('_', ' ')} {answer.rate:.0%}"
        pen.text((_GAP, top + 4), text, fill="black", font=font)
        for column, made in enumerate(answer.images[:_COLUMNS]):
            sheet.paste(made.image, (_GAP + column * (world.SIDE + _GAP), top + _LABEL))
    return sheet


def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    try:
        return ImageFont.truetype("DejaVuSans.ttf", 14)
    except OSError:  # no such font on this system: Pillow's own bitmap font is always there
        return ImageFont.load_default()


def page(result: Result, sheet: Image.Image) -> str:
    """Return the report as one HTML page that needs no other file."""
    rates = figures(result)
    rows = "".join(
        f"<tr><td>{html.escape(label)}</td><td>{result.answers[key].rate:.0%}</td></tr>" for key, label in _ROWS
    )
    stream = io.BytesIO()
    sheet.save(stream, format="PNG")
    picture = base64.b64encode(stream.getvalue()).decode()
    plan = "".join(f"<li>{html.escape(line)}</li>" for line in result.plan)
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>LoRA Trainer demo</title>
<style>body{{font:16px system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}}
td{{padding:.2rem 1rem .2rem 0}}img,svg{{max-width:100%;height:auto}}</style>
<h1>LoRA Trainer demo</h1>
<p>A LoRA of one drawn character, trained on {html.escape(world.TRIGGER)}'s pictures with the bundled toy checkpoint in
{result.seconds:.0f} s. Its traits ({html.escape(", ".join(world.CHARACTER_TRAITS))}) are in no caption: the trigger has
to carry them. Trait recall rose from {rates["before"]["trait_recall"]:.0%} to {rates["after"]["trait_recall"]:.0%}.</p>
<table>{rows}</table>
<p><img alt="generated images, one row per question" src="data:image/png;base64,{picture}"></p>
<h2>Loss</h2>{curve(result.losses)}
<h2>The run</h2><ul>{plan}</ul></html>
"""


def curve(losses: Sequence[float], width: int = 800, height: int = 220) -> str:
    """Return the smoothed loss as an inline SVG."""
    smoothed, average = [], losses[0]
    for loss in losses:
        average = 0.95 * average + 0.05 * loss
        smoothed.append(average)
    top = max(smoothed)
    points = " ".join(
        f"{index * width / max(1, len(smoothed) - 1):.1f},{height - value / top * (height - 20):.1f}"
        for index, value in enumerate(smoothed)
    )
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="loss by step">'
        f'<polyline points="{points}" fill="none" stroke="#2563eb" stroke-width="2"/>'
        f'<text x="4" y="14" font-size="13">{top:.3f}</text><text x="4" y="{height - 4}" font-size="13">0</text></svg>'
    )
