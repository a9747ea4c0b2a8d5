"""The Evaluate step: a run of the project, and what shows which of its files is good for what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from lib_lora_trainer.app import runs
from lib_lora_trainer.app.projects import Project
from lib_lora_trainer.app.runs import RunState, Summary
from lib_lora_trainer.base.errors import UserError
from lib_lora_trainer.ui import evaluate_bake, evaluate_blocks, evaluate_grid, evaluate_pick, findings, live
from lib_lora_trainer.ui.components import button, plain
from lib_lora_trainer.ui.evaluate_bake import BakePanel
from lib_lora_trainer.ui.evaluate_blocks import BlocksPanel
from lib_lora_trainer.ui.evaluate_grid import GridPanel
from lib_lora_trainer.ui.evaluate_pick import PickPanel

RESULTS = ("pick/report.json", "grids/*", "blocks/*/blocks.json")
"""What evaluating leaves in a run's folder, as patterns of names."""


@dataclass(frozen=True)
class EvaluateTab:
    """The step's components.

    run: the id of the run that is looked at; about: what is known of it. wanted: the run that the page's script wants to
    be shown when the step is opened, `live` for the live panel's. progress, cancel, said, beside: of the work under way,
    whichever panel began it; beside: its mistakes, next to the fields they are about. watching: which work this browser
    is shown the progress of; opened: whether it has opened the step. to_txt2img: what the page's script `toTxt2img` is to read.
    """

    run: Any
    wanted: Any
    about: Any
    progress: Any
    cancel: Any
    said: Any
    beside: Any
    watching: Any
    opened: Any
    to_txt2img: Any
    pick: PickPanel
    grid: GridPanel
    blocks: BlocksPanel
    bake: BakePanel

    @property
    def starting(self) -> tuple[Any, ...]:
        """The buttons that start work."""
        return (*self.pick.starting, *self.grid.starting, *self.blocks.starting, *self.bake.starting)

    @property
    def shown(self) -> set[Any]:
        """What choosing a run may update."""
        return {self.about, *self.pick.shown, *self.grid.shown, *self.blocks.shown, *self.bake.shown}


def layout(samplers: tuple[str, ...]) -> EvaluateTab:
    """Make the step's components. samplers: what the host calls them."""
    with gr.Row(elem_classes="lora-trainer-actions"):
        run = plain(gr.Dropdown(label="Run", choices=[], value=None, elem_id="lora_trainer_evaluate_run"))
    about = gr.HTML(elem_id="lora_trainer_evaluate_about")
    with gr.Row(elem_id="lora_trainer_evaluate_work"):
        progress = gr.HTML(elem_id="lora_trainer_evaluate_progress")
        cancel = button("Cancel", "evaluate_cancel", visible=False)
    said = gr.HTML(elem_id="lora_trainer_evaluate_said")
    beside = gr.HTML(elem_id="lora_trainer_evaluate_beside", elem_classes="lora-trainer-hidden")
    with gr.Row(elem_classes="lora-trainer-hidden"):
        wanted = plain(gr.Textbox(show_label=False, elem_id="lora_trainer_evaluate_wanted"))
        to_txt2img = plain(gr.Textbox(show_label=False, elem_id="lora_trainer_evaluate_to_txt2img"))
    with plain(gr.Tabs(elem_id="lora_trainer_evaluate_panels")):
        with gr.Tab("Pick", elem_id="lora_trainer_evaluate_pick"):
            pick = evaluate_pick.layout(samplers)
        with gr.Tab("Grid", elem_id="lora_trainer_evaluate_grid"):
            grid = evaluate_grid.layout(samplers)
        with gr.Tab("Blocks", elem_id="lora_trainer_evaluate_blocks"):
            blocks = evaluate_blocks.layout(samplers)
        with gr.Tab("Bake", elem_id="lora_trainer_evaluate_bake"):
            bake = evaluate_bake.layout()
    return EvaluateTab(
        run,
        wanted,
        about,
        progress,
        cancel,
        said,
        beside,
        gr.State(""),
        gr.State(False),
        to_txt2img,
        pick,
        grid,
        blocks,
        bake,
    )


def about_html(project: Project, known: Summary | None) -> str:
    """Return what a run is: its state, steps, triggers and files."""
    if known is None:
        return findings.empty("Nothing to evaluate yet", "Train first: every saved file of a run can be tried here.")
    try:
        triggers: Sequence[str] = runs.configuration(project, known.run).triggers
    except UserError as error:
        return findings.notice([str(error)], "error")
    files = [Path(path).stem for path in known.files]
    names = ", ".join(files) if len(files) <= 2 else f"{files[0]} … {files[-1]}"
    words = [
        f"{known.step} of {known.total_steps} steps" if known.total_steps else "",
        f"loss {known.loss:.4f}" if known.loss is not None else "",
        f"trigger {', '.join(triggers)}" if triggers else "no trigger",
        f"{counted(len(files), 'file')}: {names}",
    ]
    told = escape(" · ".join(word for word in words if word))
    return f'<p class="lora-trainer-about">{live.badge(known.state)} <span>{told}</span></p>'


def with_files(project: Project) -> list[Summary]:
    """Return the runs of a project that have files which still exist, newest first; their files are only these."""
    found = []
    for run in runs.identifiers(project):
        known = runs.summary(project, run)
        files = tuple(path for path in known.files if Path(path).is_file())
        if files:
            found.append(replace(known, files=files))
    return found


def mark_of(project: Project, run: str, state: RunState) -> str:
    """Return the step's mark: "done" when the run was evaluated, "todo" when it has ended and was not, else ""."""
    folder = project.runs / run
    if any(next(folder.glob(pattern), None) is not None for pattern in RESULTS):
        return "done"
    return "todo" if state in ("done", "stopped") else ""


def counted(count: int, what: str) -> str:
    """Return a number of things in words: `1 file`, `2 files`."""
    return f"{count} {what}{'' if count == 1 else 's'}"
