"""The tab: a bar on top, the steps below, the same in the WebUI and on its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from lib_lora_trainer.app import tag_jobs
from lib_lora_trainer.app.queue import Runner
from lib_lora_trainer.evaluate.grid_studio import Studio
from lib_lora_trainer.hosts.api import Host
from lib_lora_trainer.ui import (
    captions_actions,
    captions_form,
    concept_table_actions,
    dataset_actions,
    dataset_tab,
    evaluate_actions,
    evaluate_form,
    findings,
    gallery_actions,
    project_actions,
    project_bar,
    queue_actions,
    rate_actions,
    reg_actions,
    reg_form,
    runs_actions,
    runs_tab,
    tools_actions,
    train_actions,
    train_tab,
    watch,
    whole_actions,
)
from lib_lora_trainer.ui.components import plain
from lib_lora_trainer.ui.page import QUIET, Page
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.scans import Scans
from lib_lora_trainer.ui.searches import shared
from lib_lora_trainer.ui.session import Session


def build(
    host: Host,
    runner: Runner,
    projects: Path,
    gate: Callable[[], None],
    *,
    txt2img: bool = False,
    taggers: tag_jobs.Place | None = None,
    studio: Studio | None = None,
    **look: Any,
) -> gr.Blocks:
    """Return the tab as gradio Blocks, for the WebUI's `on_ui_tabs` or to be launched alone.

    projects: the folder with one folder per project. gate: raises UserError where folders of this machine must not be
    read on a visitor's word. txt2img: whether a txt2img tab is beside it. taggers: where they are. studio: where
    grids are made. look: passed to Blocks (`css`, `theme`).
    """
    return at(Place(host, runner, projects, gate, txt2img, Scans(), shared(), taggers, studio), **look)


def at(place: Place, **look: Any) -> gr.Blocks:
    """Return the tab at its place. look: passed to Blocks."""
    with gr.Blocks(analytics_enabled=False, title="LoRA Trainer", **look) as blocks:
        with gr.Column(elem_id="lora_trainer_root"):
            page = _layout(place)
        save = project_actions.saver(place, page)
        scanning = dataset_actions.wire(place, page, save)
        gallery_actions.wire_actions(place, page, scanning.again)
        gallery_actions.wire_history(place, page, save, scanning.again)
        concept_table_actions.wire(place, page, save, scanning.again)
        pictures = page.dataset.gallery
        looked = tools_actions.wire(place, page, page.dataset.tools, pictures.selection, scanning.again)
        looked(pictures.mark.change(lambda: None, None, None, **QUIET))  # whatever was scanned, its journal may be new
        project_actions.wire(place, page, scanning.if_unknown)
        project_actions.wire_form(page, save)
        project_actions.wire_folders(place, page)
        whole_actions.wire(place, page)
        whole_actions.wire_file(place, page)
        train_actions.wire(place, page, save)
        train_actions.wire_run(place, page)
        train_actions.wire_test(place, page)
        queue_actions.wire(place, page, save)
        queue_actions.wire_waiting(place, page)
        rate_actions.wire(place, page)
        runs_actions.wire(place, page)
        watch.wire(place, page)
        gallery_actions.wire(place, page)
        captions_actions.wire(place, page, page.captions, page.dataset.gallery.selection, scanning.again)
        reg_actions.wire(place, page, scanning.again)
        evaluate_actions.wire(place, page)
    return blocks


def _layout(place: Place) -> Page:
    bar = project_bar.layout()
    styles = gr.HTML(elem_id="lora_trainer_styles", elem_classes="lora-trainer-hidden")
    relevance = gr.HTML(elem_id="lora_trainer_relevance", elem_classes="lora-trainer-hidden")
    welcome = gr.HTML(
        findings.empty(
            "From a folder of pictures to a file for txt2img",
            "Give your first project a name above. Then: choose the folder with your pictures, choose a recipe, look "
            "at the plan, start. Training uses the checkpoint that is loaded right now.",
        ),
        visible=False,
        elem_id="lora_trainer_welcome",
    )
    with gr.Column(visible=False, elem_id="lora_trainer_body") as steps, plain(gr.Tabs(elem_id="lora_trainer_steps")):
        with gr.Tab("Dataset", elem_id="lora_trainer_step_dataset"):
            dataset = dataset_tab.layout()
        with gr.Tab("Captions", elem_id="lora_trainer_step_captions"):
            captions = captions_form.layout()
        with gr.Tab("Reg images", elem_id="lora_trainer_step_reg") as reg_step:
            reg = reg_form.layout(place.host.samplers())
        with gr.Tab("Train", elem_id="lora_trainer_step_train"):
            train = train_tab.layout(place.host.samplers())
        with gr.Tab("Evaluate", elem_id="lora_trainer_step_evaluate") as evaluate_step:
            evaluate = evaluate_form.layout(place.host.samplers())
        with gr.Tab("Runs", elem_id="lora_trainer_step_runs") as runs_step:
            runs = runs_tab.layout()
    with gr.Row(elem_classes="lora-trainer-hidden"):
        remembered = plain(gr.Textbox(show_label=False, elem_id="lora_trainer_remembered"))
        attach = plain(gr.Button("Attach", elem_id="lora_trainer_attach"))
        refresh = plain(gr.Button("Refresh", elem_id="lora_trainer_refresh"))
    status = gr.HTML(elem_id="lora_trainer_status", elem_classes="lora-trainer-hidden")
    return Page(
        session=gr.State(Session()),
        seen=gr.State(""),
        seen_rate=gr.State(""),
        seen_scan=gr.State(""),
        remembered=remembered,
        attach=attach,
        refresh=refresh,
        status=status,
        styles=styles,
        relevance=relevance,
        welcome=welcome,
        steps=steps,
        bar=bar,
        dataset=dataset,
        train=train,
        runs=runs,
        runs_step=runs_step,
        captions=captions,
        reg=reg,
        reg_step=reg_step,
        evaluate=evaluate,
        evaluate_step=evaluate_step,
    )
