"""The sweep: several runs with some settings varied, added to the queue together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from lib_lora_trainer.app import projects
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.ui import fields, findings
from lib_lora_trainer.ui.components import button, fold, plain

_SHOWN = 40


@dataclass(frozen=True)
class SweepForm:
    """The components."""

    lines: Any
    preview: Any
    add: Any
    result: Any


def layout() -> SweepForm:
    """Make the components."""
    with fold("Sweep: several runs with different values", "sweep"):
        lines = plain(
            gr.Textbox(
                label="Settings to vary", lines=3, max_lines=12, elem_id="lora_trainer_sweep",
                placeholder="optimizer.unet_learning_rate: 1e-4, 2e-4\nadapter.rank: 8, 16",
                info="One setting a line, its values with commas between. Every combination becomes a run of its own.",
            )
        )  # fmt: skip
        with gr.Row(elem_classes="lora-trainer-actions"):
            preview = button("Show the runs", "sweep_preview", min_width=120)
            add = button("Add all to queue", "sweep_add", variant="primary", min_width=120)
        result = gr.HTML(elem_id="lora_trainer_sweep_result")
    return SweepForm(lines, preview, add, result)


def runs_html(base: RunConfig, configs: Sequence[RunConfig]) -> str:
    """Return the runs of a sweep with what each has differently."""
    rows = []
    for config in configs[:_SHOWN]:
        changes = [change for change in projects.differences(base, config) if change.path != "name"]
        words = ", ".join(f"{fields.label_of(c.path)} {fields.shown(c.second)}" for c in changes)
        rows.append((config.name, words or "as set"))
    more = f"<p>{escape(f'… and {len(configs) - _SHOWN} more')}</p>" if len(configs) > _SHOWN else ""
    return f"<h4>{len(configs)} runs</h4>{findings.table(('Name', 'Settings'), rows)}{more}"
