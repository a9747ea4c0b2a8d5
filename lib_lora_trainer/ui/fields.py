"""Settings as form fields: one component per field of the configuration, from its one definition."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import gradio as gr

from lib_lora_trainer.base.setting import Setting
from lib_lora_trainer.config.run import RunConfig

Kind = Literal["switch", "choice", "whole", "number", "text", "words", "lines"]

ELSEWHERE = ("version", "base_model", "data.sources")
"""Settings without a field of their own: filled in by the program, or by the table of folders."""

IN_DATASET = ("triggers",)
VISIBLE = ("name", "samples.prompts")
"""Shown with the essential ones: without a name nothing is written, without prompts nothing is seen."""

GROUPS = {
    "": "General",
    "data": "Pictures",
    "data.caption": "Captions",
    "adapter": "Adapter",
    "optimizer": "Optimizer",
    "training": "Training",
    "save": "Files",
    "samples": "Sample images",
}


_UNREACHED = 99_999  # a bound above this tells nobody anything


@dataclass(frozen=True)
class Field:
    """A setting with a form field. path: dotted; default: of a new configuration."""

    path: str
    about: Setting
    kind: Kind
    default: Any

    @property
    def label(self) -> str:
        """The field's name as people read it."""
        return (
            self.about.label or self.path.rpartition(".")[2].replace("_", " ").capitalize()
        )

    @property
    def group(self) -> str:
        """The dotted path of the table the setting is in; "" for the top."""
        return self.path.rpartition(".")[0]


def all_fields() -> tuple[Field, ...]:
    """Return every setting that has a form field, in the order of declaration."""
    return tuple(_fields(RunConfig(), ""))


def visible_fields() -> tuple[Field, ...]:
    """Return those that the Train step shows unfolded."""
    shown_first = [field for path in VISIBLE[:1] for field in all_fields() if field.path == path]
    essential = [f for f in all_fields() if f.about.essential and f.path not in (*IN_DATASET, *VISIBLE)]
    return (*shown_first, *essential, *(f for f in all_fields() if f.path in VISIBLE[1:]))


def folded_fields() -> tuple[Field, ...]:
    """Return those behind "More settings"."""
    visible = {field.path for field in visible_fields()}
    return tuple(field for field in all_fields() if field.path not in visible and field.path not in IN_DATASET)


def label_of(path: str) -> str:
    """Return the label of a setting by its path, with its group where the label alone says too little."""
    for field in all_fields():
        if field.path == path.partition("[")[0]:
            known = [other.path for other in all_fields() if other.label == field.label]
            return field.label if len(known) == 1 else f"{GROUPS[field.group]}: {field.label}"
    return {"data.sources": "Folders"}.get(path.partition("[")[0], path)


def shown(value: object) -> str:
    """Return a setting's value as text for people."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return ", ".join(str(getattr(item, "path", item)) for item in value) or "none"
    return str(value) if value != "" else "empty"


def element(path: str) -> str:
    """Return the id of a setting's form field in the page: `lora_trainer_set_training_clip-skip`.

    Hyphens, because the WebUI presses what is called …_skip, …_interrupt or …_generate for its hot keys.
    """
    return "lora_trainer_set_" + path.replace("_", "-").replace(".", "_")


def component(field: Field, samplers: Sequence[str]) -> Any:
    """Return the gradio component of a field."""
    common = {
        "label": field.label,
        "info": _info(field),
        "elem_id": element(field.path),
        "elem_classes": ["lora-trainer-setting"],
    }
    choices = tuple(samplers) if field.path == "samples.sampler" else field.about.choices
    value = to_form(field, field.default)
    made: Any
    if field.kind == "switch":
        made = gr.Checkbox(value=value, **common)
    elif choices:
        made = gr.Dropdown(choices=list(choices), value=value, **common)
    elif field.kind in ("whole", "number"):
        made = gr.Number(value=value, **common)
    else:
        made = gr.Textbox(value=value, lines=3 if field.kind == "lines" else 1, max_lines=8, **common)
    return plain(made)


def plain(made: Any) -> Any:
    """Return a component that the WebUI keeps out of ui-config.json, where an old default would outlive ours."""
    made.do_not_save_to_config = True
    return made


def to_form(field: Field, value: Any) -> Any:
    """Return a setting's value as its component holds it."""
    if field.kind == "words":
        return ", ".join(value)
    if field.kind == "lines":
        return "\n".join(value)
    return value


def _fields(owner: Any, prefix: str) -> list[Field]:
    found: list[Field] = []
    for each in dataclasses.fields(owner):
        path, value = f"{prefix}{each.name}", getattr(owner, each.name)
        if path in ELSEWHERE:
            continue
        if dataclasses.is_dataclass(value):
            found += _fields(value, f"{path}.")
        else:
            found.append(Field(path, each.metadata["setting"], _kind(path, value, each.metadata["setting"]), value))
    return found


def _kind(path: str, value: Any, about: Setting) -> Kind:
    if isinstance(value, bool):
        return "switch"
    if about.choices:
        return "choice"
    if isinstance(value, tuple):
        return "lines" if path == "samples.prompts" else "words"
    if isinstance(value, int):
        return "whole"
    return "number" if isinstance(value, float) else "text"


def _info(field: Field) -> str:
    about, unit = field.about, f" {field.about.unit}" if field.about.unit else ""
    if about.minimum is None or about.maximum is None:
        return about.help
    if about.maximum > _UNREACHED:
        return about.help
    return f"{about.help} {about.minimum:g}–{about.maximum:g}{unit}."
