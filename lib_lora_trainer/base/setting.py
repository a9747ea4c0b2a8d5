"""One definition per setting: its default, range, unit and help text, read by the codec, the tab and the CLI."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from lib_lora_trainer.base.errors import Problem


@dataclass(frozen=True)
class Setting:
    """What a field of a configuration dataclass means to a person.

    minimum, maximum: inclusive bounds of a number, of the length of a list's items not at all.
    choices: allowed values of a string field; unit: shown after the field.
    """

    help: str
    label: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    unit: str = ""
    essential: bool = False


def setting(default: Any, text: str, **details: Any) -> Any:
    """Declare a field of a frozen dataclass with its default and its `Setting`.

    details: the other fields of `Setting`. A mutable or nested default is passed as a zero-argument callable.
    """
    metadata = {"setting": Setting(text, **details)}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def describe(owner: type, name: str) -> Setting:
    """Return the `Setting` of a field. Raises KeyError when the field has none."""
    found: Setting = {field.name: field for field in dataclasses.fields(owner)}[name].metadata["setting"]
    return found


def range_problems(value: Any, prefix: str = "") -> list[Problem]:
    """Return an error for every number or choice in a configuration value, nested ones too, that is out of range."""
    problems: list[Problem] = []
    for field in dataclasses.fields(value):
        where = f"{prefix}{field.name}"
        content = getattr(value, field.name)
        items = content if isinstance(content, tuple) else (content,)
        for index, item in enumerate(items):
            place = f"{where}[{index}]" if isinstance(content, tuple) else where
            if dataclasses.is_dataclass(item):
                problems += range_problems(item, f"{place}.")
            elif "setting" in field.metadata:
                problems += _check(item, field.metadata["setting"], place)
    return problems


def _check(item: Any, about: Setting, where: str) -> list[Problem]:
    if about.choices and item not in about.choices:
        return [Problem("error", where, f"{item!r} is not a choice.", f"Choose one of: {', '.join(about.choices)}.")]
    if isinstance(item, (int, float)) and not isinstance(item, bool):
        if math.isnan(item):
            return [Problem("error", where, "is not a number.", "Enter a number.")]
        if about.minimum is not None and item < about.minimum:
            return [Problem("error", where, f"{item} is too small.", f"Use {about.minimum:g} or more.")]
        if about.maximum is not None and item > about.maximum:
            return [Problem("error", where, f"{item} is too large.", f"Use {about.maximum:g} or less.")]
    return []
