"""Settings as form fields: what each is called, what kind of value it takes, and where it is shown."""

from __future__ import annotations

import dataclasses
import functools
import re
import types
import typing
from dataclasses import dataclass
from typing import Any, Literal

from lib_lora_trainer.base.setting import Setting
from lib_lora_trainer.config.data import SourceConfig
from lib_lora_trainer.config.paths import flat
from lib_lora_trainer.config.run import RunConfig

Kind = Literal["switch", "choice", "whole", "number", "text", "words", "lines", "wholes"]

ELSEWHERE = ("version", "base_model", "data.sources")
"""Settings without a field of their own: filled in by the program, or by the form of the folders."""

IN_DATASET = ("triggers",)
VISIBLE = ("name", "samples.prompts")
"""Shown with the essential ones: without a name nothing is written, without prompts nothing is seen."""

GROUPS = {
    "": "General",
    "data": "Pictures",
    "data.caption": "Captions",
    "adapter": "Adapter",
    "optimizer": "Optimizer",
    "loss": "Loss",
    "noise": "Noise",
    "training": "Training",
    "save": "Files",
    "samples": "Sample images",
}

SOURCE = "data.sources[]."
"""Begins the path of a folder's setting where no particular folder is meant."""

SOURCE_FIRST = ("path", "repeats")
"""Settings of a folder that are always in sight; the others are its options."""

DATASET_VALUE = {
    "resolution": "data.resolution",
    "flip": "data.flip",
    "shuffle": "data.caption.shuffle",
    "keep_tokens": "data.caption.keep_tokens",
    "prefix": "data.caption.prefix",
    "suffix": "data.caption.suffix",
    "caption_dropout": "data.caption.dropout",
    "tag_dropout": "data.caption.tag_dropout",
}
"""A folder's optional setting → the dataset's, whose value it takes when it has none."""

COMMA_SEPARATED = ("triggers", "data.caption.extensions")
"""Lists of words entered in one line; other lists of texts have one item a line, so that an item may have commas."""

_UNREACHED = 99_999  # a bound above this tells nobody anything
_SOURCE_PATH = re.compile(r"data\.sources\[(\d*)\]\.(\w+)")


@dataclass(frozen=True)
class Field:
    """A setting with a form field.

    path: dotted. default: of a new configuration. optional: the value may be None; none_means: what that stands for.
    """

    path: str
    about: Setting
    kind: Kind
    default: Any
    optional: bool = False
    none_means: str = ""

    @property
    def label(self) -> str:
        """The field's name as people read it."""
        return self.about.label or self.path.rpartition(".")[2].replace("_", " ").capitalize()

    @property
    def group(self) -> str:
        """The dotted path of the table the setting is in; "" for the top."""
        return self.path.rpartition(".")[0]

    @property
    def help(self) -> str:
        """What the setting does, what an empty field means, its range and unit."""
        about, unit = self.about, f" {self.about.unit}" if self.about.unit else ""
        parts = [about.help, f"Empty: {self.none_means}." if self.optional and self.kind != "switch" else ""]
        if about.minimum is not None and about.maximum is not None and about.maximum <= _UNREACHED:
            between = " to " if about.minimum < 0 else "–"
            parts.append(f"{about.minimum:g}{between}{about.maximum:g}{unit}.")
        return " ".join(part for part in parts if part)


@functools.cache
def all_fields() -> tuple[Field, ...]:
    """Return every setting that has a form field in the Train step or is shared by all folders, as declared."""
    return tuple(_fields(RunConfig, RunConfig(), ""))


@functools.cache
def source_fields() -> tuple[Field, ...]:
    """Return every setting of a folder; their paths begin with SOURCE."""
    return tuple(_fields(SourceConfig, SourceConfig(), SOURCE))


def visible_fields() -> tuple[Field, ...]:
    """Return those that the Train step shows unfolded."""
    shown_first = [field for path in VISIBLE[:1] for field in all_fields() if field.path == path]
    essential = [f for f in all_fields() if f.about.essential and f.path not in (*IN_DATASET, *VISIBLE)]
    return (*shown_first, *essential, *(f for f in all_fields() if f.path in VISIBLE[1:]))


def folded_fields() -> tuple[Field, ...]:
    """Return those behind "More settings"."""
    visible = {field.path for field in visible_fields()}
    return tuple(field for field in all_fields() if field.path not in visible and field.path not in IN_DATASET)


def field_of(path: str) -> Field | None:
    """Return the field of a setting by its path, which may name one item of a list or one folder's setting."""
    source = _SOURCE_PATH.match(path)
    if source:
        return next((field for field in source_fields() if field.path == SOURCE + source[2]), None)
    return next((field for field in all_fields() if field.path == path.partition("[")[0]), None)


def folder_of(path: str) -> int | None:
    """Return the number, from 0, of the folder whose setting a path names; None for any other path."""
    source = re.match(r"data\.sources\[(\d+)\]", path)
    return int(source[1]) if source else None


def label_of(path: str) -> str:
    """Return the label of a setting by its path, with its group or folder where the label alone says too little."""
    folder, field = folder_of(path), field_of(path)
    if folder is not None:
        return f"Folder {folder + 1}: {field.label}" if field else f"Folder {folder + 1}"
    if field is None:
        return {"data.sources": "Folders", "base_model": "Planned on"}.get(path.partition("[")[0], path)
    alike = [other for other in all_fields() if other.label == field.label]
    return field.label if len(alike) == 1 else f"{GROUPS[field.group]}: {field.label}"


def shown(value: object) -> str:
    """Return a setting's value as text for people."""
    if value is None:
        return "automatic"
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
    if path.startswith(SOURCE):
        return "lora_trainer_source_" + path.removeprefix(SOURCE).replace("_", "-")
    return "lora_trainer_set_" + path.replace("_", "-").replace(".", "_")


def _fields(kind: type, owner: Any, prefix: str) -> list[Field]:
    found: list[Field] = []
    hints = typing.get_type_hints(kind)
    for each in dataclasses.fields(owner):
        path, value = f"{prefix}{each.name}", getattr(owner, each.name)
        if path in ELSEWHERE:
            continue
        if dataclasses.is_dataclass(value):
            found += _fields(type(value), value, f"{path}.")
            continue
        about: Setting = each.metadata["setting"]
        hint, optional = _bare(hints[each.name])
        found.append(Field(path, about, _kind(path, hint, about), value, optional, _none_means(path, optional)))
    return found


def _bare(hint: Any) -> tuple[Any, bool]:
    """Return a type without None, and whether it had that."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        inner = [choice for choice in typing.get_args(hint) if choice is not type(None)]
        return inner[0], True
    return hint, False


def _kind(path: str, hint: Any, about: Setting) -> Kind:
    if typing.get_origin(hint) is tuple:
        if typing.get_args(hint)[0] is int:
            return "wholes"
        return "words" if path in COMMA_SEPARATED else "lines"
    if about.choices:
        return "choice"
    plain: dict[Any, Kind] = {bool: "switch", int: "whole", float: "number", str: "text"}
    return plain[hint]


def _none_means(path: str, optional: bool) -> str:
    if not optional:
        return ""
    if path.startswith(SOURCE):
        return "as the dataset"
    return "what suits the optimizer" if path.startswith("optimizer.") else "automatic"


def dataset_value(config: RunConfig, field: Field) -> str:
    """Return what a folder's empty field stands for now: `as the dataset: 512`."""
    path = DATASET_VALUE.get(field.path.removeprefix(SOURCE))
    return f"as the dataset: {shown(dict(flat(config))[path])}" if path else ""
