"""Settings addressed by their dotted path, such as `adapter.rank`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, TypeVar

Value = TypeVar("Value")


def flat(owner: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted path, value) of every setting in a configuration, in order; a list counts as one value."""
    for field in dataclasses.fields(owner):
        value = getattr(owner, field.name)
        if dataclasses.is_dataclass(value):
            yield from flat(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value


def put(owner: Value, path: str, value: Any) -> Value:
    """Return a configuration with one setting replaced. Raises TypeError or AttributeError for an unknown path."""
    first, _, rest = path.partition(".")
    inner = put(getattr(owner, first), rest, value) if rest else value
    changed: Value = dataclasses.replace(owner, **{first: inner})  # type: ignore[type-var]
    return changed
