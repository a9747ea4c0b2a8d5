"""The Dataset step: folders, trigger words, and what was found in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.dataset.items import Concept, Scan
from lib_lora_trainer.ui import components, fields, findings, pictures, source_form
from lib_lora_trainer.ui.components import button, plain
from lib_lora_trainer.ui.source_form import SourceForm


@dataclass(frozen=True)
class DatasetTab:
    """The step's components."""

    triggers: Any
    folders: SourceForm
    scan: Any
    cancel: Any
    progress: Any
    summary: Any
    concepts: Any
    problems: Any
    kind: Any
    gallery: Any
    pager: Any
    previous: Any
    page: Any
    next: Any

    @property
    def shown(self) -> tuple[Any, ...]:
        """What shows a scan's result."""
        return (self.summary, self.concepts, self.problems, self.kind, self.gallery, self.pager, self.page)


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
            concepts = gr.HTML(elem_id="lora_trainer_concepts")
            problems = gr.HTML(elem_id="lora_trainer_scan_problems")
        with gr.Column(scale=3, min_width=320, elem_classes="lora-trainer-see"):
            kind = plain(
                gr.Dropdown(
                    label="Show", choices=list(pictures.FILTERS), value=pictures.FILTERS[0], visible=False,
                    elem_id="lora_trainer_filter",
                )
            )  # fmt: skip
            gallery = gr.HTML(value=nothing(), elem_id="lora_trainer_pictures")
            with gr.Row(visible=False, elem_id="lora_trainer_pager") as pager:
                previous = button("Previous", "previous_page", size="sm", min_width=80)
                page = gr.HTML(elem_id="lora_trainer_page")
                following = button("Next", "next_page", size="sm", min_width=80)
    return DatasetTab(
        triggers, folders, scan, cancel, progress, summary, concepts, problems, kind, gallery, pager, previous, page,
        following,
    )  # fmt: skip


def nothing() -> str:
    """Return what the picture side shows before the first scan."""
    return findings.empty(
        "No pictures yet",
        "Enter the folder with your pictures and their caption files, then press “Scan folders”. "
        "Nothing in the folder is changed.",
    )


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


def concept_table(concepts: Sequence[Concept]) -> str:
    """Return the concepts with images × repeats = exposures, and each one's share of an epoch."""
    if not concepts:
        return ""
    whole = sum(concept.exposures for concept in concepts) or 1
    rows = "".join(
        f'<tr><th title="{escape(str(c.folder))}">{escape(c.name)}</th><td>{c.images}</td><td>× {c.repeats}</td>'
        f"<td>{c.exposures}</td><td><div class='lora-trainer-share'>"
        f"<div style='width:{c.exposures / whole * 100:.1f}%'></div></div>{c.exposures / whole * 100:.0f} %</td></tr>"
        for c in concepts
    )
    return (
        '<table class="lora-trainer-table"><thead><tr><th>Concept</th><th>Pictures</th><th>Repeats</th>'
        f"<th>Per epoch</th><th>Share</th></tr></thead><tbody>{rows}</tbody></table>"
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
