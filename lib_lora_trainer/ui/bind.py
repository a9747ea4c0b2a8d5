"""Form values to a configuration and back; every mistake is named with its field."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lib_lora_trainer.base.errors import Problem, ProblemsFound
from lib_lora_trainer.base.setting import range_problems
from lib_lora_trainer.config.data import SourceConfig
from lib_lora_trainer.config.paths import flat, put
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.ui import entry, fields
from lib_lora_trainer.ui.fields import SOURCE, Field


def values(config: RunConfig, folder: int = 0) -> list[Any]:
    """Return what the form's components show: a value per setting, the folder's key, the folder's settings."""
    held = dict(flat(config))
    return [entry.to_form(field, held[field.path]) for field in fields.all_fields()] + source_values(config, folder)


def source_values(config: RunConfig, folder: int) -> list[Any]:
    """Return the key and the settings of one folder; a number past the end is a new folder's."""
    known = folder < len(config.data.sources)
    source = config.data.sources[folder] if known else SourceConfig()
    shown = [entry.to_form(field, getattr(source, _name(field))) for field in fields.source_fields()]
    return [_key(config, folder), *shown]


def folder_of(config: RunConfig, key: str) -> int:
    """Return the number of the folder that a key means in these settings; one past the end for a new one.

    A folder that is gone is answered by the last one.
    """
    sources = config.data.sources
    wanted, path = _meant(key)
    if not path or not sources:
        return min(wanted, len(sources))
    found = _find(sources, wanted, (path,))
    return len(sources) - 1 if found is None else found


def configuration(
    base: RunConfig, entered: Sequence[Any], samplers: Sequence[str], saved_as: tuple[str, str] = ("", "")
) -> RunConfig:
    """Return `base` with everything the user entered. Raises ProblemsFound with all mistakes.

    samplers: the names the host knows; a page's answer is not proof that it was among the choices.
    saved_as: (key, path) of the folder form that was saved last: its path may have changed since the key was given.
    """
    known = fields.all_fields()
    problems: list[Problem] = []
    config = base
    for field, raw in zip(known, entered, strict=False):
        try:
            config = put(config, field.path, entry.from_form(field, raw))
        except ValueError as error:
            problems.append(Problem("error", field.path, f"{error}.", f"The default is {fields.shown(field.default)}."))
    if config.samples.sampler not in samplers and config.samples.sampler != base.samples.sampler:
        problems.append(Problem("error", "samples.sampler", f"{config.samples.sampler!r} is not known here."))
    config = put(config, "data.sources", _sources(base, entered[len(known) :], saved_as, problems))
    named = {problem.where for problem in problems}
    problems += [problem for problem in range_problems(config) if problem.where not in named]
    if problems:
        raise ProblemsFound(tuple(problems))
    return config


def folder_entered(entered: Sequence[Any]) -> tuple[str, str]:
    """Return the (key, path) that the folder form was sent with."""
    row = entered[len(fields.all_fields()) :]
    return (str(row[0] or ""), _path(row[1])) if len(row) > 1 else ("", "")


def selector_of(where: str) -> str:
    """Return the CSS selector of the field that a problem names; "" when it names none.

    A folder's field is in the page while that folder is the chosen one.
    """
    folder = fields.folder_of(where)
    field = fields.field_of(where)
    if folder is not None:
        form = f"#lora_trainer_folder:has(#lora_trainer_folder_{folder})"
        return f"{form} #{fields.element(field.path)}" if field else f"{form} #{fields.element(SOURCE + 'path')}"
    if where.partition("[")[0] in ("data.sources", "data"):
        return f"#{fields.element(SOURCE + 'path')}"
    return f"#{fields.element(field.path)}" if field else ""


def _key(config: RunConfig, folder: int) -> str:
    """Return a name of the form's present content: the folder's number and path, and what makes it unique.

    It travels with the values, in the page, so that an edit can never land in another folder than it was made in,
    however late it arrives and whatever another browser does to the list.
    """
    known = folder < len(config.data.sources)
    path = config.data.sources[folder].path if known else ""
    return f"{min(folder, len(config.data.sources))} {secrets.token_hex(4)} {path}"


def _meant(key: str) -> tuple[int, str]:
    number, _, rest = str(key or "").partition(" ")
    return (int(number) if number.isdecimal() else 0), rest.partition(" ")[2]


def _find(sources: Sequence[SourceConfig], index: int, paths: Sequence[str]) -> int | None:
    if index < len(sources) and sources[index].path in paths:
        return index
    return next((number for number, source in enumerate(sources) if source.path in paths), None)


def _sources(
    base: RunConfig, entered: Sequence[Any], saved_as: tuple[str, str], problems: list[Problem]
) -> tuple[SourceConfig, ...]:
    sources = base.data.sources
    if len(entered) < 2:
        return sources
    key, row, wanted = str(entered[0] or ""), entered[1:], _path(entered[1])
    number, path = _meant(key)
    if saved_as[0] == key:
        path = saved_as[1]
    if not path:  # a new folder; saved already, if an edit overtook the answer to the one before
        index = number if number < len(sources) and sources[number].path == wanted else None
        if index is None:
            return (*sources, _source(SourceConfig(), len(sources), row, problems)) if wanted else sources
    else:
        index = _find(sources, number, (path,))
    if index is None:
        text = f"The folder {path} was removed in another browser."
        problems.append(Problem("error", "data.sources", text, "Choose a folder in the list."))
        return sources
    if not wanted:
        where = f"data.sources[{index}].path"
        problems.append(Problem("error", where, "is empty.", "Enter a folder, or press “Remove folder”."))
        return sources
    return (*sources[:index], _source(sources[index], index, row, problems), *sources[index + 1 :])


def _source(before: SourceConfig, index: int, row: Sequence[Any], problems: list[Problem]) -> SourceConfig:
    changes: dict[str, Any] = {}
    for field, raw in zip(fields.source_fields(), row, strict=False):
        name = _name(field)
        try:
            changes[name] = _path(raw) if name == "path" else entry.from_form(field, raw)
        except ValueError as error:
            default = fields.shown(field.default) if not field.optional else field.none_means
            problems.append(
                Problem("error", f"data.sources[{index}].{name}", f"{error}.", f"The default is {default}.")
            )
    if "masks" in changes:
        changes["masks"] = _path(changes["masks"])
    return replace(before, **changes)


def _path(raw: Any) -> str:
    return str(raw if raw is not None else "").strip().strip('"')  # Windows copies paths with quotation marks


def _name(field: Field) -> str:
    return field.path.removeprefix(SOURCE)
