"""Form values to a configuration and back; every mistake is named with its field."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lib_lora_trainer.base.errors import Problem, ProblemsFound
from lib_lora_trainer.base.setting import range_problems
from lib_lora_trainer.config.data import SourceConfig
from lib_lora_trainer.config.paths import flat, put
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.ui import fields
from lib_lora_trainer.ui.fields import Field

ROWS = 6
"""Folders with a row of their own; more, from an imported file, are kept but not shown."""

COLUMNS = 3  # of a row: folder, repeats, caption when missing


def values(config: RunConfig) -> list[Any]:
    """Return what the components show: first one value per field, then the rows of folders."""
    held = dict(flat(config))
    row: list[Any] = []
    for index in range(ROWS):
        known = index < len(config.data.sources)
        source = config.data.sources[index] if known else SourceConfig()
        row += [source.path, source.repeats, source.fallback_caption]
    return [fields.to_form(field, held[field.path]) for field in fields.all_fields()] + row


def configuration(base: RunConfig, entered: Sequence[Any], samplers: Sequence[str]) -> RunConfig:
    """Return `base` with everything the user entered. Raises ProblemsFound with all mistakes.

    samplers: the names the host knows; a page's answer is not proof that it was among the choices.
    """
    known = fields.all_fields()
    problems: list[Problem] = []
    config = base
    for field, raw in zip(known, entered, strict=False):
        try:
            config = put(config, field.path, _value(field, raw))
        except ValueError as error:
            problems.append(Problem("error", field.path, f"{error}.", f"The default is {fields.shown(field.default)}."))
    if config.samples.sampler not in samplers and config.samples.sampler != base.samples.sampler:
        problems.append(Problem("error", "samples.sampler", f"{config.samples.sampler!r} is not known here."))
    rows = list(entered[len(known) :])
    sources = []
    for index in range(min(ROWS, len(rows) // COLUMNS)):
        try:
            sources += _source(base, rows[index * COLUMNS : (index + 1) * COLUMNS])
        except ValueError as error:
            problems.append(Problem("error", f"data.sources[{index}].repeats", f"{error}.", "Use 0 or more."))
    config = put(config, "data.sources", (*sources, *base.data.sources[ROWS:]))
    named = {problem.where for problem in problems}
    problems += [problem for problem in range_problems(config) if problem.where not in named]
    if problems:
        raise ProblemsFound(tuple(problems))
    return config


def element_of(where: str) -> str:
    """Return the page's id for the field that a problem names; "" when it names none."""
    source = re.match(r"data\.sources\[(\d+)\]\.(\w+)$", where)
    if source:
        return f"lora_trainer_source_{source[1]}_{source[2]}"
    path = where.partition("[")[0]
    if path in ("data.sources", "data"):
        return "lora_trainer_source_0_path"
    return fields.element(path) if path in {field.path for field in fields.all_fields()} else ""


def _value(field: Field, raw: Any) -> Any:
    if field.kind == "switch":
        return bool(raw)
    if field.kind in ("whole", "number"):
        return _number(raw, whole=field.kind == "whole")
    text = str(raw if raw is not None else "")
    if field.kind == "words":
        return tuple(word.strip() for word in text.split(",") if word.strip())
    if field.kind == "lines":
        return tuple(line.strip() for line in text.splitlines() if line.strip())
    return text.strip() if field.path == "name" else text


def _number(raw: Any, *, whole: bool) -> int | float:
    if raw is None or raw == "":
        raise ValueError("No number is entered")
    number = float(raw)
    if not whole:
        return number
    if not number.is_integer():
        raise ValueError(f"{number:g} is not a whole number")
    return int(number)


def _source(base: RunConfig, row: Sequence[Any]) -> list[SourceConfig]:
    path = str(row[0] or "").strip().strip('"')
    if not path:
        return []
    before = next((source for source in base.data.sources if source.path == path), SourceConfig(path))
    return [replace(before, repeats=int(_number(row[1], whole=True)), fallback_caption=str(row[2] or ""))]
