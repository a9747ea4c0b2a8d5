"""The Dataset step: folders, trigger words, and what was found in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.dataset.items import Scan
from lib_lora_trainer.ui import components, concept_table, fields, findings, gallery, source_form, tools_form
from lib_lora_trainer.ui.components import button
from lib_lora_trainer.ui.concept_table import ConceptTable
from lib_lora_trainer.ui.gallery import Gallery
from lib_lora_trainer.ui.source_form import SourceForm
from lib_lora_trainer.ui.tools_form import ToolsTab


@dataclass(frozen=True)
class DatasetTab:
    """The step's components. table: the concepts; gallery: the pictures; tools: what changes them."""

    triggers: Any
    folders: SourceForm
    scan: Any
    cancel: Any
    progress: Any
    summary: Any
    problems: Any
    table: ConceptTable
    gallery: Gallery
    tools: ToolsTab

    @property
    def shown(self) -> tuple[Any, ...]:
        """What shows a scan's result."""
        return (self.summary, self.problems, self.table.table, *self.gallery.shown)


def layout() -> DatasetTab:
    """Make the step's components."""
    with gr.Row(elem_classes="lora-trainer-columns"):
        with gr.Column(scale=2, min_width=320, elem_classes="lora-trainer-decide"):
            folders = source_form.layout()
            about = next(field for field in fields.all_fields() if field.path == "triggers")
            triggers = components.component(about)
            with gr.Row(elem_classes="lora-trainer-actions"):
                scan = button("Scan folders", "scan", variant="primary", min_width=120)
                cancel = button("Cancel", "cancel_scan", visible=False, min_width=80, scale=0)
            progress = gr.HTML(elem_id="lora_trainer_scan_progress")
            summary = gr.HTML(elem_id="lora_trainer_scan_summary")
            table = concept_table.layout()
            problems = gr.HTML(elem_id="lora_trainer_scan_problems")
        with gr.Column(scale=3, min_width=320, elem_classes="lora-trainer-see"):
            pictures = gallery.layout()
    tools = tools_form.layout()  # below both columns: its pairs of pictures need the width
    return DatasetTab(triggers, folders, scan, cancel, progress, summary, problems, table, pictures, tools)


def unscanned(shown: Gallery, project: str) -> dict[Any, Any]:
    """Return what the picture side shows before the first scan."""
    return {
        shown.mark: gallery.mark_html(project, ""),
        shown.empty: gallery.nothing(),
        shown.undo: gr.update(interactive=False),
        shown.redo: gr.update(interactive=False),
        shown.last: "",
    }


def summary(scan: Scan) -> str:
    """Return the counts of a scan."""
    exposures = sum(concept.exposures for concept in scan.concepts)
    captioned = sum(item.caption_file is not None for item in scan.items)
    return findings.figures(
        (
            (str(len(scan.items)), "pictures used"),
            (str(captioned), "with caption file"),
            (str(exposures), "exposures per epoch"),
            (str(len(scan.skipped)), "left out"),
        )
    )


def state_of(scan: Scan | None, config: RunConfig) -> str:
    """Return the step's state: todo, look (something is wrong) or done."""
    if not config.data.sources or scan is None:
        return "todo"
    return "look" if not scan.items or any(problem.severity != "note" for problem in scan.problems) else "done"


def problem_list(problems: Sequence[Problem]) -> str:
    """Return the problems with what will happen, under a heading."""
    return f"<h4>What was noticed</h4>{findings.listed(problems)}" if problems else ""


def reading(read: tuple[int, int] | None) -> str:
    """Return how far a scan is, (pictures read, pictures in all); "" when none is under way."""
    if read is None:
        return ""
    done, whole = read
    words = f"reading pictures: {done} of {whole}" if whole else "looking for pictures"
    return (
        f'<div class="lora-trainer-progress"><div style="width:{done / max(whole, 1) * 100:.0f}%"></div></div>'
        f'<div class="lora-trainer-words"><span>{words}</span></div>'
    )
