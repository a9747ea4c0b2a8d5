"""One folder of pictures: its path, repeats, masks and the caption of pictures that have none."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from lib_lora_trainer.config.importing import values
from lib_lora_trainer.config.importing.outcomes import Argument, Arguments, Leave, Outcome, Put, attempt

_REPEATS = re.compile(r"([0-9]+)_(.+)")
_PARENT = "parent"
"""Name of the argument that marks a subset as a folder of `N_name` folders: train_data_dir and reg_data_dir."""


def parent(argument: Argument, regularization: bool) -> Arguments:
    """Return the subset that stands for train_data_dir or reg_data_dir."""
    found = {"image_dir": argument, _PARENT: Argument("", True)}
    return {**found, "is_reg": Argument(argument.key, True)} if regularization else found


def translate(index: int, levels: Sequence[Arguments], folder: Path, masked: bool) -> Iterator[Outcome]:
    """Yield what becomes of one subset. levels: its own arguments first, then those that stand in for them."""
    own, source = levels[0], f"data.sources[{index}]"
    path = own.get("image_dir")
    if path is None or values.is_empty(path.value):
        yield Put("", f"{source}.path", "")
    else:
        yield from _path(path, f"{source}.path", folder)
    if _PARENT in own and path is not None:
        yield from _class_tokens(path, source, folder)
    else:
        yield Put("", f"{source}.recursive", False)
        yield from _repeats(levels, source)
    yield from _each(levels, "class_tokens", f"{source}.fallback_caption", values.text)
    yield from _each(levels[:1], "is_reg", f"{source}.regularization", values.switch)
    yield from _masks(levels, source, folder, masked)
    yield from _attributes(levels, source)


def located(text: str, folder: Path) -> Path:
    """Return a path of the file; a relative one is taken from the file's folder, with either kind of slash."""
    if Path(text).is_absolute() or PureWindowsPath(text).is_absolute():
        return Path(text)
    return (folder / text.replace("\\", "/")).resolve()


def is_folder(place: Path) -> bool:
    """Tell whether a folder exists; a name that no system accepts does not."""
    try:
        return place.is_dir()
    except (OSError, ValueError):
        return False


def _path(argument: Argument, setting: str, folder: Path) -> Iterator[Outcome]:
    try:
        text = values.text(argument.value)
    except ValueError as error:
        yield Leave(argument.key, argument.value, f"{error}.")
        return
    place = located(text, folder)
    yield Put(argument.key, setting, str(place))
    if not is_folder(place):
        yield Leave(argument.key, argument.value, f"There is no folder {place}. Choose the folder.")


def _repeats(levels: Sequence[Arguments], source: str) -> Iterator[Outcome]:
    found = next((level["num_repeats"] for level in levels if "num_repeats" in level), None)
    if found is None:
        # Said outright: 0 would take the number in front of the folder's name.
        yield Put("", f"{source}.repeats", 1)
    else:
        yield attempt(found, f"{source}.repeats", values.whole)


def _class_tokens(path: Argument, source: str, folder: Path) -> Iterator[Outcome]:
    """Yield the caption that pictures without one get there: what stands behind the repeats in the folder's name."""
    place = located(str(path.value), folder)
    if not is_folder(place):
        return
    names = sorted(entry.name for entry in place.iterdir() if entry.is_dir())
    numbered = [match[2] for match in map(_REPEATS.fullmatch, names) if match]
    tokens = sorted(set(numbered))
    if len(tokens) == 1:
        yield Put("", f"{source}.fallback_caption", tokens[0])
    elif tokens:
        listed = ", ".join(tokens[:5])
        text = f"Pictures without caption are called after their folder there ({listed}), here by the trigger words."
        yield Leave(path.key, path.value, f"{text} Give each folder as a source of its own to keep that.")
    passed = [name for name in names if not _REPEATS.fullmatch(name) and not name.startswith(".")]
    if passed:
        listed = ", ".join(passed[:5])
        yield Leave(path.key, path.value, f"Folders without a number are passed over there and used here: {listed}.")


def _masks(levels: Sequence[Arguments], source: str, folder: Path, masked: bool) -> Iterator[Outcome]:
    masks = _given(levels[:1], "conditioning_data_dir")
    if masks is not None and not masked:
        yield Leave(masks.key, masks.value, "Masks count there only with masked_loss, which is off.")
    elif masks is not None:
        yield from _path(masks, f"{source}.masks", folder)
        yield Put(masks.key, "loss.masked", True)
    alpha = _given(levels, "alpha_mask")
    if alpha is not None and not values.is_off(alpha.value):
        yield Put(alpha.key, f"{source}.alpha_masks", True)
        yield Put(alpha.key, "loss.masked", True)


def _attributes(levels: Sequence[Arguments], source: str) -> Iterator[Outcome]:
    found = _given(levels, "custom_attributes")
    if found is None:
        return
    attributes = found.value if isinstance(found.value, dict) else {}
    if attributes.get("diff_output_preservation"):
        yield Put(found.key, f"{source}.prior_preservation", True)
    others = {name: value for name, value in attributes.items() if name != "diff_output_preservation"}
    if others or not attributes:
        text = f"Not known here: {', '.join(others) or 'attributes that are no table'}."
        yield Leave(found.key, found.value, text)


def _given(levels: Sequence[Arguments], name: str) -> Argument | None:
    return next((level[name] for level in levels if name in level and not values.is_empty(level[name].value)), None)


def _each(levels: Sequence[Arguments], name: str, setting: str, convert: Any) -> Iterator[Outcome]:
    found = _given(levels, name)
    if found is not None:
        yield attempt(found, setting, convert)
