"""Configuration files of other trainers, read as runs of this one.

`read` tells what became of every key: nothing is dropped without a word.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.config.importing import (
    dataset,
    direct,
    documents,
    easy_training,
    folders,
    kohya_gui,
    network,
    optimizer,
    samples,
    schedule,
    sd_scripts,
    training,
    values,
)
from lib_lora_trainer.config.importing.dataset import Datasets, Part
from lib_lora_trainer.config.importing.documents import Document, Kind
from lib_lora_trainer.config.importing.outcomes import (
    Argument,
    Arguments,
    Inside,
    Leave,
    Mapped,
    Outcome,
    Silent,
    Unmapped,
    sort,
)
from lib_lora_trainer.config.run import RunConfig

__all__ = ["Imported", "Mapped", "Unmapped", "read"]


@dataclass(frozen=True)
class Imported:
    """What a foreign file says.

    mapped: each of its keys with the setting it became; one key may become several, several one. unmapped: keys that
    change nothing here, or not all they should, with the reason; a key may be in both. silent: keys whose value means
    `off` or `default` there. assumed: settings that are not in the file and follow the other trainer's defaults instead
    of ours, so that the run is the one the file described. files: those that were read, the given one first.
    """

    kind: Kind
    config: RunConfig
    mapped: tuple[Mapped, ...]
    unmapped: tuple[Unmapped, ...]
    silent: tuple[str, ...]
    assumed: tuple[tuple[str, Any], ...]
    files: tuple[Path, ...]


def read(path: Path) -> Imported:
    """Return the run that a configuration file of another trainer describes.

    sd-scripts (TOML, with or without sections), its datasets (TOML, JSON), kohya_ss's GUI (JSON) and
    LoRA_Easy_Training_Scripts (TOML), told apart by their content. Datasets and prompts in files of their own are read
    with it. Relative paths are taken from the file's folder.
    Raises ConfigError for a file that cannot be read, is broken or of another program.
    """
    document = documents.load(path)
    if document.kind == "sd-scripts dataset":
        datasets = sd_scripts.datasets(document.content)
        return _imported(document, dataset.translate(datasets, {}, path.parent, masked=True), ())
    found, replaced = sd_scripts.collect(_arguments(document))
    arguments = easy_training.network_module(found) if document.kind == "LoRA_Easy_Training_Scripts" else found
    outcomes = [*replaced, *_own(document)]
    files: list[Path] = []
    datasets, about, more = _datasets(document, arguments)
    outcomes += about
    files += more
    masked = "masked_loss" in arguments and not values.is_off(arguments["masked_loss"].value)
    for part in (direct, network, optimizer, schedule, training):
        outcomes += part.translate(arguments)
    outcomes += dataset.translate(datasets, sd_scripts.renamed(arguments), path.parent, masked)
    outcomes += samples.translate(arguments, path.parent)
    files += samples.files(arguments, path.parent)
    outcomes += _unknown(arguments, outcomes)
    return _imported(document, iter(outcomes), tuple(files))


def _arguments(document: Document) -> Iterator[sd_scripts.Named]:
    if document.kind == "kohya_ss":
        return kohya_gui.run_arguments(document.content)
    if document.kind == "LoRA_Easy_Training_Scripts":
        return easy_training.run_arguments(document.content)
    return sd_scripts.run_arguments(document.content)


def _own(document: Document) -> Iterator[Outcome]:
    """Yield what becomes of the keys that only this kind of file has."""
    if document.kind == "kohya_ss":
        yield from kohya_gui.outcomes(document.content)
    elif document.kind == "LoRA_Easy_Training_Scripts":
        yield from easy_training.outcomes(document.content)


def _datasets(document: Document, arguments: Arguments) -> tuple[Datasets, list[Outcome], list[Path]]:
    """Return the datasets: of the file itself, of the one it names, or of its folders."""
    if document.kind == "LoRA_Easy_Training_Scripts":
        return easy_training.datasets(document.content), [], []
    chosen = arguments.get("dataset_config")
    about: list[Outcome] = []
    if chosen is not None and not values.is_empty(chosen.value):
        place = folders.located(str(chosen.value), document.path.parent)
        try:
            found = sd_scripts.datasets(documents.table(place), f"{chosen.key}:")
        except ConfigError as error:
            return Datasets(), [Leave(chosen.key, chosen.value, f"{error}")], []
        about.append(Inside(chosen.key, "data.sources"))
        for name in ("train_data_dir", "reg_data_dir"):
            if name in arguments and not values.is_empty(arguments[name].value):
                text = "It does not count there beside dataset_config."
                about.append(Leave(arguments[name].key, arguments[name].value, text))
        return found, about + _emptied(arguments), [place]
    if chosen is not None:
        about.append(Silent(chosen.key))
    subsets = tuple(
        folders.parent(arguments[name], regularization)
        for name, regularization in (("train_data_dir", False), ("reg_data_dir", True))
        if name in arguments and not values.is_empty(arguments[name].value)
    )
    return Datasets({}, (Part({}, subsets),)), about + _emptied(arguments), []


def _emptied(arguments: Arguments) -> list[Outcome]:
    """Return outcomes for folders that are not given."""
    names = ("train_data_dir", "reg_data_dir")
    return [
        Silent(arguments[name].key) for name in names if name in arguments and values.is_empty(arguments[name].value)
    ]


def _unknown(arguments: Arguments, outcomes: list[Outcome]) -> Iterator[Outcome]:
    """Yield a sentence for every argument that nothing above knows."""
    known = {outcome.key for outcome in outcomes}
    for argument in arguments.values():
        if argument.key and argument.key not in known:
            yield _stranger(argument)


def _stranger(argument: Argument) -> Outcome:
    if values.is_off(argument.value):
        return Silent(argument.key)
    return Leave(argument.key, argument.value, "This key is not known here. Set its like by hand, if there is one.")


def _imported(document: Document, outcomes: Iterator[Outcome], files: tuple[Path, ...]) -> Imported:
    done = sort(RunConfig(), outcomes)
    read_files = (document.path, *files)
    return Imported(document.kind, done.config, done.mapped, done.unmapped, done.silent, done.assumed, read_files)
