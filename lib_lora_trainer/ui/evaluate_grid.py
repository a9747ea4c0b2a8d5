"""The Grid panel of the Evaluate step: grids of images of a run, ready-made or one's own, kept in the run's folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from lib_lora_trainer.app import grid_saves, grid_store, runs
from lib_lora_trainer.app.projects import Project
from lib_lora_trainer.base.errors import ConfigError, DataError
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.evaluate.pick_options import usual_side
from lib_lora_trainer.ui import evaluate_grid_form, evaluate_grid_show, evaluate_grid_work, findings
from lib_lora_trainer.ui.components import button, plain
from lib_lora_trainer.ui.evaluate_grid_form import FIELDS, NEWEST, PLACES, READY, GridForm
from lib_lora_trainer.ui.evaluate_grid_work import Prepared, Written
from lib_lora_trainer.ui.evaluate_work import Evaluator
from lib_lora_trainer.ui.page import WORKING, Page, Updates
from lib_lora_trainer.ui.session import Session, project_of


@dataclass(frozen=True)
class GridPanel:
    """The panel's components. draft: what would be made; grids: those of the run; again: makes what one of them lacks.

    settings: fills the form with those of the chosen grid; cells: the chosen grid.
    """

    form: GridForm
    preview: Any
    start: Any
    draft: Any
    grids: Any
    again: Any
    settings: Any
    cells: Any

    @property
    def starting(self) -> tuple[Any, ...]:
        """The buttons that start work."""
        return (*self.form.ready.values(), self.preview, self.start, self.again)

    @property
    def listed(self) -> set[Any]:
        """What choosing a grid may update."""
        return {self.grids, self.again, self.settings, self.cells}

    @property
    def shown(self) -> set[Any]:
        """What choosing a run may update."""
        form = self.form
        prompt = form.options[0]
        return {form.adapter, form.second_run, form.other, prompt, self.draft, *self.listed, *self.size}

    @property
    def size(self) -> tuple[Any, Any]:
        """Width and height of the images."""
        found = dict(zip((field.path for field in FIELDS), self.form.options, strict=True))
        return found["grid.width"], found["grid.height"]


def layout(samplers: tuple[str, ...]) -> GridPanel:
    """Make the panel's components."""
    form = evaluate_grid_form.layout(samplers)
    with gr.Row(elem_classes="lora-trainer-actions"):
        preview = button("Preview", "grid_preview")
        start = button("Start", "grid_start", variant="primary")
    draft = gr.HTML(elem_id="lora_trainer_grid_draft")
    with gr.Row(elem_classes="lora-trainer-actions", elem_id="lora_trainer_grid_kept"):
        grids = plain(
            gr.Dropdown(label="Grids of this run", choices=[], value=None, elem_id="lora_trainer_grid_chosen")
        )
        again = button("Continue", "grid_continue", visible=False)
        settings = button("Use its settings", "grid_settings", visible=False)
    cells = gr.HTML(elem_id="lora_trainer_grid_cells")
    return GridPanel(form, preview, start, draft, grids, again, settings, cells)


def chosen(evaluator: Evaluator, panel: GridPanel, session: Session, run: str) -> Updates:
    """Return what the panel shows of a run; a subset of `panel.shown`. run: "" for none."""
    form = panel.form
    if not run:
        empty = {each: gr.update(choices=[], value=None) for each in (form.second_run, form.other)}
        newest = gr.update(choices=[NEWEST], value=NEWEST)
        return {**empty, form.adapter: newest, panel.draft: "", **_listed(evaluator, panel, session, run, "")}
    project = project_of(evaluator.place.projects, session)
    folder = runs.folder_of(project, run)
    return {
        form.adapter: gr.update(choices=[NEWEST, *_saves(folder)]),
        form.second_run: gr.update(choices=_others(project, run)),
        form.other: gr.update(choices=evaluate_grid_work.offered(evaluator.place)),
        form.options[0]: gr.update(placeholder=_prompt(folder)),
        panel.draft: "",
        **_listed(evaluator, panel, session, run, ""),
    }


def sized(panel: GridPanel, config: RunConfig) -> Updates:
    """Return the size of images for another run than before: as large as it trained; a subset of `panel.shown`."""
    return dict.fromkeys(panel.size, usual_side(config.data))


