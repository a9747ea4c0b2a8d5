"""A caption as a list of tags, and back."""

from __future__ import annotations

from collections.abc import Iterable


def split(caption: str) -> tuple[str, ...]:
    """Return the comma-separated tags of a caption, stripped, empty ones dropped; repeated ones stay."""
    return tuple(tag for part in caption.split(",") if (tag := part.strip()))


def join(tags: Iterable[str]) -> str:
    """Return tags as one caption, separated by a comma and a space."""
    return ", ".join(tags)
