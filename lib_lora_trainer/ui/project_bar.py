"""The bar on top: which project, which model, what runs."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from lib_lora_trainer.app import projects
from lib_lora_trainer.app.queue import Status
from lib_lora_trainer.base.errors import HostRefusal
from lib_lora_trainer.hosts.api import ModelInfo
from lib_lora_trainer.ui import live
from lib_lora_trainer.ui.components import plain
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.session import Session

_FAMILIES = {"sd1": "SD1", "sd2": "SD2", "sdxl": "SDXL"}


@dataclass(frozen=True)
class Bar:
    """The bar's components."""

    project: Any
    new: Any
    name_row: Any
    name: Any
    create: Any
    model: Any
    running: Any
    pause: Any
    resume: Any
    stop: Any
    notice: Any


def layout() -> Bar:
    """Make the bar's components."""
    with gr.Row(elem_id="lora_trainer_bar"):
        with gr.Row(elem_classes="lora-trainer-project"):
            project = plain(gr.Dropdown(label="Project", choices=[], elem_id="lora_trainer_project", scale=4))
            new = plain(gr.Button("New project", elem_id="lora_trainer_new", scale=1, min_width=110))
        model = gr.HTML(elem_id="lora_trainer_model")
        with gr.Row(elem_classes="lora-trainer-run"):
            running = gr.HTML(elem_id="lora_trainer_running")
            pause = plain(gr.Button("Pause", visible=False, elem_id="lora_trainer_pause", min_width=90, scale=0))
            resume = plain(
                gr.Button(
                    "Resume", visible=False, variant="primary", elem_id="lora_trainer_resume", min_width=90, scale=0
                )
            )
            stop = plain(
                gr.Button("Stop", visible=False, variant="stop", elem_id="lora_trainer_stop", min_width=90, scale=0)
            )
    with gr.Row(visible=False, elem_id="lora_trainer_name_row") as name_row:
        name = plain(
            gr.Textbox(
                label="Name of the new project",
                placeholder="e.g. my-character",
                info="One project is one folder: its settings, its runs. The adapter is named like it at first.",
                elem_id="lora_trainer_new_name",
                scale=4,
            )
        )
        create = plain(gr.Button("Create project", variant="primary", elem_id="lora_trainer_create", scale=1))
    notice = gr.HTML(elem_id="lora_trainer_notice")
    return Bar(project, new, name_row, name, create, model, running, pause, resume, stop, notice)


def model_of(place: Place) -> ModelInfo | HostRefusal:
    """Return what the host has loaded, or why it cannot be trained."""
    try:
        return place.host.info()
    except HostRefusal as refusal:
        return refusal


def model_html(model: ModelInfo | HostRefusal, session: Session) -> str:
    """Return the loaded model with its family, prediction type and hash, and a warning when another was planned on."""
    if isinstance(model, HostRefusal):
        why = f"<b>No trainable model</b><p>{escape(str(model))}</p>"
        return f'<div class="lora-trainer-model lora-trainer-warning">{why}</div>'
    kind = f"{_FAMILIES.get(model.family, model.family)} · {model.prediction} · {model.sha256[:10] or 'no hash yet'}"
    warning = ""
    if not planned_on(model, session):
        warning = (
            f"<p>Planned on {escape(_short(session.config.base_model))}, but this model is loaded. "
            "Load the other one, or plan again.</p>"
        )
    tone = " lora-trainer-warning" if warning else ""
    return (
        f'<div class="lora-trainer-model{tone}"><span>Loaded model</span><b title="{escape(model.title)}">'
        f"{escape(model.name)}</b><small>{escape(kind)}</small>{warning}</div>"
    )


def planned_on(model: ModelInfo, session: Session) -> bool:
    """Return whether the settings were planned on this model, or on none yet."""
    planned = session.config.base_model
    return planned in ("", model.sha256, model.name, model.title)


def running_html(place: Place, status: Status | None) -> str:
    """Return a line about the run in work; "" when there is none."""
    if status is None or not (status.busy or status.state == "paused"):
        return ""
    known = place.runner.events(status.project, status.run)
    waiting = f"<small>{len(status.waiting)} waiting</small>" if status.waiting else ""
    return (
        f'<div class="lora-trainer-live lora-trainer-small" data-state="{status.state}"><header><b>'
        f"{escape(status.project.name)}</b>{live.badge(status.state)}{waiting}</header>"
        f"{live.progress(status.state, known)}</div>"
    )


def project_update(place: Place, session: Session) -> dict[str, Any]:
    """Return the update of the project list."""
    return gr.update(choices=list(projects.names(place.projects)), value=session.project or None)


def _short(planned: str) -> str:
    return planned[:10] if len(planned) == 64 else planned
