"""The folders: a list to choose from, and one form with the chosen folder's settings."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import fields as members
from pathlib import PurePath
from typing import Any

import gradio as gr

from lib_lora_trainer.config.data import SourceConfig
from lib_lora_trainer.config.paths import put
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.ui import bind, components, fields
from lib_lora_trainer.ui.components import button, fold, plain
from lib_lora_trainer.ui.fields import SOURCE, SOURCE_FIRST

NEW = "New folder"

_EXAMPLES = {"path": "/pictures/my-character", "masks": "/pictures/my-character-masks"}


@dataclass(frozen=True)
class SourceForm:
    """The components. cells: of the folder's settings by name, in the order of `fields.source_fields`.

    key: which folder the cells show (`bind.source_values`).
    """

    chosen: Any
    add: Any
    title: Any
    key: Any
    cells: dict[str, Any]
    remove: Any

    @property
    def entered(self) -> list[Any]:
        """What is sent with the form, in the order of `bind.source_values`."""
        return [self.key, *self.cells.values()]

    @property
    def listed(self) -> set[Any]:
        """What shows which folders there are."""
        return {self.chosen, self.add, self.remove}

    @property
    def all(self) -> set[Any]:
        """Everything that choosing a folder updates."""
        return {*self.listed, self.title, *self.entered}


def layout() -> SourceForm:
    """Make the components."""
    by_name = {field.path.removeprefix(SOURCE): field for field in fields.source_fields()}
    cells = {}
    chosen = plain(gr.Radio(label="Folders", choices=[], visible=False, elem_id="lora_trainer_source_chosen"))
    add = button("Add folder", "add_folder", size="sm", visible=False)
    with gr.Column(elem_id="lora_trainer_folder"):
        title = gr.HTML(value=title_html(RunConfig(), 0), elem_id="lora_trainer_folder_title")
        with gr.Group(elem_classes="lora-trainer-form"):
            for name in SOURCE_FIRST:
                cells[name] = components.component(by_name[name])
        with fold("Options of this folder", "source"), gr.Group(elem_classes="lora-trainer-form"):
            for name, field in by_name.items():
                if name not in SOURCE_FIRST:
                    cells[name] = components.component(field)
        remove = button("Remove folder", "remove_folder", size="sm", visible=False)
        with gr.Row(elem_classes="lora-trainer-hidden"):
            key = plain(gr.Textbox(show_label=False, elem_id="lora_trainer_source_key"))
    for name, example in _EXAMPLES.items():
        cells[name].placeholder = example
    return SourceForm(chosen, add, title, key, {name: cells[name] for name in by_name}, remove)


def listed(form: SourceForm, config: RunConfig, folder: int | None = None) -> dict[Any, Any]:
    """Return the list of folders. folder: the chosen one, past the end a new one; None leaves the choice as it is."""
    choices = [(_entry(source, number), str(number)) for number, source in enumerate(config.data.sources)]
    new = folder is not None and folder >= len(choices)
    if new and choices:
        choices.append((NEW, str(len(choices))))
    update: dict[str, Any] = {"choices": choices, "visible": len(choices) > 1}
    if folder is not None:
        update["value"] = str(min(folder, len(config.data.sources))) if choices else None
    elif len(choices) == 1:
        update["value"] = "0"  # before, the list was hidden and without a choice
    return {
        form.chosen: gr.update(**update),
        form.add: gr.update(visible=not new),
        form.remove: gr.update(visible=not new),
    }


def shown(form: SourceForm, config: RunConfig, folder: int) -> dict[Any, Any]:
    """Return the updates that show a folder: the list, its settings, and what its empty fields stand for."""
    folder = min(folder, len(config.data.sources))
    key, *content = bind.source_values(config, folder)
    updates = {**listed(form, config, folder), form.title: title_html(config, folder), form.key: key}
    updates.update(dict(zip(form.cells.values(), content, strict=True)))
    for cell, update in standing_for(form, config).items():
        updates[cell] = gr.update(value=updates[cell], **update)
    return updates


def standing_for(form: SourceForm, config: RunConfig) -> dict[Any, dict[str, Any]]:
    """Return the properties of the folder's fields that say what an empty one stands for in these settings."""
    found = {}
    for field in fields.source_fields():
        text = fields.dataset_value(config, field)
        if text:
            kind = {"choices": components.three_ways(text)} if field.kind == "switch" else {"placeholder": text}
            found[form.cells[field.path.removeprefix(SOURCE)]] = kind
    return found


def without(config: RunConfig, folder: int) -> RunConfig:
    """Return the settings without that folder."""
    kept = tuple(source for index, source in enumerate(config.data.sources) if index != folder)
    return put(config, "data.sources", kept)


def title_html(config: RunConfig, folder: int) -> str:
    """Return the form's heading; its id tells the style sheet of problems which folder is in sight."""
    text = f"Folder {folder + 1}" if folder or len(config.data.sources) > 1 else ""
    return f'<h4 id="lora_trainer_folder_{folder}">{text}</h4>'


def options_of(source: SourceConfig) -> tuple[str, ...]:
    """Return what is set for a folder beside its path, in a few words each: `× 3`, `regularization`, `resolution 768`."""
    words = [f"× {source.repeats}"] if source.repeats else []
    plain_source = SourceConfig()
    for member in members(SourceConfig):
        value = getattr(source, member.name)
        if member.name in SOURCE_FIRST or value == getattr(plain_source, member.name):
            continue
        field = fields.field_of(SOURCE + member.name)
        label = field.label.lower() if field else member.name
        words.append(label if value is True else f"{label} {fields.shown(value)}")
    return tuple(words)


def _entry(source: SourceConfig, number: int) -> str:
    path = PurePath(source.path)
    name = path.name if len(source.path) > 44 else source.path
    return " · ".join((f"{number + 1}. {name}", *options_of(source)))
