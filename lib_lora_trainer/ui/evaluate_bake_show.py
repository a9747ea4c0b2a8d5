"""What baking would do, or did, as HTML: figures, the weight of every block, what one should know."""

from __future__ import annotations

from html import escape
from pathlib import Path

from lib_lora_trainer.adapters import blocks
from lib_lora_trainer.app.baking import Plan
from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.plan.describe import size
from lib_lora_trainer.ui import findings
from lib_lora_trainer.workshop import elements, vectors


def plan_html(plan: Plan, *, written: bool = False) -> str:
    """Return what baking would do; written: what it did."""
    request, draft = plan.request, plan.draft
    counts = draft.counts
    old = request.file.stat().st_size if request.file.is_file() else 0
    new = request.output.stat().st_size if written and request.output.is_file() else _bytes(plan)
    figures = findings.figures(
        (
            (str(counts["kept"]), "layers as they are"),
            (str(counts["multiplied"]), "layers multiplied"),
            (str(counts["left_out"]), "layers left out"),
            (size(new), f"{'' if written else 'about, '}of {size(old)}"),
        )
    )
    title = f"Written: {request.output.name}" if written else f"{request.file.name} → {request.output.name}"
    notes = [Problem("note", "", text) for text in plan.notes]
    if draft.needs_base and not written:
        text = (
            f"{len(draft.needs_base)} layers are DoRA or rotations: a multiple of them depends on the model’s weights. They "
            "are written as differences of the loaded checkpoint."
        )
        notes.append(Problem("warning", "", text))
    return (
        f'<section class="lora-trainer-verdict"><header><h3>{escape(title)}</h3></header>'
        f"<p><small>{escape(str(request.output))}</small></p>{figures}{_blocks(plan)}{_more(plan)}"
        f"{findings.listed(notes)}</section>"
    )


def kept_html(name: str, path: Path) -> str:
    """Return that a preset was kept."""
    return findings.notice([f"{name} is in {path} now; lbw={name} in a prompt means it, too."])


def _bytes(plan: Plan) -> int:
    """Return how many bytes of tensors the new file has, if no layer changes its form."""
    draft = plan.draft
    kept = [tensor for key, parts in draft.layers.items() if draft.ratios[key] for tensor in parts.values()]
    return sum(tensor.numel() * tensor.element_size() for tensor in (*kept, *draft.rest.values()))


def _blocks(plan: Plan) -> str:
    """Return the weight of every block as bars, text encoders first."""
    weights, family = plan.draft.weights, plan.draft.family
    most = max(1.0, *(abs(weights.vector.of(block)) for block in blocks.names(family)))
    bars = ""
    for block in blocks.names(family):
        value = weights.vector.of(block)
        total = value * (weights.text if block == blocks.BASE else weights.unet) * weights.rebase
        bars += (
            f'<li{" data-off=1" if not total else ""}><b>{vectors.label(block)}</b><i style="height:'
            f'{abs(value) / most * 100:.0f}%"></i><span>{total:.3g}</span></li>'
        )
    return f'<ul class="lora-trainer-bars" aria-label="Weight of every block">{bars}</ul>'


def _more(plan: Plan) -> str:
    weights = plan.draft.weights
    words = [
        f"UNet × {weights.unet:g}" if weights.unet != 1 else "",
        f"text encoder × {weights.text:g}" if weights.text != 1 else "",
        f"{weights.rebase:g} becomes 1" if weights.rebase != 1 else "",
        f"elements {elements.write(weights.directives)}" if weights.directives else "",
    ]
    told = escape(" · ".join(word for word in words if word))
    return f"<p>{told}</p>" if told else ""
