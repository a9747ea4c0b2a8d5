"""Values between settings and form fields: what a field shows, and what was entered into it."""

from __future__ import annotations

import math
from typing import Any

from lib_lora_trainer.ui.fields import Field

NOTHING_AT_ALL = '""'
"""Entered where an empty field means "as usual": really no text."""

USUAL = "usual"
"""A switch that is left open."""


def to_form(field: Field, value: Any) -> Any:
    """Return a setting's value as its component holds it."""
    if field.kind in ("words", "wholes"):
        return ", ".join(str(item) for item in value)
    if field.kind == "lines":
        return "\n".join(value)
    if not field.optional:
        return value
    if field.kind == "switch":
        return {None: USUAL, True: "on", False: "off"}[value]
    if value is None:
        return ""
    if field.kind == "text":
        return value or NOTHING_AT_ALL
    return repr(float(value)) if field.kind == "number" else str(value)


def from_form(field: Field, raw: Any) -> Any:
    """Return what was entered as the setting's value. Raises ValueError with the reason, without a full stop."""
    text = str(raw if raw is not None else "")
    if field.kind == "switch":
        return {"on": True, "off": False}.get(text) if field.optional else bool(raw)
    if field.optional and not text.strip():
        return None
    if field.kind in ("whole", "number"):
        return _number(raw, whole=field.kind == "whole")
    if field.kind == "words":
        return tuple(word.strip() for word in text.split(",") if word.strip())
    if field.kind == "wholes":
        return tuple(int(_number(word, whole=True)) for word in text.replace("\n", ",").split(",") if word.strip())
    if field.kind == "lines":
        return tuple(line.strip() for line in text.splitlines() if line.strip())
    if field.optional and text.strip() == NOTHING_AT_ALL:
        return ""
    return text.strip() if field.path == "name" else text


def _number(raw: Any, *, whole: bool) -> int | float:
    if raw is None or str(raw).strip() == "":
        raise ValueError("No number is entered")
    try:
        number = float(raw)
    except ValueError as error:
        raise ValueError(f"{str(raw).strip()!r} is not a number") from error
    if not whole:
        return number
    if not math.isfinite(number) or not number.is_integer():
        raise ValueError(f"{number:g} is not a whole number")
    return int(number)
