"""The files of sd-scripts as arguments: the run's, with or without sections, and the dataset's."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lib_lora_trainer.config.importing.dataset import Datasets, Part
from lib_lora_trainer.config.importing.outcomes import Argument, Arguments, Leave, Outcome, Silent
from lib_lora_trainer.config.importing.values import is_empty

GROUPS = ("network_args", "optimizer_args", "lr_scheduler_args")
_RENAMED = {"caption_extention": "caption_extension"}

Named = tuple[str, Argument]


def run_arguments(document: Mapping[str, Any]) -> Iterator[Named]:
    """Yield the arguments of a run's file; sections are only for the eye, as in `read_config_from_file`."""
    for section, value in document.items():
        if isinstance(value, Mapping) and value:
            for name, inner in value.items():
                yield from spread(f"{section}.{name}", name, inner)
        else:
            yield from spread(section, section, value)


def spread(key: str, name: str, value: Any) -> Iterator[Named]:
    """Yield an argument, or those it consists of: `name=value` in lists and texts, names in tables."""
    if name not in GROUPS:
        yield _RENAMED.get(name, name), Argument(key, value)
        return
    if isinstance(value, Mapping):
        pairs: Iterable[tuple[str, Any]] = value.items()
    else:
        entries = _words(value) if isinstance(value, str) else value if isinstance(value, list) else []
        pairs = [(left.strip(), right.strip()) for left, _, right in (str(entry).partition("=") for entry in entries)]
    found = False
    for inner, content in pairs:
        found = True
        yield f"{name}.{inner}", Argument(f"{key}.{inner}", _unquoted(content))
    if not found:
        yield name, Argument(key, value)


def collect(found: Iterable[Named]) -> tuple[dict[str, Argument], tuple[Outcome, ...]]:
    """Return the arguments by name, the last one given of each, and what becomes of those that it replaces."""
    arguments: dict[str, Argument] = {}
    replaced: list[Outcome] = []
    for name, argument in found:
        before = arguments.get(name)
        if before is not None and is_empty(argument.value):
            replaced.append(Silent(argument.key))
            continue
        if before is not None and (is_empty(before.value) or str(before.value) == str(argument.value)):
            replaced.append(Silent(before.key))
        elif before is not None:
            text = f"It is given again as {argument.key}, which is what counts."
            replaced.append(Leave(before.key, before.value, text))
        arguments[name] = argument
    return arguments, tuple(replaced)


def datasets(document: Mapping[str, Any], prefix: str = "") -> Datasets:
    """Return what a dataset's file says. prefix: put before its keys.

    What stands outside of the known tables goes with [general], under names that nothing knows, and so is reported.
    """
    general = dict(_table(document.get("general"), f"{prefix}general"))
    for name, value in document.items():
        if name not in ("general", "datasets"):
            general[f"outside.{name}"] = Argument(f"{prefix}{name}", value)
    parts = []
    for index, part in enumerate(_tables(document.get("datasets"))):
        place = f"{prefix}datasets[{index}]"
        subsets = tuple(
            dict(_table(subset, f"{place}.subsets[{number}]"))
            for number, subset in enumerate(_tables(part.get("subsets")))
        )
        own = {name: value for name, value in part.items() if name != "subsets"}
        parts.append(Part(dict(_table(own, place)), subsets))
    return Datasets(general, tuple(parts))


def renamed(arguments: Arguments) -> dict[str, Argument]:
    """Return the run's arguments under the names that datasets have for them."""
    names = {"train_batch_size": "batch_size", "dataset_repeats": "num_repeats"}
    # alpha_mask and face crop keep theirs; what a dataset calls `name` is a run's nothing.
    return {names.get(name) or name: argument for name, argument in arguments.items() if name != "name"}


def _table(value: Any, key: str) -> Iterator[Named]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield _RENAMED.get(str(name), str(name)), Argument(f"{key}.{name}", inner)


def _tables(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text, posix=False)
    except ValueError:  # a quotation mark without its partner
        return text.split()


def _unquoted(value: Any) -> Any:
    if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value
