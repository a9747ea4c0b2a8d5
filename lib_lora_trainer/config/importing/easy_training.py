"""The TOML of LoRA_Easy_Training_Scripts as arguments: `[section.args]`, `[section.dataset_args]`, `[[subsets]]`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lib_lora_trainer.config.importing import values
from lib_lora_trainer.config.importing.dataset import NAMES, Datasets, Part
from lib_lora_trainer.config.importing.outcomes import Argument, Leave, Outcome, Silent
from lib_lora_trainer.config.importing.sd_scripts import Named, spread

_NAME = "${replace}"


def run_arguments(document: Mapping[str, Any]) -> Iterator[Named]:
    """Yield the run's arguments of all sections. Source: main_ui_files/MainUI.py `save_toml` at ae5ce07."""
    word = _section(document, "saving_args").get("args", {}).get("easy_name", "")
    for section, content in document.items():
        if section in ("subsets", "train_mode"):
            continue
        table = content.get("args") if isinstance(content, Mapping) else None
        if isinstance(table, Mapping):
            for name, value in table.items():
                filled = value.replace(_NAME, str(word)) if isinstance(value, str) else value
                yield from spread(f"{section}.args.{name}", name, filled)
        elif not isinstance(content, Mapping):
            yield section, Argument(section, content)
        more = content.get("dataset_args") if isinstance(content, Mapping) else None
        if isinstance(more, Mapping):  # of the run all the same: max_token_length in older files
            for name, value in more.items():
                if name not in NAMES:
                    yield from spread(f"{section}.dataset_args.{name}", name, value)


def datasets(document: Mapping[str, Any]) -> Datasets:
    """Return the subsets, and what the sections say for all of them."""
    general: dict[str, Argument] = {}
    for section, content in document.items():
        table = content.get("dataset_args") if isinstance(content, Mapping) else None
        if isinstance(table, Mapping):
            general |= {
                name: Argument(f"{section}.dataset_args.{name}", value)
                for name, value in table.items()
                if name in NAMES
            }
    subsets = document.get("subsets")
    found = tuple(
        {name: Argument(f"subsets[{index}].{name}", value) for name, value in subset.items()}
        for index, subset in enumerate(subsets if isinstance(subsets, list) else [])
        if isinstance(subset, Mapping)
    )
    return Datasets(general, (Part({}, found),))


def outcomes(document: Mapping[str, Any]) -> Iterator[Outcome]:
    """Yield what becomes of the keys that are no arguments of sd-scripts."""
    mode = _section(document, "train_mode").get("train_mode", "lora")
    if mode == "lora" or values.is_empty(mode):
        yield Silent("train_mode.train_mode")
    else:
        text = "Only adapters are trained here; textual inversion is not."
        yield Leave("train_mode.train_mode", mode, text)
    saving = _section(document, "saving_args").get("args", {})
    if isinstance(saving, Mapping) and "easy_name" in saving:
        yield Silent("saving_args.args.easy_name")
    network = _section(document, "network_args").get("args", {})
    if isinstance(network, Mapping) and "fa" in network:
        text = "LoRA-FA keeps half of each pair frozen; here both are trained, which needs a little more memory."
        key = "network_args.args.fa"
        yield Silent(key) if values.is_off(network["fa"]) else Leave(key, network["fa"], text)


def network_module(arguments: Mapping[str, Argument]) -> dict[str, Argument]:
    """Return the arguments with the network module that follows from network_args there (utils/validation.py)."""
    if "network_module" in arguments:
        return dict(arguments)
    algorithm, unit = arguments.get("network_args.algo"), arguments.get("network_args.unit")
    if algorithm is not None:
        return {**arguments, "network_module": Argument(algorithm.key, "lycoris.kohya")}
    return {**arguments, "network_module": Argument("", "networks.lora" if unit is None else "networks.dylora")}


def _section(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = document.get(name)
    return found if isinstance(found, Mapping) else {}
