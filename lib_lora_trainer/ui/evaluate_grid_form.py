"""The grid's form: ready-made grids, axes, and what every image has in common, made from the one definition of a grid."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from lib_lora_trainer.base.errors import ConfigError, Problem
from lib_lora_trainer.evaluate.grid import KINDS, LOADED, Axis, GridConfig
from lib_lora_trainer.ui import components, entry
from lib_lora_trainer.ui.components import button, fold, plain
from lib_lora_trainer.ui.fields import Field, Kind, element

READY = {
    "last-epochs": "Last epochs × weights",
    "presets": "Block weight presets",
    "with-and-without": "With and without",
    "transfer": "Transfer across checkpoints",
    "progress": "Step progress of two runs",
    "combination": "With another adapter",
}
"""The ready-made grids, by the names that the command line has for them, with their buttons."""
SIDES = ("columns", "rows", "pages")
NEWEST = "The newest"
"""Chosen in the list of a run's files, whose other entries are their names without the ending."""
NOTHING = "nothing"
"""Chosen for a side that is not used."""

_FIRST = ("prompt", "negative", "weight", "seeds")
_ELSEWHERE = ("adapter", "axes")
_BY_LABEL = {text: kind for kind, text in KINDS.items()}
_KINDS: dict[str, Kind] = {"int": "whole", "float": "number", "float | None": "number", "tuple[int, ...]": "wholes"}


def _field(each: dataclasses.Field[Any]) -> Field:
    about, kind = each.metadata["setting"], str(each.type)
    named = Field(f"grid.{each.name}", about, "choice" if about.choices else _KINDS.get(kind, "text"), each.default)
    return dataclasses.replace(named, optional=True, none_means="as the UNet's") if kind.endswith("None") else named


_ALL = {each.name: _field(each) for each in dataclasses.fields(GridConfig) if each.name not in _ELSEWHERE}
FIRST = tuple(_ALL[name] for name in _FIRST)
MORE = tuple(field for name, field in _ALL.items() if name not in _FIRST)
FIELDS = (*FIRST, *MORE)
"""What every image has in common, in the order of the components."""


def _beside(name: str, kind: Kind) -> Field:
    return Field(f"grid.{name}", dataclasses.fields(Axis)[1].metadata["setting"], kind, "")


PLACES = (*FIELDS, _beside("adapter", "choice"), *(_beside(side, "lines") for side in SIDES))
"""Every component beside which a mistake can be shown."""


@dataclass(frozen=True)
class GridForm:
    """The components. ready: the buttons by READY; checkpoints, second_run, other: what three of them need.

    kinds, values: of the columns, rows and pages.
    """

    ready: Mapping[str, Any]
    checkpoints: Any
    second_run: Any
    other: Any
    adapter: Any
    options: list[Any]
    kinds: list[Any]
    values: list[Any]
    name: Any

    @property
    def entered(self) -> list[Any]:
        """What a grid is made from, in the order that `Entered.of` reads."""
        return [self.name, self.adapter, *self.options, *self.kinds, *self.values]

    @property
    def filled(self) -> set[Any]:
        """What a ready-made grid, or one that is taken over, fills in."""
        return {*self.entered}


@dataclass(frozen=True)
class Entered:
    """What was entered. adapter: a file's name without the ending, "" for the newest of the run; kinds: of axes."""

    name: str
    adapter: str
    options: tuple[Any, ...]
    kinds: tuple[str, ...]
    values: tuple[str, ...]

    @classmethod
    def of(cls, raw: Sequence[Any]) -> Entered:
        """Return it from the components' values."""
        name, adapter, *rest = raw
        options, axes = rest[: len(FIELDS)], [text or "" for text in rest[len(FIELDS) :]]
        kinds, values = [_BY_LABEL.get(text, "") for text in axes[: len(SIDES)]], axes[len(SIDES) :]
        file = "" if adapter == NEWEST else adapter or ""
        return cls((name or "").strip(), file, tuple(options), tuple(kinds), tuple(values))

    def config(self) -> GridConfig:
        """Return the settings but for the adapter. Raises ConfigError naming the field."""
        found = {}
        for field, raw in zip(FIELDS, self.options, strict=True):
            try:
                found[field.path.rpartition(".")[2]] = entry.from_form(field, raw)
            except ValueError as error:
                raise ConfigError(f"{field.label}: {error}.") from error
        axes = tuple(Axis(kind, read(kind, text)) for kind, text in zip(self.kinds, self.values, strict=True) if kind)
        return GridConfig(axes=axes, **found)

    def placed(self, problem: Problem) -> Problem:
        """Return a problem of an axis as one of the side at which it was entered."""
        for number, side in enumerate(side for side, kind in zip(SIDES, self.kinds, strict=True) if kind):
            begin = f"axes[{number}].values"
            if problem.where.startswith(begin):
                line = problem.where.removeprefix(begin).strip("[]")
                return dataclasses.replace(problem, where=f"{side}[{int(line) + 1}]" if line else side)
        return dataclasses.replace(problem, where="columns") if problem.where == "axes" else problem


def read(kind: str, text: str) -> tuple[str, ...]:
    """Return an axis's values from one a line; an empty line is a value of an axis of prompts only: no words."""
    lines = text.split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return tuple(line.strip() for line in lines if line.strip() or kind == "prompt")


def written(axis: Axis) -> str:
    """Return an axis's values as `read` reads them."""
    return "\n".join(value or ("" if axis.kind == "prompt" else LOADED) for value in axis.values)


