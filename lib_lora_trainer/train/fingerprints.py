"""Whether a saved run may go on: settings, dataset and model are what they were, or what differs is named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib_lora_trainer.base.codec import to_mapping
from lib_lora_trainer.base.errors import RunConflict
from lib_lora_trainer.config.run import RunConfig

# What may differ between a run and its continuation, because it changes no weight. Content, captions, repeats and masks
# of the pictures are compared as such, so their folders may move.
FREE = (
    "version",
    "name",
    "comment",
    "triggers",
    "base_model",
    "data.sources[].path",
    "data.sources[].masks",
    "data.cache",
    "training.gradient_checkpointing",
    "training.offload",
    "save",
    "samples",
)


def compare(saved: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """Raise RunConflict, naming the first difference and what to do, unless both belong to the same run.

    Both: `settings` (a RunConfig as plain values), `dataset` and `model` (digests). A setting that the saved run does
    not have came with a later version, whose default is what the run was made with.
    """
    start = f"{path}: the saved run cannot go on:"
    if saved["model"] != now["model"]:
        raise RunConflict(
            f"{start} it was made with model {saved['model']}, and {now['model']} is loaded. Load the checkpoint the "
            "run was started on, or start a new run."
        )
    defaults = to_mapping(RunConfig())
    before, after = (_settled(values["settings"], defaults) for values in (saved, now))
    difference = _first_difference(before, after, "")
    if difference:
        raise RunConflict(f"{start} {difference}. Set it back, or start a new run.")
    if saved["dataset"] != now["dataset"]:
        raise RunConflict(
            f"{start} pictures, captions, repeats or sizes are not what they were. Put the pictures and captions back "
            "as they were, or start a new run."
        )


def _settled(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> Any:
    settled: Any = _completed(settings, defaults)
    for path in FREE:
        settled = _without(settled, path.split("."))
    return settled


def _completed(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with defaults where there are none, tables in tables as well."""
    result = dict(defaults)
    for name, value in settings.items():
        usual = defaults.get(name)
        nested = isinstance(value, Mapping) and isinstance(usual, Mapping)
        result[name] = _completed(value, usual) if nested else value  # type: ignore[arg-type]  # both are tables
    return result


def _without(settings: Any, path: list[str]) -> Any:
    """Return the settings without one; `name[]` in the path is every item of the list `name`."""
    if not isinstance(settings, Mapping):
        return settings
    name, rest = path[0].removesuffix("[]"), path[1:]
    if not rest:
        return {key: value for key, value in settings.items() if key != name}
    if name not in settings:
        return settings
    inner = settings[name]
    changed = [_without(item, rest) for item in inner] if path[0].endswith("[]") else _without(inner, rest)
    return {**settings, name: changed}


def _first_difference(saved: Any, now: Any, where: str) -> str:
    if saved == now:
        return ""
    if isinstance(saved, Mapping) and isinstance(now, Mapping):
        for key in sorted(set(saved) | set(now)):
            found = _first_difference(saved.get(key), now.get(key), f"{where}.{key}" if where else key)
            if found:
                return found
    if isinstance(saved, list) and isinstance(now, list) and len(saved) == len(now):
        for index, (one, other) in enumerate(zip(saved, now, strict=True)):
            found = _first_difference(one, other, f"{where}[{index}]")
            if found:
                return found
    return f"{where} was {_shown(saved)} and is {_shown(now)}"


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    return f"{value:g}" if type(value) is float else repr(value)
