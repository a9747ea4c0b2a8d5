"""Which epoch at which weight: the components of what is tried and of what the trial says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from lib_lora_trainer.app import runs
from lib_lora_trainer.ui import captions_options, evaluate_asking, evaluate_pick_actions, evaluate_pick_result
from lib_lora_trainer.ui.captions_tagging import TaggingForm
from lib_lora_trainer.ui.components import button, plain
from lib_lora_trainer.ui.evaluate_pick_options import IMAGES, MORE, TAGGER, WEIGHTS, spread
from lib_lora_trainer.ui.evaluate_work import Evaluator
from lib_lora_trainer.ui.fields import element
from lib_lora_trainer.ui.page import Page, Updates
from lib_lora_trainer.ui.session import Session, project_of


@dataclass(frozen=True)
class PickPanel:
    """The panel's components.

    files: names of the run's adapters; weights, images, more: the options of a trial, more: in the order of `MORE`.
    count: how many images that means; drafted: what a look at the dataset adds to it. cell: number of the cell whose
    images are shown, 0 for the base model's; the page's script writes it. train: takes over how many epochs to train.
    """

    files: Any
    weights: Any
    images: Any
    count: Any
    tagger: TaggingForm
    sampler: Any
    more: list[Any]
    traits: Any
    before: Any
    begin: Any
    preview: Any
    drafted: Any
    verdict: Any
    test: Any
    use: Any
    train: Any
    details: Any
    cell: Any
    images_of: Any

    @property
    def starting(self) -> tuple[Any, ...]:
        """The buttons that start work."""
        return (self.begin, self.preview, self.tagger.download)

    @property
    def shown(self) -> set[Any]:
        """What choosing a run may update."""
        return {
            self.files, self.count, self.tagger.needed, self.tagger.download, self.weights, self.images, self.sampler,
            *self.more, *self.results,
        }  # fmt: skip

    @property
    def results(self) -> set[Any]:
        """What shows the result of a trial."""
        return {self.drafted, self.verdict, self.test, self.use, self.train, self.details, self.cell, self.images_of}

    @property
    def entered(self) -> list[Any]:
        """What work reads, in the order of `evaluate_pick_actions.Wish`."""
        return [
            self.files, self.weights, self.images, self.tagger.taggers, self.tagger.own, self.sampler, self.traits,
            self.before, *self.more,
        ]  # fmt: skip

    @property
    def clip_skip(self) -> Any:
        """The field that follows the run's setting."""
        return self.more[[field.path.rpartition(".")[2] for field in MORE].index("clip_skip")]


def layout(samplers: tuple[str, ...]) -> PickPanel:
    """Make the panel's components. samplers: what the host calls them."""
    with gr.Row(elem_classes="lora-trainer-columns"):
        with gr.Column(scale=2, min_width=320, elem_classes="lora-trainer-decide"):
            entered = _form(samplers)
        with gr.Column(scale=3, min_width=320, elem_classes="lora-trainer-see"):
            drafted = gr.HTML(elem_id="lora_trainer_pick_drafted")
            verdict = gr.HTML(value=evaluate_pick_result.nothing(), elem_id="lora_trainer_pick_verdict")
            with gr.Row(elem_classes="lora-trainer-actions"):
                test = button("Test in txt2img", "pick_test", variant="primary", visible=False)
                use = button("Use for baking", "pick_use", visible=False)
                train = button("Set next run’s length", "pick_train", visible=False)
            details = gr.HTML(elem_id="lora_trainer_pick_details")
            with gr.Row(elem_classes="lora-trainer-hidden"):
                cell = plain(gr.Textbox(show_label=False, elem_id="lora_trainer_pick_cell"))
            images_of = gr.HTML(elem_id="lora_trainer_pick_images")
    return PickPanel(
        **entered, drafted=drafted, verdict=verdict, test=test, use=use, train=train, details=details, cell=cell,
        images_of=images_of,
    )  # fmt: skip


def _form(samplers: Sequence[str]) -> dict[str, Any]:
    gr.HTML(
        "<p>Every file makes the same images at every weight. A tagger says what they show: whether the trigger brings "
        "its traits, whether the rest of the prompt is obeyed, and what comes unasked.</p>"
    )
    files = gr.CheckboxGroup(
        label="Files", choices=[], value=[], elem_id="lora_trainer_pick_files",
        info="Saved files of the run. At first up to six are chosen, spread over the training.",
    )  # fmt: skip
    with gr.Group(elem_classes="lora-trainer-form"):
        weights = gr.Textbox(
            label=WEIGHTS.label, value=", ".join(f"{each:g}" for each in WEIGHTS.default), max_lines=1,
            info="Weights at which each file is tried, with commas between.", elem_id=element(WEIGHTS.path),
            elem_classes=["lora-trainer-setting"],
        )  # fmt: skip
        (images,) = captions_options.laid_out((IMAGES,))
    count = gr.HTML(elem_id="lora_trainer_pick_count")
    asking = evaluate_asking.layout("pick", samplers, MORE)
    with gr.Row(elem_classes="lora-trainer-actions"):
        begin = button("Try files and weights", "pick_begin", variant="primary")
        preview = button("What will be tried?", "pick_preview")
    return {
        "files": plain(files), "weights": plain(weights), "images": images, "count": count, **vars(asking),
        "begin": begin, "preview": preview,
    }  # fmt: skip


def chosen(evaluator: Evaluator, panel: PickPanel, session: Session, run: str) -> Updates:
    """Return what the panel shows of a run; a subset of `panel.shown`. run: "" for none."""
    updates = evaluate_pick_result.shown(evaluator.place, panel, session, run)
    if not run:
        return {**updates, panel.files: gr.update(choices=[], value=[]), panel.count: ""}
    names = [Path(path).stem for path in evaluator.files(session, run)]
    project = project_of(evaluator.place.projects, session)
    known = evaluate_pick_result.tried(project, run)
    picked = [name for name in names if known and name in known.files] or spread(names)
    if known:
        entered = dict(zip([panel.weights, panel.images, panel.sampler, *panel.more], known.entered, strict=True))
    else:
        entered = {panel.clip_skip: runs.configuration(project, run).training.clip_skip}
    files = {panel.files: gr.update(choices=names, value=picked)}
    return {**updates, **files, **entered, **evaluate_asking.known(evaluator, panel.tagger, TAGGER, "")}


def wire(evaluator: Evaluator, page: Page, panel: PickPanel) -> None:
    """Connect the events."""
    evaluate_pick_actions.wire(evaluator, page, panel)