def prepared(form: GridForm, config: GridConfig, name: str) -> dict[Any, Any]:
    """Return the updates that make the form show a ready-made grid; what it does not decide stays as entered."""
    axes = [*config.axes, *[None] * len(SIDES)][: len(SIDES)]
    updates: dict[Any, Any] = {form.name: name, form.options[FIELDS.index(_ALL["second"])]: config.second}
    for axis, kind, values in zip(axes, form.kinds, form.values, strict=True):
        updates |= {kind: KINDS[axis.kind] if axis else NOTHING, values: written(axis) if axis else ""}
    return updates


def filled(form: GridForm, config: GridConfig, name: str) -> dict[Any, Any]:
    """Return the updates that make the form show all settings of a grid."""
    updates = {**prepared(form, config, name), form.adapter: Path(config.adapter).stem}
    for field, component in zip(FIELDS, form.options, strict=True):
        updates[component] = entry.to_form(field, getattr(config, field.path.rpartition(".")[2]))
    return updates


def layout(samplers: tuple[str, ...]) -> GridForm:
    """Make the components. samplers: what the host calls them."""
    ready, checkpoints, second_run, other = _ready()
    with gr.Group(elem_classes="lora-trainer-form"):
        words = [_option(field, samplers) for field in FIRST[:2]]
        adapter = gr.Dropdown(
            label="Adapter", choices=[NEWEST], value=NEWEST, elem_id=element("grid.adapter"),
            elem_classes=["lora-trainer-setting"], info="A file of the run.",
        )  # fmt: skip
        first = [*words, *(_option(field, samplers) for field in FIRST[2:])]
    with fold("Axes", "grid_axes"):
        gr.HTML(
            "<p>What differs along each side. A button above fills this in; or choose up to three yourself.</p>"
            f"<p><small>{escape(dataclasses.fields(Axis)[1].metadata['setting'].help)}</small></p>"
        )
        with gr.Row(elem_classes="lora-trainer-axes"):
            sides = [_side(side) for side in SIDES]
    with fold("More image settings", "grid_more"), gr.Group(elem_classes="lora-trainer-form"):
        more = [_option(field, samplers) for field in MORE]
    name = gr.Textbox(
        label="Name of the grid", max_lines=1, placeholder="own", elem_id="lora_trainer_grid_name",
        info="A folder of this name in the run's own. Images that are in it already are kept, not made again.",
    )  # fmt: skip
    kinds, values = [kind for kind, _ in sides], [text for _, text in sides]
    return GridForm(ready, checkpoints, second_run, other, plain(adapter), [*first, *more], kinds, values, plain(name))


def _ready() -> tuple[dict[str, Any], Any, Any, Any]:
    made: dict[str, Any] = {}

    def ready(kind: str) -> None:
        made[kind] = button(READY[kind], f"grid_{kind}")

    with gr.Row(elem_classes="lora-trainer-actions", elem_id="lora_trainer_grid_ready"):
        for kind in ("last-epochs", "presets", "with-and-without"):
            ready(kind)
    with fold("Compare with something else", "grid_others"), gr.Row(elem_id="lora_trainer_grid_others"):
        with gr.Column(min_width=220):
            checkpoints = gr.Textbox(
                label="Other checkpoints", lines=2, max_lines=6, placeholder="one a line",
                elem_id="lora_trainer_grid_checkpoints", info="Their names in the WebUI's list, or their files.",
            )  # fmt: skip
            ready("transfer")
        with gr.Column(min_width=220):
            second_run = gr.Dropdown(
                label="Second run", choices=[], value=None, elem_id="lora_trainer_grid_second-run",
                info="Compared where both have saved.",
            )  # fmt: skip
            ready("progress")
        with gr.Column(min_width=220):
            other = gr.Dropdown(
                label="Other adapter", choices=[], value=None, allow_custom_value=True,
                elem_id="lora_trainer_grid_other", info="A file, such as an object's for a character.",
            )  # fmt: skip
            ready("combination")
    return made, plain(checkpoints), plain(second_run), plain(other)


def _option(field: Field, samplers: tuple[str, ...]) -> Any:
    name = field.path.rpartition(".")[2]
    if name == "sampler":
        value = field.default if field.default in samplers or not samplers else samplers[0]
        made: Any = gr.Dropdown(
            label=field.label, info=field.help, choices=list(samplers or (value,)), value=value,
            elem_id=element(field.path), elem_classes=["lora-trainer-setting"],
        )  # fmt: skip
        return plain(made)
    if name in ("prompt", "negative"):
        made = gr.Textbox(
            label=field.label, info=field.help, value=field.default, lines=1, max_lines=4,
            elem_id=element(field.path), elem_classes=["lora-trainer-setting"],
        )  # fmt: skip
        return plain(made)
    return components.component(field)


def _side(side: str) -> tuple[Any, Any]:
    with gr.Column(min_width=200, elem_id=element(f"grid.{side}")):
        kind = gr.Dropdown(
            label=side.capitalize(), choices=[NOTHING, *KINDS.values()], value=NOTHING,
            elem_id=f"lora_trainer_grid_{side}_kind",
        )  # fmt: skip
        values = gr.Textbox(
            label="Values", lines=4, max_lines=12, placeholder="one a line", elem_id=f"lora_trainer_grid_{side}_values"
        )
    return plain(kind), plain(values)
