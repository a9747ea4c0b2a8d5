"""The Runs step: history, comparison of two runs, continuing an interrupted one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from lib_lora_trainer.app import projects, runs
from lib_lora_trainer.app.projects import Project
from lib_lora_trainer.app.queue import Runner
from lib_lora_trainer.app.runs import RunState, Summary
from lib_lora_trainer.base.errors import UserError
from lib_lora_trainer.ui import curve, fields, findings, live, pictures
from lib_lora_trainer.ui.fields import plain

RESUMABLE: tuple[RunState, ...] = ("paused", "interrupted", "stopped", "failed")


@dataclass(frozen=True)
class RunsTab:
    """The step's components."""

    table: Any
    first: Any
    second: Any
    again: Any
    repeat: Any
    detail: Any


def layout() -> RunsTab:
    """Make the step's components."""
    table = gr.HTML(value=nothing(), elem_id="lora_trainer_history")
    with gr.Row():
        first = plain(gr.Dropdown(label="Run", choices=[], elem_id="lora_trainer_run_first", min_width=160))
        second = plain(gr.Dropdown(label="Compare with", choices=[], elem_id="lora_trainer_run_second", min_width=160))
    with gr.Row(elem_classes="lora-trainer-actions"):
        again = plain(
            gr.Button(
                "Resume this run", variant="primary", visible=False, elem_id="lora_trainer_run_resume", min_width=120
            )
        )
        repeat = plain(gr.Button("Use its settings", visible=False, elem_id="lora_trainer_run_settings", min_width=120))
    detail = gr.HTML(elem_id="lora_trainer_run_detail")
    return RunsTab(table, first, second, again, repeat, detail)


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


def detail(runner: Runner, project: Project, first: str, second: str) -> str:
    """Return one run, or two against each other: settings that differ, curves overlaid, samples of both."""
    chosen = [run for run in dict.fromkeys((first, second)) if run]
    if not chosen:
        return ""
    known = {run: runner.events(project, run) for run in chosen}
    lines = [curve.Line(escape(run), runs.curve(known[run])) for run in chosen]
    text = f"<h4>Loss, smoothed</h4>{drawn}" if (drawn := curve.drawn(lines, band=len(lines) == 1)) else ""
    if len(chosen) == 2:
        text = _difference(project, chosen[0], chosen[1]) + text
    samples = ""
    for run in chosen:
        shown = pictures.samples(live.sample_events(known[run]), project.folder)
        samples += f"<div><h4>{escape(run)}</h4>{shown or '<p>no samples</p>'}</div>"
    return f'<div class="lora-trainer-compare">{text}<div class="lora-trainer-beside">{samples}</div></div>'


def _difference(project: Project, first: str, second: str) -> str:
    try:
        differences = projects.differences(runs.configuration(project, first), runs.configuration(project, second))
    except UserError as error:
        return findings.notice([str(error)], "error")
    if not differences:
        return "<h4>Settings</h4><p>Both runs have the same settings.</p>"
    rows = "".join(
        f"<tr><th>{escape(fields.label_of(d.path))}</th><td>{escape(fields.shown(d.first))}</td>"
        f"<td>{escape(fields.shown(d.second))}</td></tr>"
        for d in differences
    )
    return (
        '<h4>Settings that differ</h4><table class="lora-trainer-table"><thead><tr><th>Setting</th>'
        f"<th>{escape(first)}</th><th>{escape(second)}</th></tr></thead><tbody>{rows}</tbody></table>"
    )


def _files(paths: Sequence[str]) -> str:
    if not paths:
        return "–"
    names = "".join(f"<li>{escape(Path(path).name)}</li>" for path in reversed(paths))
    return f"<details><summary>{len(paths)}</summary><ul>{names}</ul></details>"
