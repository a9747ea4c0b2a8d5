"""The settings of regularization images as form fields, and their problems beside those fields."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from lib_lora_trainer.base.errors import Problem, ProblemsFound
from lib_lora_trainer.base.setting import range_problems
from lib_lora_trainer.config.regularization import RegularizationConfig, SourceMarks
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.dataset.entries import absolute
from lib_lora_trainer.ui import captions_options, findings
from lib_lora_trainer.ui.entry import from_form
from lib_lora_trainer.ui.fields import Field

FIELDS = tuple(
    replace(field, path=f"reg.{field.path.rpartition('.')[2]}")
    for field in captions_options.fields_of("reg", RegularizationConfig, without=("sources",))
)
SOURCES = (("Captions", "captions"), ("A class", "class"), ("Words of the triggers", "words"))
FOLDED = ("when_empty", "templates", "negative", "seed", "scheduler")
MEANT = {
    "captions": ("remove", "when_empty"), "class": ("texts", "templates"), "words": ("texts", "templates"),
}  # fmt: skip
"""Which settings mean something, by where the prompts come from; all others always do."""
_PREFIX = "regularization."
_FACTS = {
    "prompt": "Prompt", "caption": "Caption", "width": "Size", "height": "Size", "clip_skip": "Clip skip",
    "roll": "Re-roll", "model": "Model", "sha256": "Model", "vae": "VAE",
}  # fmt: skip


def name_of(field: Field) -> str:
    """Return the name of the setting that a field is of."""
    return field.path.rpartition(".")[2]


def entered(values: Sequence[Any], before: RegularizationConfig, config: RunConfig) -> RegularizationConfig:
    """Return the settings as the form sent them: each of FIELDS, then the folder and its marks.

    before: has what the form does not show: the marks of other folders. Raises ProblemsFound with all that is wrong.
    """
    *sent, folder, marks = values
    kept = {each.path: each.remove for each in before.sources}
    if folder in folders(config):
        kept[_path(folder, config)] = tuple(line.strip() for line in (marks or "").splitlines() if line.strip())
    read: dict[str, Any] = {}
    problems: list[Problem] = []
    for field, raw in zip(FIELDS, sent, strict=True):
        try:
            read[name_of(field)] = from_form(field, raw)
        except ValueError as error:
            problems.append(Problem("error", name_of(field), f"{error}.", field.help))
    sources = tuple(SourceMarks(path, remove) for path, remove in kept.items() if remove)
    options = RegularizationConfig(**read, sources=sources)
    problems += range_problems(options)
    if problems:
        raise ProblemsFound(tuple(problems))
    return options


def folders(config: RunConfig) -> list[str]:
    """Return the folders of training pictures as the list shows them, with their numbers in the settings."""
    return [
        f"{number}: {source.path}"
        for number, source in enumerate(config.data.sources, start=1)
        if source.path.strip() and not source.regularization
    ]


def _path(folder: str, config: RunConfig) -> str:
    return str(absolute(config.data.sources[int(folder.partition(":")[0]) - 1].path))


def marks_of(folder: str | None, options: RegularizationConfig, config: RunConfig) -> str:
    """Return what a folder's captions leave out besides, one a line; "" for a folder that is none now."""
    if folder not in folders(config):
        return ""
    path = _path(folder, config)
    return "\n".join(mark for each in options.sources if each.path == path for mark in each.remove)


def of_run(options: RegularizationConfig, config: RunConfig) -> RegularizationConfig:
    """Return the settings without the marks of folders that are none of the run's now; the file keeps those."""
    known = {_path(folder, config) for folder in folders(config)}
    return replace(options, sources=tuple(each for each in options.sources if each.path in known))


def own(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Return problems with the names that `findings.beside_options` finds the fields by."""
    return tuple(replace(each, where=each.where.removeprefix(_PREFIX)) for each in problems)


def listed(problems: Iterable[Problem]) -> str:
    """Return problems as a list in which settings are called as the form calls them."""
    labels = {name_of(field): field.label for field in FIELDS}
    labels |= {"sources": "Leave out of these", "out": ""}
    named = (replace(each, where=labels.get(each.where.partition("[")[0], each.where)) for each in own(problems))
    return findings.listed(tuple(named))


def differing(facts: Iterable[str]) -> str:
    """Return what images were made from otherwise, by the names of the facts, as people call it."""
    labels = {name_of(field): field.label for field in FIELDS}
    return ", ".join(sorted({_FACTS.get(name) or labels.get(name, name) for name in facts}))