def wire(evaluator: Evaluator, page: Page, panel: GridPanel) -> None:
    """Connect the events."""
    form, run = panel.form, evaluator.tab.run
    more = [form.checkpoints, form.second_run, form.other]
    drafting, outputs = evaluator.outputs | {panel.draft}, evaluator.outputs | panel.listed | {panel.draft}

    def prepared(made: Prepared) -> Updates:
        return {**evaluate_grid_form.prepared(form, made.config, made.name), **drafted(made)}

    def drafted(made: Prepared) -> Updates:
        return {panel.draft: evaluate_grid_show.drafted(made.lines, made.missing)}

    def written(made: Written) -> Updates:
        return {panel.draft: "", **_listed(evaluator, panel, made.session, made.run, made.name)}

    for kind, pressed in form.ready.items():
        work = evaluator.starter(
            evaluate_grid_work.preparing(evaluator, kind), READY[kind], PLACES, prepared, model=False
        )
        pressed.click(work, [page.session, run, *more, *form.entered], drafting | form.filled, **WORKING)
    preview = evaluator.starter(evaluate_grid_work.preparing(evaluator), "Preview", PLACES, drafted, model=False)
    panel.preview.click(preview, [page.session, run, *more, *form.entered], drafting, **WORKING)
    start = evaluator.starter(evaluate_grid_work.making(evaluator), "Grid", PLACES, written)
    panel.start.click(start, [page.session, run, *form.entered], outputs, **WORKING)
    again = evaluator.starter(evaluate_grid_work.continuing(evaluator), "Grid", PLACES, written)
    panel.again.click(again, [page.session, run, panel.grids], outputs, **WORKING)

    def look(session: Session, chosen_run: str | None, name: str | None) -> Updates:
        return _listed(evaluator, panel, session, chosen_run or "", name or "")

    def take(session: Session, chosen_run: str | None, name: str | None) -> Updates:
        folder = evaluate_grid_work.folder_of(evaluator.place, session, chosen_run)
        config = grid_store.settings(grid_store.place(folder, name or ""))
        return evaluate_grid_form.filled(form, config, name or "")

    chosen_grid = [page.session, run, panel.grids]
    panel.grids.input(evaluator.guarded(look), chosen_grid, evaluator.outputs | panel.listed, **WORKING)
    panel.settings.click(evaluator.guarded(take), chosen_grid, evaluator.outputs | form.filled, **WORKING)


def _listed(evaluator: Evaluator, panel: GridPanel, session: Session, run: str, name: str) -> Updates:
    """Return a run's grids, and one of them; the one that was changed last where none is named."""
    if not run:
        hidden = {each: gr.update(visible=False) for each in (panel.again, panel.settings)}
        return {panel.grids: gr.update(choices=[], value=None), panel.cells: "", **hidden}
    project = project_of(evaluator.place.projects, session)
    folder = runs.folder_of(project, run)
    known = grid_store.names(folder)
    value = name if name in known else (known[0] if known else None)
    html = findings.empty("No grid yet", "Press one of the buttons above, look at what would be made, and start.")
    partial = False
    if value:
        try:
            kept = grid_store.kept(grid_store.place(folder, value))
            html = evaluate_grid_show.shown(kept, project.folder, txt2img=evaluator.place.txt2img)
            partial = kept is None or len(kept.cells) < kept.places
        except DataError as error:  # the rest of the step is none the worse
            html, partial = findings.notice([str(error)], "error"), True
    return {
        panel.grids: gr.update(choices=list(known), value=value),
        panel.again: gr.update(visible=partial),
        panel.settings: gr.update(visible=value is not None),
        panel.cells: html,
    }


def _saves(folder: Path) -> list[str]:
    try:
        return [Path(save).stem for save in reversed(grid_saves.find(folder))]
    except ConfigError:  # it has saved nothing yet, which the step says already
        return []


def _prompt(folder: Path) -> str:
    """Return what an empty prompt stands for."""
    try:
        return grid_saves.prompt_for(folder, grid_saves.find(folder))
    except ConfigError:  # nothing says it; whoever starts a grid is told to enter one
        return ""


def _others(project: Project, run: str) -> list[str]:
    return [each for each in runs.identifiers(project) if each != run and runs.adapters(project, each)]
