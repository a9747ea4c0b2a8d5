"""Edits of many captions as the page offers them: a choice, and the options of each from their one definition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.captions.edits import EDITS
from lib_lora_trainer.ui import captions_options
from lib_lora_trainer.ui.components import button, fold, plain
from lib_lora_trainer.ui.fields import Field


@dataclass(frozen=True)
class EditsForm:
    """The components. columns: of the options, by edit; options: the components by edit."""

    kind: Any
    columns: dict[str, Any]
    options: dict[str, list[Any]]
    preview: Any

    @property
    def starting(self) -> tuple[Any, ...]:
        """The buttons that start work."""
        return (self.preview,)

    @property
    def entered(self) -> list[Any]:
        """Every option's component, edit by edit in the order of EDITS."""
        return [component for name in EDITS for component in self.options[name]]


def layout() -> EditsForm:
    """Make the components."""
    columns, options = {}, {}
    with fold("Edit many captions", "captions_edits"):
        kind = gr.Dropdown(
            label="Edit", choices=[edit.title for edit in EDITS.values()], value=next(iter(EDITS.values())).title,
            elem_id="lora_trainer_captions_edit",
        )  # fmt: skip
        for name in EDITS:
            fields = fields_of(name)
            with gr.Column(visible=name == next(iter(EDITS))) as column, gr.Group(elem_classes="lora-trainer-form"):
                options[name] = captions_options.laid_out(fields)
                if not fields:
                    gr.HTML("<p>Needs no settings.</p>")
            columns[name] = column
        preview = button("Preview", "captions_edits_preview", variant="primary")
    return EditsForm(plain(kind), columns, options, preview)


def titled(title: str) -> str:
    """Return the name of the edit with a title. Raises ConfigError for a title that is none."""
    found = next((name for name, edit in EDITS.items() if edit.title == title), None)
    if found is None:
        raise ConfigError(f"edit: {title!r} is none. Choose one in the list.")
    return found


def fields_of(name: str) -> tuple[Field, ...]:
    """Return the form fields of an edit."""
    return captions_options.fields_of(f"edit.{name}", EDITS[name].options)


def chosen(name: str, entered: Sequence[Any]) -> Any:
    """Return the options of an edit among all that were sent, in the order of `EditsForm.entered`."""
    fields = fields_of(name)
    names = list(EDITS)
    start = sum(len(fields_of(each)) for each in names[: names.index(name)])
    return captions_options.chosen(fields, EDITS[name].options, entered[start : start + len(fields)])
