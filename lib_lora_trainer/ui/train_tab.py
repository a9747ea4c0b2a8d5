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
from lib_lora_trainer.ui import file_form, findings, rate_form, settings_form, sweep_form
from lib_lora_trainer.ui.components import button, plain
from lib_lora_trainer.ui.file_form import FileForm
from lib_lora_trainer.ui.rate_form import RateForm
from lib_lora_trainer.ui.sweep_form import SweepForm


@dataclass(frozen=True)
class TrainTab:
    """The step's components. settings: by dotted path."""

    recipe: Any
    recipe_text: Any
    apply: Any
    undo: Any
    settings: dict[str, Any]
    file: FileForm
    rate: RateForm
    sweep: SweepForm
    plan: Any
    start: Any
    enqueue: Any
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
            settings = settings_form.layout(samplers)
            file = file_form.layout()
        with gr.Column(scale=3, min_width=320, elem_classes="lora-trainer-see"):
            live = gr.HTML(elem_id="lora_trainer_live")
            with gr.Row(visible=False, elem_id="lora_trainer_test_row") as test_row:
                test_file = plain(
                    gr.Dropdown(label="File to test", choices=[], elem_id="lora_trainer_test_file", scale=3)
                )
                test = button("Test in txt2img", "test", variant="primary", scale=2, min_width=150)
            samples = gr.HTML(elem_id="lora_trainer_samples")
            with gr.Row(elem_classes="lora-trainer-actions"):
                plan = button("Make a plan", "plan", min_width=120)
                start = button("Start training", "start", variant="primary", interactive=False, min_width=120)
                enqueue = button("Add to queue", "enqueue", min_width=120)
            planned = gr.HTML(value=unplanned(), elem_id="lora_trainer_planned")
            rate = rate_form.layout()
            sweep = sweep_form.layout()
            with gr.Row(elem_classes="lora-trainer-hidden"):
                to_txt2img = plain(gr.Textbox(show_label=False, elem_id="lora_trainer_to_txt2img"))
    return TrainTab(
        recipe, recipe_text, apply, undo, settings, file, rate, sweep, plan, start, enqueue, planned, live, samples,
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
            apply = button("Use recipe", "apply_recipe", scale=0, min_width=110, interactive=False)
        recipe_text = gr.HTML(elem_id="lora_trainer_recipe_text")
        undo = button("Undo", "undo", size="sm", visible=False)
    return recipe, recipe_text, apply, undo


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
