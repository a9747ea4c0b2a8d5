"""Tags that are left out or written otherwise: plain names in any spelling, or regular expressions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.tagging.spelling import key

Rule = Callable[[str], tuple[str, ...] | None]
"""Returns what is written for a tag (with spaces, brackets plain), nothing to leave it out, or None if it says nothing
about it."""


def exclusion(text: str) -> Rule:
    """Return the rule that leaves out a tag, or all whose whole name matches /…/. Raises ConfigError."""
    matches = _matching(text)

    def leave_out(tag: str) -> tuple[str, ...] | None:
        return () if matches(tag) else None

    return leave_out


def replacement(text: str) -> Rule:
    r"""Return the rule of OLD=NEW or /…/=NEW. Raises ConfigError.

    NEW: tags separated by commas, none to leave OLD out; after a regular expression with \1 for its groups. The last =
    separates, so that OLD may be a face such as =_=.
    """
    old, equals, new = text.rpartition("=")
    if not equals or not old.strip():
        raise ConfigError(f"{text!r} is no replacement. Write OLD=NEW, or /regular expression/=NEW.")
    matches = _matching(old)

    def write(match: re.Match[str] | None) -> tuple[str, ...]:
        written = match.expand(new) if match else new
        return tuple(tag for part in written.split(",") if (tag := part.strip()))

    if _is_expression(old):
        try:
            re.compile(_inside(old)).sub(new, "")
        except (re.error, IndexError) as error:
            raise ConfigError(f"{new!r} cannot be written for {old.strip()}: {error}. Correct its groups.") from error

    def replace(tag: str) -> tuple[str, ...] | None:
        found = matches(tag)
        if not found:
            return None
        return write(found if isinstance(found, re.Match) else None)

    return replace


def apply(tags: Iterable[str], rules: Iterable[Rule]) -> tuple[str, ...]:
    """Return the tags after the first rule that says something about each, every one once, in the order of the tags."""
    written: dict[str, str] = {}
    chosen = tuple(rules)
    for tag in tags:
        answers = (answer for rule in chosen if (answer := rule(tag)) is not None)
        for new in next(answers, (tag,)):
            written.setdefault(key(new), new)
    return tuple(written.values())


def _matching(text: str) -> Callable[[str], re.Match[str] | bool | None]:
    if not _is_expression(text):
        wanted = key(text)
        if not wanted:
            raise ConfigError(f"{text!r} names no tag. Write a tag, or /regular expression/.")
        return lambda tag: key(tag) == wanted
    try:
        return re.compile(_inside(text), re.IGNORECASE).fullmatch
    except re.error as error:
        raise ConfigError(f"{text.strip()} is no regular expression: {error}. Correct it.") from error


def _is_expression(text: str) -> bool:
    plain = text.strip()
    return len(plain) > 2 and plain.startswith("/") and plain.endswith("/")


def _inside(text: str) -> str:
    return text.strip()[1:-1]
