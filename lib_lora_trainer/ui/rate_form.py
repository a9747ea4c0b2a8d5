"""The search for a learning rate: a button, the curve while it runs, and the suggestion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from lib_lora_trainer.base.events import Event, Failed, Note, Phase, RateFound, RateTried
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.ui import fields, findings
from lib_lora_trainer.ui.components import button, fold
from lib_lora_trainer.ui.curve import HEIGHT, WIDTH


@dataclass(frozen=True)
class RateForm:
    """The components."""

    begin: Any
    stop: Any
    panel: Any
    use: Any

    @property
    def watched(self) -> set[Any]:
        """What a look at the search may update."""
        return {self.begin, self.stop, self.panel, self.use}


def layout() -> RateForm:
    """Make the components."""
    with fold("Find learning rate", "rate"):
        gr.HTML(
            "<p>A short run on your pictures in which the learning rate rises until the loss does. Nothing is saved. "
            "The suggestion goes into the settings only when you say so.</p>"
        )
        with gr.Row(elem_classes="lora-trainer-actions"):
            begin = button("Find learning rate", "rate_begin", min_width=140)
            stop = button("Cancel", "rate_cancel", visible=False, min_width=80, scale=0)
        panel = gr.HTML(elem_id="lora_trainer_rate")
        use = button("Use this learning rate", "rate_use", variant="primary", visible=False)
    return RateForm(begin, stop, panel, use)


def panel_html(known: Sequence[Event], searched: RunConfig | None, *, busy: bool) -> str:
    """Return how far a search is, its curve, and what was found or went wrong. searched: the settings of the search."""
    if not known and not busy:
        return ""
    tried = [event for event in known if isinstance(event, RateTried)]
    found = found_in(known)
    text = _progress(known, tried) if busy else ""
    text += findings.notice([event.text for event in known if isinstance(event, Note)], "note")
    text += curve(tried, found)
    failed = next((event for event in known if isinstance(event, Failed)), None)
    if failed is not None:
        text += findings.notice([failed.error], "error")
    if found is not None:
        rate = f"<b>{escape(written(found.learning_rate))}</b> " if found.learning_rate else ""
        text += f'<p class="lora-trainer-suggestion">{rate}{escape(found.text)}</p>'
        if found.learning_rate and searched is not None:
            into = [f"{fields.label_of(path)} {written(r)}" for path, r in rates(searched, found.learning_rate).items()]
            text += f"<p>{escape('For the settings: ' + ', '.join(into))}</p>"
    elif not busy and failed is None:
        text += findings.notice(["The search was called off before it found anything."], "warning")
    return f'<div class="lora-trainer-rate">{text}</div>'


def rates(searched: RunConfig, found: float) -> dict[str, float]:
    """Return the learning rates that a search suggests, by their settings.

    found: what it suggests for the faster part. The search keeps the proportion of the two parts, and so do these.
    """
    parts = {
        "optimizer.unet_learning_rate": (searched.adapter.unet, searched.optimizer.unet_learning_rate),
        "optimizer.text_learning_rate": (searched.adapter.text_encoder, searched.optimizer.text_learning_rate),
    }
    trained = {path: rate for path, (is_trained, rate) in parts.items() if is_trained and rate > 0}
    fastest = max(trained.values(), default=1.0)
    return {path: float(f"{found * rate / fastest:.2g}") for path, rate in trained.items()}


def found_in(known: Sequence[Event]) -> RateFound | None:
    """Return the end of a search, if it has one."""
    return next((event for event in reversed(known) if isinstance(event, RateFound)), None)


def written(rate: float) -> str:
    """Return a learning rate as people write it: `1.6e-4`."""
    mantissa, _, exponent = f"{rate:.1e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}" if rate else "0"


def curve(tried: Sequence[RateTried], found: RateFound | None) -> str:
    """Return loss over learning rate as inline SVG, the rate on a logarithmic axis; "" before two finite points."""
    points = [
        (math.log10(event.learning_rate), event.loss, event.loss_average)
        for event in tried
        if event.learning_rate > 0 and math.isfinite(event.loss) and math.isfinite(event.loss_average)
    ]
    if len(points) < 2:
        return ""
    first, last = points[0][0], max(points[-1][0], points[0][0] + 1e-9)
    low = min(average for _, _, average in points)
    # What the loss does after it has diverged must not flatten the part that matters.
    high = min(max(average for _, _, average in points), points[0][2] + 1.5 * max(points[0][2] - low, 1e-9))
    margin = max((high - low) * 0.08, 1e-9)

    def x(rate: float) -> float:
        return (rate - first) / (last - first) * WIDTH

    def y(loss: float) -> float:
        share = (loss - low + margin) / (high - low + 2 * margin)
        return HEIGHT * (1.0 - min(max(share, -0.05), 1.05))

    raw = " ".join(f"{x(rate):.1f},{y(loss):.1f}" for rate, loss, _ in points)
    smooth = " ".join(f"{x(rate):.1f},{y(average):.1f}" for rate, _, average in points)
    decades = range(math.ceil(first), math.floor(last) + 1)
    grid = "".join(f'<path class="lora-trainer-epoch" d="M{x(each):.1f},0V{HEIGHT:.0f}"/>' for each in decades)
    names = "".join(f'<span style="left:{x(each) / WIDTH * 100:.1f}%">1e{each}</span>' for each in decades)
    return (
        '<figure class="lora-trainer-curve"><div class="lora-trainer-plot">'
        f'<svg viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" preserveAspectRatio="none" role="img" '
        f'aria-label="Loss by learning rate">{_found_marks(found, x)}{grid}'
        f'<polyline class="lora-trainer-raw" points="{raw}"/>'
        f'<polyline class="lora-trainer-line lora-trainer-line-0" points="{smooth}"/></svg></div>'
        f'<div class="lora-trainer-axis">{names}</div><figcaption><span>learning rate</span>'
        '<span class="lora-trainer-key lora-trainer-line-0">loss, smoothed</span></figcaption></figure>'
    )


def _found_marks(found: RateFound | None, x: Any) -> str:
    if found is None or min(found.learning_rate, found.lowest, found.highest) <= 0:
        return ""
    left, right = x(math.log10(found.lowest)), x(math.log10(found.highest))
    here = x(math.log10(found.learning_rate))
    return (
        f'<rect class="lora-trainer-range" x="{left:.1f}" y="0" width="{max(right - left, 0):.1f}" '
        f'height="{HEIGHT:.0f}"/><path class="lora-trainer-suggested" d="M{here:.1f},0V{HEIGHT:.0f}">'
        f"<title>{written(found.learning_rate)}</title></path>"
    )


def _progress(known: Sequence[Event], tried: Sequence[RateTried]) -> str:
    last = known[-1] if known else None
    if tried:
        share, words = tried[-1].step / max(tried[-1].steps, 1), f"step {tried[-1].step} of {tried[-1].steps}"
    elif isinstance(last, Phase):
        share, words = last.done / max(last.total, 1), f"{last.name} {last.done} of {last.total}"
    else:
        share, words = 0.0, "preparing"
    return (
        f'<div class="lora-trainer-progress"><div style="width:{share * 100:.0f}%"></div></div>'
        f'<div class="lora-trainer-words"><span>{escape(words)}</span></div>'
    )
