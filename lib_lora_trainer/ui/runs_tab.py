"""The Runs step: what waits, the history, comparison of two runs, continuing an interrupted one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from lib_lora_trainer.app.runs import RunState, Summary
from lib_lora_trainer.ui import findings, live, waiting_list
from lib_lora_trainer.ui.components import button, plain
from lib_lora_trainer.ui.waiting_list import WaitingList

RESUMABLE: tuple[RunState, ...] = ("paused", "interrupted", "stopped", "failed")


@dataclass(frozen=True)
class RunsTab:
    """The step's components."""

    waiting: WaitingList
    table: Any
    first: Any
    second: Any
    again: Any
    repeat: Any
    detail: Any


def layout() -> RunsTab:
    """Make the step's components."""
    waiting = waiting_list.layout()
    table = gr.HTML(value=nothing(), elem_id="lora_trainer_history")
    with gr.Row():
        first = plain(gr.Dropdown(label="Run", choices=[], elem_id="lora_trainer_run_first", min_width=160))
        second = plain(gr.Dropdown(label="Compare with", choices=[], elem_id="lora_trainer_run_second", min_width=160))
    with gr.Row(elem_classes="lora-trainer-actions"):
        again = button("Resume this run", "run_resume", variant="primary", visible=False, min_width=120)
        repeat = button("Use its settings", "run_settings", visible=False, min_width=120)
    detail = gr.HTML(elem_id="lora_trainer_run_detail")
    return RunsTab(waiting, table, first, second, again, repeat, detail)


def nothing() -> str:
    """Return what the history shows without runs."""
    return findings.empty(
        "No runs yet", "Every training of this project will be listed here, with its files and its curve."
    )


def table(history: Sequence[Summary]) -> str:
    """Return the history as HTML, newest first."""
    if not history:
        return nothing()
    rows = "".join(
        f"<tr><th>{escape(line.name)}<small>{escape(line.run)}</small></th><td>{line.started:%Y-%m-%d %H:%M}</td>"
        f"<td>{live.badge(line.state)}</td><td data-label='steps'>{line.step} / {line.total_steps or '–'}</td>"
        f"<td data-label='loss'>{'–' if line.loss is None else f'{line.loss:.4f}'}</td>"
        f"<td data-label='files'>{_files(line.files)}</td></tr>"
        for line in history
    )
    return (
        '<table class="lora-trainer-table lora-trainer-stacked"><thead><tr><th>Run</th><th>Started</th><th>State</th>'
        f"<th>Steps</th><th>Loss</th><th>Files</th></tr></thead><tbody>{rows}</tbody></table>"
    )


def _files(paths: Sequence[str]) -> str:
    if not paths:
        return "–"
    names = "".join(f"<li>{escape(Path(path).name)}</li>" for path in reversed(paths))
    return f"<details><summary>{len(paths)}</summary><ul>{names}</ul></details>"
