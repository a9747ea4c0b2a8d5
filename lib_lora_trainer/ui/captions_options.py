"""Options of what is done to captions, as form fields made from the one definition that the command line reads too."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import gradio as gr

from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.ui import components, entry
from lib_lora_trainer.ui.components import plain
from lib_lora_trainer.ui.fields import Field, Kind, element

_KINDS: dict[str, Kind] = {"bool": "switch", "int": "whole", "float": "number", "str": "text"}


@functools.cache
def fields_of(name: str, kind: type, without: tuple[str, ...] = ()) -> tuple[Field, ...]:
    """Return the form fields of an options dataclass. name: unique in the page; without: options that have no field."""
    return tuple(
        Field(f"captions.{name}.{each.name}", each.metadata["setting"], _kind(each), _default(each))
        for each in dataclasses.fields(kind)
        if "setting" in each.metadata and each.name not in without
    )


def _kind(each: dataclasses.Field[Any]) -> Kind:
    about = each.metadata["setting"]
    if str(each.type).startswith("tuple"):
        return "words" if about.choices else "lines"
    return "choice" if about.choices else _KINDS.get(str(each.type), "text")


def _default(each: dataclasses.Field[Any]) -> Any:
    return each.default_factory() if callable(each.default_factory) else each.default


def laid_out(fields: Sequence[Field]) -> list[Any]:
    """Make the components of fields, in their order."""
    return [_component(field) for field in fields]


def _component(field: Field) -> Any:
    if field.kind == "words":
        made = gr.CheckboxGroup(
            choices=list(field.about.choices), value=list(field.default), label=field.label, info=field.help,
            elem_id=element(field.path), elem_classes=["lora-trainer-setting"],
        )  # fmt: skip
        return plain(made)
    return components.component(field)


def chosen(fields: Sequence[Field], kind: type, entered: Sequence[Any], **more: Any) -> Any:
    """Return the options as they were entered, in the order of the fields. Raises ConfigError naming the field.

    more: options that have no field, by their names.
    """
    values = {}
    for field, raw in zip(fields, entered, strict=True):
        try:
            taken = tuple(raw or ()) if field.kind == "words" else entry.from_form(field, raw)
        except ValueError as error:
            raise ConfigError(f"{field.label}: {error}.") from error
        values[field.path.rpartition(".")[2]] = taken
    return kind(**values, **more)
