"""The gradio component of each kind of setting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

import gradio as gr

from lib_lora_trainer.ui.entry import USUAL, to_form
from lib_lora_trainer.ui.fields import Field, element


def component(field: Field, samplers: Sequence[str] = ()) -> Any:
    """Return the gradio component of a field."""
    common = {
        "label": field.label,
        "info": field.help,
        "elem_id": element(field.path),
        "elem_classes": ["lora-trainer-setting"],
    }
    choices = tuple(samplers) if field.path == "samples.sampler" else field.about.choices
    value = to_form(field, field.default)
    made: Any
    if field.kind == "switch" and field.optional:
        made = gr.Radio(choices=three_ways(field.none_means), value=value, **common)
    elif field.kind == "switch":
        made = gr.Checkbox(value=value, **common)
    elif choices:
        made = gr.Dropdown(choices=list(choices), value=value, **common)
    elif field.kind in ("whole", "number") and not field.optional:
        made = gr.Number(value=value, **common)
    else:
        lines, most = (3, 8) if field.kind == "lines" else (1, 1)
        made = gr.Textbox(value=value, lines=lines, max_lines=most, placeholder=_placeholder(field), **common)
    return plain(made)


def three_ways(none_means: str) -> list[tuple[str, str]]:
    """Return the choices of a switch that may be left open: (shown, value)."""
    return [(none_means, USUAL), ("on", "on"), ("off", "off")]


def button(text: str, name: str, **look: Any) -> Any:
    """Return a button whose id is `lora_trainer_` and its name."""
    look.setdefault("min_width", 100)
    return plain(gr.Button(text, elem_id=f"lora_trainer_{name}", **look))


def plain(made: Any) -> Any:
    """Return a component that the WebUI keeps out of ui-config.json, where an old default would outlive ours."""
    made.do_not_save_to_config = True
    return made


@contextmanager
def fold(title: str, name: str, *, is_open: bool = False) -> Iterator[Any]:
    """Make a part of the page that folds by its title; the page's script remembers which are open.

    name: the column's id is `lora_trainer_fold_` and this name.
    """
    first = ["lora-trainer-open-first"] if is_open else []
    with gr.Column(elem_id=f"lora_trainer_fold_{name}", elem_classes=["lora-trainer-fold", *first]) as column:
        gr.HTML(
            f'<button type="button" class="lora-trainer-fold-head" aria-expanded="false"><span>{escape(title)}</span>'
            "</button>",
            elem_classes="lora-trainer-fold-title",
        )
        yield column


def _placeholder(field: Field) -> str | None:
    if field.optional:
        return field.none_means
    return {"lines": "one a line", "wholes": "e.g. 768, 1024", "words": "with commas between"}.get(field.kind)
