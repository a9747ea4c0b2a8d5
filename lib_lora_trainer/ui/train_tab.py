"""The Train step: recipe, settings, plan, and the run as it trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from lib_lora_trainer.config.recipes import RECIPES
from lib_lora_trainer.plan import describe
from lib_lora_trainer.plan.plan import Plan
from lib_lora_trainer.ui import fields, findings
from lib_lora_trainer.ui.fields import Field, plain


@dataclass(frozen=True)
class TrainTab:
    """The step's components. settings: by dotted path."""

    recipe: Any
    recipe_text: Any
    apply: Any
    undo: Any
    settings: dict[str, Any]
    toml: Any
    export: Any
    importing: Any
    plan: Any
    start: Any
    planned: Any
    live: Any
    samples: Any
    test_row: Any
    test_file: Any
    test: Any
    to_txt2img: Any


def layout(samplers: Sequence[str]) -> TrainTab:
    """Make the step's components."""
    with gr.Row(elem_classes="lora-trainer-columns"):
        with gr.Column(scale=2, min_width=320, elem_classes="lora-trainer-decide"):
            recipe, recipe_text, apply, undo = _recipes()
            settings = _essential(samplers)
            settings.update(_folded(samplers))
            toml, export, importing = _toml()
        with gr.Column(scale=3, min_width=320, elem_classes="lora-trainer-see"):
            live = gr.HTML(elem_id="lora_trainer_live")
            with gr.Row(visible=False, elem_id="lora_trainer_test_row") as test_row:
                test_file = plain(
                    gr.Dropdown(label="File to test", choices=[], elem_id="lora_trainer_test_file", scale=3)
                )
                test = plain(
                    gr.Button("Test in txt2img", variant="primary", elem_id="lora_trainer_test", scale=2, min_width=150)
                )
            samples = gr.HTML(elem_id="lora_trainer_samples")
            with gr.Row(elem_classes="lora-trainer-actions"):
                plan = plain(gr.Button("Make a plan", elem_id="lora_trainer_plan", min_width=120))
                start = plain(
                    gr.Button(
                        "Start training",
                        variant="primary",
                        interactive=False,
                        elem_id="lora_trainer_start",
                        min_width=120,
                    )
                )
            planned = gr.HTML(value=unplanned(), elem_id="lora_trainer_planned")
            with gr.Row(elem_classes="lora-trainer-hidden"):
                to_txt2img = plain(gr.Textbox(show_label=False, elem_id="lora_trainer_to_txt2img"))
    return TrainTab(
        recipe, recipe_text, apply, undo, settings, toml, export, importing, plan, start, planned, live, samples,
        test_row, test_file, test, to_txt2img,
    )  # fmt: skip


def _recipes() -> tuple[Any, Any, Any, Any]:
    with gr.Group(elem_classes="lora-trainer-recipe"):
        with gr.Row():
            recipe = plain(
                gr.Dropdown(
                    label="Recipe", choices=list(RECIPES), value=None, elem_id="lora_trainer_recipe", scale=3,
                    info="Values that a guide recommends. Yours stay where the recipe says nothing.",
                )
            )  # fmt: skip
            apply = plain(
                gr.Button("Use recipe", elem_id="lora_trainer_apply_recipe", scale=0, min_width=110, interactive=False)
            )
        recipe_text = gr.HTML(elem_id="lora_trainer_recipe_text")
        undo = plain(gr.Button("Undo", size="sm", visible=False, elem_id="lora_trainer_undo"))
    return recipe, recipe_text, apply, undo


def _essential(samplers: Sequence[str]) -> dict[str, Any]:
    made = {}
    with gr.Group(elem_classes="lora-trainer-form"):
        for field in fields.visible_fields():
            made[field.path] = fields.component(field, samplers)
    return made


def _folded(samplers: Sequence[str]) -> dict[str, Any]:
    made = {}
    with gr.Accordion("More settings", open=False, elem_id="lora_trainer_more"):
        plain(
            gr.Textbox(
                label="Search", placeholder="e.g. warm-up, seed, bucket", elem_id="lora_trainer_search", max_lines=1
            )
        )
        for group, title in fields.GROUPS.items():
            members = [field for field in fields.folded_fields() if field.group == group]
            if members:
                made.update(_group(title, members, samplers))
    return made


def _group(title: str, members: Sequence[Field], samplers: Sequence[str]) -> dict[str, Any]:
    with gr.Group(elem_classes="lora-trainer-group lora-trainer-form"):
        gr.HTML(f"<h4>{escape(title)}</h4>")
        return {field.path: fields.component(field, samplers) for field in members}


def _toml() -> tuple[Any, Any, Any]:
    with gr.Accordion("Settings as TOML", open=False, elem_id="lora_trainer_toml_fold"):
        toml = plain(
            gr.Textbox(
                label="TOML", lines=10, max_lines=24, elem_id="lora_trainer_toml", show_copy_button=True,
                info="The same file that the command line reads.",
            )
        )  # fmt: skip
        with gr.Row():
            export = plain(gr.Button("Export", size="sm", elem_id="lora_trainer_export", min_width=80))
            download = plain(gr.Button("Download", size="sm", elem_id="lora_trainer_download", min_width=80))
            choose = plain(gr.Button("Open file", size="sm", elem_id="lora_trainer_open_toml", min_width=80))
            importing = plain(gr.Button("Import", size="sm", elem_id="lora_trainer_import", min_width=80))
        # Both stay in the browser: the page reads and writes the text itself, no path reaches the server.
        download.click(None, None, None, _js="() => { loraTrainer.download(); }", api_name=False)
        choose.click(None, None, None, _js="() => { loraTrainer.open(); }", api_name=False)
    return toml, export, importing


def recipe_html(name: str | None) -> str:
    """Return what a recipe is for and whose numbers it has."""
    recipe = RECIPES.get(name or "")
    if recipe is None:
        return ""
    return f"<p>{escape(recipe.text)} <small>From {escape(recipe.guide)}.</small></p>"


def unplanned() -> str:
    """Return what the plan's place shows before there is one."""
    return findings.empty(
        "What will happen?",
        "“Make a plan” reads your pictures and says how many steps it will be, how long it takes, how much memory it "
        "needs and what looks risky. Nothing is trained yet.",
    )


def plan_html(plan: Plan) -> str:
    """Return a plan: the large figures, what to look at, and all of it in words."""
    figures = [
        (f"{plan.steps}", f"steps in {plan.epochs} epochs"),
        (describe.duration(plan.seconds) if plan.seconds is not None else "unknown", "about, without samples"),
        (describe.size(plan.estimate.memory_bytes), "memory, about"),
        (describe.size(plan.estimate.file_bytes), f"per file, {plan.saves} files"),
    ]
    words = "".join(f"<li>{escape(line)}</li>" for line in describe.lines(plan))
    verdict = "This cannot start yet" if plan.errors else "Ready to start"
    tone = "error" if plan.errors else "done"
    return (
        f'<div class="lora-trainer-plan" data-state="{tone}"><h3>{verdict}</h3>{findings.listed(plan.problems)}'
        f"{findings.figures(figures) if plan.images else ''}<details open><summary>The plan in words</summary>"
        f"<ul>{words}</ul></details></div>"
    )
