"""The dataset tools as the page offers them: their names, what they do, and their options as form fields."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.dataset.tools.options import OPTIONS
from lib_lora_trainer.ui import components, entry
from lib_lora_trainer.ui.components import plain
from lib_lora_trainer.ui.fields import Field, Kind, element


@dataclass(frozen=True)
class Offer:
    """One tool in the list. name: of the tool behind it."""

    name: str
    title: str
    about: str


OFFERS = (
    Offer("duplicates", "Find duplicates", "Finds pictures that are the same: resized, recompressed, cropped a little or "
          "mirrored. The best of each is kept. Variants, such as another expression, are shown and kept."),
    Offer("convert", "Convert to PNG", "Every format becomes PNG, every frame of an animation a picture of its own."),
    Offer("flatten-alpha", "Flatten transparency", "Lays transparent pictures over a colour."),
    Offer("trim", "Trim borders", "Cuts off borders of a single colour."),
    Offer("pad", "Pad to squares", "Adds bars, so that every picture becomes a square."),
    Offer("upscale", "Upscale small pictures", "Enlarges what has too few pixels for training, to the size of its "
          "bucket. Other pictures are left as they are."),
    Offer("crop", "Crop to framings", "Makes full body, cowboy shot, upper body, portrait and close-up of large "
          "pictures of a person, as pictures beside them, with the framing in the caption. The boxes can be dragged."),
    Offer("buckets", "Bucket report", "Shows where training puts every picture, what is cut off, and what must be "
          "upscaled. Changes nothing."),
    Offer("sort", "Sort by bucket", "Moves pictures into folders named after their buckets."),
    Offer("flatten", "Flatten folders", "Brings nested folders to one level of folders named N_words."),
    Offer("mask", "Check masks", "Finds masks that are black, white, of another shape or with holes."),
    Offer("mask-generate", "Generate masks", "Makes masks with a background-removal model (rembg). It is installed only "
          "when you press Install."),
    Offer("mask-import", "Import masks", "Takes over masks that another program made, found by their names."),
)  # fmt: skip
OWN_LANCZOS = "Lanczos"
"""The upscaler that is always there."""

_KINDS: dict[str, Kind] = {"bool": "switch", "int": "whole", "float": "number", "str": "text"}


def titled(title: str) -> str:
    """Return the name of the tool with a title. Raises ConfigError for a title that is none."""
    found = next((each for each in OFFERS if each.title == title), None)
    if found is None:
        raise ConfigError(f"tool: {title!r} is none. Choose one in the list.")
    return found.name


def offer(name: str) -> Offer:
    """Return the offer of a tool. Raises ConfigError for a name that is none."""
    found = next((each for each in OFFERS if each.name == name), None)
    if found is None:
        raise ConfigError(f"tool: {name!r} is none. Choose one in the list.")
    return found


@functools.cache
def option_fields(name: str) -> tuple[Field, ...]:
    """Return the form fields of a tool's options, made from the one definition that the command line reads too."""
    kind = OPTIONS.get(name)
    if kind is None:
        return ()
    return tuple(
        Field(
            f"tools.{name}.{each.name}", each.metadata["setting"], _KINDS.get(str(each.type), "words"), _default(each)
        )
        for each in dataclasses.fields(kind)
        if "setting" in each.metadata
    )


def _default(each: dataclasses.Field[Any]) -> Any:
    return each.default_factory() if callable(each.default_factory) else each.default


def option(field: Field) -> Any:
    """Return the component of an option."""
    if field.kind == "words" and field.about.choices:
        made = gr.CheckboxGroup(
            choices=list(field.about.choices),
            value=list(field.default),
            label=field.label,
            info=field.help,
            elem_id=element(field.path),
            elem_classes=["lora-trainer-setting"],
        )
        return plain(made)
    return components.component(field)


def chosen(name: str, entered: Sequence[Any], more: Mapping[str, Any] | None = None) -> Any:
    """Return a tool's options as they were entered, in the order of its fields. Raises ConfigError naming the field.

    more: options that are no settings, by their names.
    """
    values = {}
    for field, raw in zip(option_fields(name), entered, strict=True):
        try:
            values[field.path.rpartition(".")[2]] = _value(field, raw)
        except ValueError as error:
            raise ConfigError(f"{field.label}: {error}.") from error
    return OPTIONS[name](**values, **(more or {})) if name in OPTIONS else None


def _value(field: Field, raw: Any) -> Any:
    if field.kind == "words" and field.about.choices:
        return tuple(raw or ())
    return entry.from_form(field, raw)
