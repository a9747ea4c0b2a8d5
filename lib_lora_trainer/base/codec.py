"""Frozen dataclasses to TOML and back: unknown keys are errors with a suggestion, old versions are migrated."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lib_lora_trainer.base.errors import ConfigError, Problem, ProblemsFound
from lib_lora_trainer.base.setting import range_problems

Value = TypeVar("Value")
Migration = Callable[[dict[str, Any]], dict[str, Any]]


def to_mapping(value: Any) -> dict[str, Any]:
    """Return a dataclass as plain dictionaries and lists; fields that are None are left out (TOML has no null)."""
    result: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        content = getattr(value, field.name)
        if content is not None:
            result[field.name] = _plain(content)
    return result


def _plain(content: Any) -> Any:
    if dataclasses.is_dataclass(content):
        return to_mapping(content)
    if isinstance(content, tuple):
        return [_plain(item) for item in content]
    return content


def to_toml(value: Any) -> str:
    """Return a dataclass as TOML text; fields in the order of their declaration."""
    import tomlkit

    return tomlkit.dumps(to_mapping(value))


def from_toml(kind: type[Value], text: str, source: str, migrations: Sequence[Migration] = ()) -> Value:
    """Return the dataclass that TOML text describes.

    migrations: migrations[i] turns a mapping of version i + 1 into version i + 2; the current version is
    len(migrations) + 1, read from the top-level key `version` (absent = current).
    source: the file's name, for messages.
    Raises ProblemsFound with every unknown key, wrong type and value out of range, or ConfigError for broken TOML.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(text).unwrap()
    except TOMLKitError as error:
        raise ConfigError(f"{source}: this is not valid TOML: {error}. Correct the line it names.") from error
    return from_mapping(kind, _migrated(document, source, migrations), source)


def _migrated(document: dict[str, Any], source: str, migrations: Sequence[Migration]) -> dict[str, Any]:
    newest = len(migrations) + 1
    version = document.get("version", newest)
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= newest:
        raise ConfigError(f"{source}: version = {version!r} is unknown; this program reads 1 to {newest}. Update it.")
    for migration in migrations[version - 1 :]:
        document = migration(document)
    return {**document, "version": newest} if "version" in document else document


def from_mapping(kind: type[Value], mapping: Mapping[str, Any], source: str) -> Value:
    """Return the dataclass that plain dictionaries and lists describe. Raises ProblemsFound as `from_toml` does."""
    problems: list[Problem] = []
    value = _build(kind, mapping, "", problems)
    if not problems:
        problems = range_problems(value)
    if problems:
        raise ProblemsFound(tuple(dataclasses.replace(p, where=f"{source}: {p.where}") for p in problems))
    built: Value = value
    return built


def read_toml(kind: type[Value], path: Path, migrations: Sequence[Migration] = ()) -> Value:
    """Return the dataclass in a TOML file. Raises ConfigError when it cannot be read, else as `from_toml`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}. Check the path and the encoding.") from error
    return from_toml(kind, text, str(path), migrations)


def _build(kind: Any, mapping: Mapping[str, Any], prefix: str, problems: list[Problem]) -> Any:
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    values: dict[str, Any] = {}
    for key, raw in mapping.items():
        where = f"{prefix}{key}"
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"Did you mean {prefix}{near[0]}?" if near else f"Known here: {', '.join(fields)}."
            problems.append(Problem("error", where, "is not a setting.", hint))
            continue
        values[key] = _convert(hints[key], raw, where, problems)
    missing = [
        name
        for name, field in fields.items()
        if name not in values and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    problems += [Problem("error", f"{prefix}{name}", "is missing.", "Add it.") for name in missing]
    return None if missing else kind(**values)


def _convert(hint: Any, raw: Any, where: str, problems: list[Problem]) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [choice for choice in typing.get_args(hint) if choice is not type(None)]
        return _convert(inner[0], raw, where, problems)
    if dataclasses.is_dataclass(hint):
        if isinstance(raw, Mapping):
            return _build(hint, raw, f"{where}.", problems)
        return _refuse("a table", raw, where, problems)
    if origin is tuple:
        if not isinstance(raw, list):
            return _refuse("a list", raw, where, problems)
        item_hint = typing.get_args(hint)[0]
        return tuple(_convert(item_hint, item, f"{where}[{index}]", problems) for index, item in enumerate(raw))
    if origin is typing.Literal:
        choices = typing.get_args(hint)
        return raw if raw in choices else _refuse(f"one of {', '.join(map(repr, choices))}", raw, where, problems)
    return _convert_scalar(hint, raw, where, problems)


def _convert_scalar(hint: Any, raw: Any, where: str, problems: list[Problem]) -> Any:
    if hint is float and isinstance(raw, int) and not isinstance(raw, bool):
        return float(raw)
    if isinstance(raw, hint) and not (hint is int and isinstance(raw, bool)):
        return raw
    names = {str: "text in quotes", int: "a whole number", float: "a number", bool: "true or false"}
    return _refuse(names[hint], raw, where, problems)


def _refuse(wanted: str, raw: Any, where: str, problems: list[Problem]) -> None:
    problems.append(Problem("error", where, f"{raw!r} is not {wanted}.", f"Give {wanted}."))
