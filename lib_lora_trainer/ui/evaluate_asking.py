"""What Pick and Blocks both ask: who looks at the images, what for, and with which sampler they are made."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from lib_lora_trainer.app import tag_jobs
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.base.events import Note, Phase, Planned, SampleMade
from lib_lora_trainer.evaluate.pick_options import PickOptions
from lib_lora_trainer.plan.describe import duration
from lib_lora_trainer.tagging.models import CATALOGUE, Found, find
from lib_lora_trainer.ui import captions_actions, captions_options, captions_tagging
from lib_lora_trainer.ui.captions_jobs import downloading
from lib_lora_trainer.ui.captions_tagging import TaggingForm
from lib_lora_trainer.ui.components import button, fold, plain
from lib_lora_trainer.ui.evaluate_pick_options import TAGGER, taggers
from lib_lora_trainer.ui.evaluate_work import Evaluator
from lib_lora_trainer.ui.fields import Field
from lib_lora_trainer.ui.page import QUIET, WORKING, Page, Updates
from lib_lora_trainer.ui.session import Session

_ESTIMATE = "that are left."  # how the jobs' own estimates end


@dataclass(frozen=True)
class Asking:
    """The components. more: in the order of the fields they were made from."""

    tagger: TaggingForm
    sampler: Any
    more: list[Any]
    traits: Any
    before: Any


def layout(panel: str, samplers: Sequence[str], fields: Sequence[Field]) -> Asking:
    """Make the components. panel: `pick` or `blocks`, in their ids; fields: of the options that are folded away."""
    tagger = _tagger(panel)
    usual = PickOptions().sampler
    with fold("More options", f"{panel}_more"):
        with gr.Group(elem_classes="lora-trainer-form"):
            sampler = gr.Dropdown(
                label="Sampler", choices=list(samplers), elem_id=f"lora_trainer_{panel}_sampler",
                value=usual if usual in samplers else next(iter(samplers), None), elem_classes=["lora-trainer-setting"],
            )  # fmt: skip
            more = captions_options.laid_out(fields)
        traits = gr.Textbox(
            label="Traits", placeholder="with commas between", max_lines=1, elem_id=f"lora_trainer_{panel}_traits",
            info="Tags that the trigger has to bring. Empty: what the pictures show and the captions do not say.",
        )  # fmt: skip
        before = gr.Textbox(
            label="Captions before pruning", placeholder="/path/to/captions", max_lines=1,
            elem_id=f"lora_trainer_{panel}_before",
            info="A folder with the captions as they were. What was pruned since is then what the trigger has to bring.",
        )  # fmt: skip
    return Asking(tagger, plain(sampler), more, plain(traits), plain(before))


def _tagger(panel: str) -> TaggingForm:
    chosen = gr.Dropdown(
        label="Tagger", choices=[model.name for model in CATALOGUE], value=TAGGER,
        elem_id=f"lora_trainer_{panel}_tagger", info="It looks at the images and at the pictures of the dataset.",
    )  # fmt: skip
    own = gr.Textbox(
        label="Another tagger", placeholder="/path/to/tagger", max_lines=1, elem_id=f"lora_trainer_{panel}_own",
        info="A folder with model.onnx and selected_tags.csv, in place of the one above.",
    )  # fmt: skip
    needed = gr.HTML(elem_id=f"lora_trainer_{panel}_needed")
    download = button("Download", f"{panel}_download", visible=False)
    return TaggingForm(plain(chosen), plain(own), needed, download, [], download)


def home(evaluator: Evaluator) -> tag_jobs.Place:
    """Return where taggers are."""
    return evaluator.place.taggers or tag_jobs.Place(captions_actions.cache())


def known(evaluator: Evaluator, form: TaggingForm, name: str | None, own: str | None) -> Updates:
    """Return what getting the chosen tagger takes, if it is not on this machine."""
    return captions_tagging.looked(form, taggers(name, own), home(evaluator))


def chosen_tagger(evaluator: Evaluator, name: str | None, own: str | None) -> Found:
    """Return the chosen tagger. Raises ConfigError when it is not on this machine."""
    asked = taggers(name, own)
    found = find(asked[0], home(evaluator).folders) if asked else None
    if found is None:
        raise ConfigError(
            f"tagger: {asked[0] if asked else 'none'} is not on this machine. Download it above, or name the folder of "
            "another one."
        )
    return found


def wire(evaluator: Evaluator, page: Page, form: TaggingForm) -> None:
    """Connect the choice of a tagger, and its download."""
    outputs = {form.needed, form.download, page.evaluate.said, page.evaluate.beside}

    def look(name: str | None, own: str | None) -> Updates:
        return known(evaluator, form, name, own)

    get = downloading(home(evaluator))

    def download(session: Session, entered: Sequence[Any], control: Control) -> Iterator[Any]:
        return get(session, (taggers(*entered), ""), control)

    wanted = [form.taggers, form.own]
    form.taggers.change(evaluator.guarded(look), wanted, outputs, **QUIET)
    form.own.blur(evaluator.guarded(look), wanted, outputs, **QUIET)
    got = form.download.click(
        evaluator.starter(download, "Download", model=False), [page.session, *wanted], evaluator.outputs, **WORKING
    )
    got.then(evaluator.guarded(look), wanted, {form.needed, form.download}, **QUIET)


def timed(events: Iterator[Any]) -> Iterator[Any]:
    """Pass on what is told while images are made, with the time that is left in the name of its phase.

    The notes with the same in words are left out, and so is each image.
    """
    began: dict[str, tuple[float, int]] = {}  # by phase: when its first image was made now, and what was done by then
    phase, making = Phase("", 0, 0), False
    for event in events:
        if isinstance(event, SampleMade):
            making = True
        elif isinstance(event, Phase):
            if making and event.name == phase.name and event.name not in began:
                began[event.name] = (time.monotonic(), event.done)  # the first image also loads and compiles
            phase, making = event, False
            yield Phase(f"{_left(event, began.get(event.name))}{event.name}", event.done, event.total)
        elif not isinstance(event, Planned) and not (isinstance(event, Note) and event.text.endswith(_ESTIMATE)):
            yield event


def _left(phase: Phase, began: tuple[float, int] | None) -> str:
    if began is None or phase.done <= began[1]:
        return ""
    seconds = (time.monotonic() - began[0]) / (phase.done - began[1]) * (phase.total - phase.done)
    return f"about {duration(seconds)} left · "
