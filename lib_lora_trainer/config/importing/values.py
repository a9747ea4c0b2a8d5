"""Foreign values as ours: numbers written as text, switches, lists in brackets, names of choices.

Every function raises ValueError with a sentence, without its full stop, for what it cannot read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any


def is_empty(value: Any) -> bool:
    """Tell whether a value stands for `not given`: null, an empty text, list or table."""
    return value is None or (isinstance(value, (str, list, tuple, dict)) and len(value) == 0)


def is_off(value: Any) -> bool:
    """Tell whether a value switches its option off: not given, false, 0 or a text that says so."""
    if isinstance(value, str):
        return value.strip().lower() in ("", "0", "0.0", "false", "no", "none")
    return is_empty(value) or value in (False, 0)


def number(value: Any) -> float:
    """Return a finite number; also one written as text."""
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            found = float(value)
        except (ValueError, OverflowError):
            found = math.nan
        if math.isfinite(found):
            return found
    raise ValueError(f"{value!r} is not a number")


def whole(value: Any) -> int:
    """Return a whole number; also one written as text or with a fraction of 0."""
    found = number(value)
    if found != int(found):
        raise ValueError(f"{value!r} is not a whole number")
    return int(found)


def switch(value: Any) -> bool:
    """Return true or false; also written as text or as 1 and 0."""
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False, "none": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, str)) and str(value).strip().lower() in words:
        return words[str(value).strip().lower()]
    raise ValueError(f"{value!r} is neither true nor false")


def text(value: Any) -> str:
    """Return text."""
    if isinstance(value, str):
        return value
    raise ValueError(f"{value!r} is not text")


def numbers(value: Any) -> tuple[float, ...]:
    """Return one or more numbers: a number, a list, or text such as `0.9,0.999` or `(0.9, 0.999)`."""
    if isinstance(value, str):
        value = [part for part in value.strip().strip("()[]").split(",") if part.strip()]
    items = value if isinstance(value, (list, tuple)) else [value]
    if not items:
        raise ValueError("is empty")
    return tuple(number(item) for item in items)


def side(value: Any) -> int:
    """Return the side of the square that has the area of a resolution: `512`, `512,768` or [512, 768]."""
    sides = numbers(value)
    if len(sides) > 2 or min(sides) <= 0:
        raise ValueError(f"{value!r} is not a resolution")
    return round(math.sqrt(sides[0]) * math.sqrt(sides[-1]))


def choice(names: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Return a converter that looks names up, whatever their case."""

    def convert(value: Any) -> Any:
        found = str(value).strip().lower()
        if found not in names:
            raise ValueError(f"{value!r} does not exist here; there is {', '.join(sorted(names))}")
        return names[found]

    return convert
