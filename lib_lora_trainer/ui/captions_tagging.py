"""Tagging as the page offers it: which taggers, what has to be downloaded, thresholds and how captions are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from lib_lora_trainer.app import tag_jobs
from lib_lora_trainer.base.errors import TrainerError
from lib_lora_trainer.tagging.models import CATALOGUE, Model, known
from lib_lora_trainer.tagging.options import TagOptions
from lib_lora_trainer.ui import captions_options, findings
from lib_lora_trainer.ui.components import button, fold, plain
from lib_lora_trainer.ui.fields import Field

_FIELDS = captions_options.fields_of("tag", TagOptions, without=("taggers",))
FIRST = tuple(field for field in _FIELDS if field.about.essential)
MORE = tuple(field for field in _FIELDS if not field.about.essential)
DEFAULT = TagOptions().taggers


@dataclass(frozen=True)
class TaggingForm:
    """The components. needed: what has to be downloaded first, with the button `download`."""

    taggers: Any
    own: Any
    needed: Any
    download: Any
    options: list[Any]
    preview: Any

    @property
    def starting(self) -> tuple[Any, ...]:
        """The buttons that start work."""
        return (self.preview, self.download)

    @property
    def known(self) -> set[Any]:
        """What a look at the taggers may update."""
        return {self.needed, self.download}


def layout() -> TaggingForm:
    """Make the components."""
    with fold("Tag pictures", "captions_tagging", is_open=True):
        taggers = gr.Dropdown(
            label="Taggers", choices=[model.name for model in CATALOGUE], value=list(DEFAULT),
            multiselect=True, elem_id="lora_trainer_captions_taggers",
            info="They look at the pictures and name what they see. Several are combined as chosen below.",
        )  # fmt: skip
        own = gr.Textbox(
            label="Another tagger", placeholder="/path/to/tagger", max_lines=1, elem_id="lora_trainer_captions_own",
            info="A folder with model.onnx and selected_tags.csv.",
        )  # fmt: skip
        needed = gr.HTML(elem_id="lora_trainer_captions_needed")
        download = button("Download", "captions_download", visible=False)
        with gr.Group(elem_classes="lora-trainer-form"):
            first = captions_options.laid_out(FIRST)
        with fold("More tagging options", "captions_tagging_more"), gr.Group(elem_classes="lora-trainer-form"):
            more = captions_options.laid_out(MORE)
        preview = button("Preview", "captions_tagging_preview", variant="primary")
    return TaggingForm(plain(taggers), plain(own), needed, download, [*first, *more], preview)


def chosen(taggers: Sequence[str] | None, own: str | None, entered: Sequence[Any]) -> TagOptions:
    """Return what was entered, `entered` in the order of the options. Raises ConfigError naming the field."""
    names = wanted(taggers, own)
    options: TagOptions = captions_options.chosen((*FIRST, *MORE), TagOptions, entered, taggers=names)
    return options


def wanted(taggers: Sequence[str] | None, own: str | None) -> tuple[str, ...]:
    """Return the taggers that are chosen, a folder of one's own last."""
    return (*(taggers or ()), *filter(None, ((own or "").strip(),)))


def absent(names: Sequence[str], place: tag_jobs.Place) -> tuple[Model, ...]:
    """Return the taggers that have to be downloaded. Raises as `tag_jobs.is_absent`."""
    return tuple(model for name in names if tag_jobs.is_absent(name, place) and (model := known(name)) is not None)


def looked(form: TaggingForm, names: Sequence[str], place: tag_jobs.Place) -> dict[Any, Any]:
    """Return what the form says of taggers: which lie on this machine, what a download would take."""
    try:
        missing = absent(names, place)
    except TrainerError as error:
        return {form.needed: findings.notice([str(error)], "error"), form.download: gr.update(visible=False)}
    size = f"{sum(model.megabytes for model in missing)} MB"
    lines = "".join(
        f"<li><b>{escape(model.name)}</b> <small>huggingface.co/{escape(model.repository)} · about {model.megabytes} MB"
        "</small></li>"
        for model in missing
    )
    text = f"<p>Has to be downloaded first, into {escape(str(place.home))}:</p><ul>{lines}</ul>" if missing else ""
    return {
        form.needed: text + _about(place),
        form.download: gr.update(visible=bool(missing), value=f"Download about {size}"),
    }


def _about(place: tag_jobs.Place) -> str:
    """Return what the list of taggers leaves out: which are here, and from which score on each is usually believed."""
    rows = "".join(
        f"<tr><th>{escape(model.name)}</th><td>{model.general:g}</td>"
        f"<td>{f'{model.megabytes} MB' if found is None else 'on this machine'}</td></tr>"
        for model, found in tag_jobs.catalogue(place)
    )
    return (
        "<details><summary>The taggers in this list</summary><table class='lora-trainer-table'><thead><tr>"
        f"<th>Tagger</th><th>Usual threshold</th><th>Download</th></tr></thead><tbody>{rows}</tbody></table></details>"
    )


def fields() -> tuple[Field, ...]:
    """Return the fields of the options, in the order of the components."""
    return (*FIRST, *MORE)
