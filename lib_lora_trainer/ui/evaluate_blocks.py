"""Which blocks of an adapter matter: the components of what is tried and of what the analysis says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from lib_lora_trainer.ui import captions_options, evaluate_asking, evaluate_blocks_actions, evaluate_blocks_result
from lib_lora_trainer.ui.captions_tagging import TaggingForm
from lib_lora_trainer.ui.components import button, plain
from lib_lora_trainer.ui.evaluate_blocks_options import FIRST, MORE
from lib_lora_trainer.ui.evaluate_work import Evaluator
from lib_lora_trainer.ui.page import Page, Updates
from lib_lora_trainer.ui.session import Session


@dataclass(frozen=True)
class BlocksPanel:
    """The panel's components.

    file: name of one of the run's; count: how many images that means; first, more: the options, in the order of `FIRST`
    and `MORE`. told: the whole result; preset, training: the smallest set as block weights and as the setting for
    training, with what can be done with it.
    """

    file: Any
    first: list[Any]
    count: Any
    tagger: TaggingForm
    sampler: Any
    more: list[Any]
    traits: Any
    before: Any
    begin: Any
    search: Any
    preview: Any
    drafted: Any
    chosen: Any
    offers: Any
    preset: Any
    training: Any
    test: Any
    bake: Any
    train: Any
    name: Any
    keep: Any
    told: Any

    @property
    def starting(self) -> tuple[Any, ...]:
        """The buttons that start work."""
        return (self.begin, self.search, self.preview, self.tagger.download)

    @property
    def shown(self) -> set[Any]:
        """What choosing a run may update."""
        return {
            self.count, self.tagger.needed, self.tagger.download, self.drafted, *self.entered, *self.results,
        }  # fmt: skip

    @property
    def results(self) -> set[Any]:
        """What shows the result of an analysis."""
        return {self.chosen, self.offers, self.preset, self.training, self.test, self.told}

    @property
    def entered(self) -> list[Any]:
        """What work reads, in the order of `evaluate_blocks_actions.request_of`."""
        return [
            self.file, self.tagger.taggers, self.tagger.own, self.sampler, self.traits, self.before, *self.first, *self.more,
        ]  # fmt: skip

    @property
    def clip_skip(self) -> Any:
        """The field that follows the run's setting."""
        return self.more[[field.path.rpartition(".")[2] for field in MORE].index("clip_skip")]


def layout(samplers: tuple[str, ...]) -> BlocksPanel:
    """Make the panel's components. samplers: what the host calls them."""
    with gr.Row(elem_classes="lora-trainer-columns"):
        with gr.Column(scale=2, min_width=320, elem_classes="lora-trainer-decide"):
            entered = _form(samplers)
        with gr.Column(scale=3, min_width=320, elem_classes="lora-trainer-see"):
            drafted = gr.HTML(elem_id="lora_trainer_blocks_drafted")
            chosen = gr.HTML(elem_id="lora_trainer_blocks_chosen")
            offered = _offers()
            told = gr.HTML(value=evaluate_blocks_result.nothing(), elem_id="lora_trainer_blocks_told")
    return BlocksPanel(**entered, **offered, drafted=drafted, chosen=chosen, told=told)


def _form(samplers: Sequence[str]) -> dict[str, Any]:
    gr.HTML(
        "<p>Every block of the file is switched off, and switched on alone, at the same prompts and seeds. A tagger says "
        "whether the trigger still brings its traits; how many pixels change and how far the style drifts is measured, "
        "too.</p>"
    )
    file = gr.Dropdown(
        label="File", choices=[], value=None, elem_id="lora_trainer_blocks_file", info="Saved files of the run."
    )
    with gr.Group(elem_classes="lora-trainer-form"):
        first = captions_options.laid_out(FIRST)
    count = gr.HTML(elem_id="lora_trainer_blocks_count")
    asking = evaluate_asking.layout("blocks", samplers, MORE)
    with gr.Row(elem_classes="lora-trainer-actions"):
        begin = button("Analyse blocks", "blocks_begin", variant="primary")
        search = button("Find the smallest set", "blocks_search")
        preview = button("What will be made?", "blocks_preview")
    return {
        "file": plain(file), "first": first, "count": count, **vars(asking), "begin": begin, "search": search,
        "preview": preview,
    }  # fmt: skip


def _offers() -> dict[str, Any]:
    """Make what is offered of the smallest set, out of sight until there is one."""
    with gr.Column(visible=False, elem_id="lora_trainer_blocks_offers") as offers:
        preset = gr.Textbox(
            label="Block weights", interactive=False, max_lines=3, show_copy_button=True, elem_id="lora_trainer_blocks_preset",
            info="For lbw= in a prompt, and for the presets of LoRA Block Weight.",
        )  # fmt: skip
        training = gr.Textbox(
            label="Blocks for the next training", interactive=False, max_lines=3, show_copy_button=True,
            elem_id="lora_trainer_blocks_training", info="As the setting Blocks in the Train step has it.",
        )  # fmt: skip
        with gr.Row(elem_classes="lora-trainer-actions"):
            test = button("Test in txt2img", "blocks_test", variant="primary")
            bake = button("Use for baking", "blocks_bake")
            train = button("Use for next training", "blocks_train")
        with gr.Row(elem_classes="lora-trainer-actions"):
            name = gr.Textbox(
                label="Name of the preset", placeholder="MINE", max_lines=1, elem_id="lora_trainer_blocks_name"
            )
            keep = button("Keep as preset", "blocks_keep")
    return {
        "offers": offers, "preset": plain(preset), "training": plain(training), "test": test, "bake": bake,
        "train": train, "name": plain(name), "keep": keep,
    }  # fmt: skip


def chosen(evaluator: Evaluator, panel: BlocksPanel, session: Session, run: str) -> Updates:
    """Return what the panel shows of a run; a subset of `panel.shown`. run: "" for none."""
    return evaluate_blocks_actions.chosen(evaluator, panel, session, run)


def wire(evaluator: Evaluator, page: Page, panel: BlocksPanel) -> None:
    """Connect the events."""
    evaluate_blocks_actions.wire(evaluator, page, panel)
