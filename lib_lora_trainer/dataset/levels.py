"""Whether the chosen folder is the one that was meant: the folder above `N_name` folders, not one of them or above."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.config.data import SourceConfig
from lib_lora_trainer.dataset.entries import absolute, is_folder, printable, real
from lib_lora_trainer.dataset.findings import named
from lib_lora_trainer.dataset.folders import Folder
from lib_lora_trainer.dataset.repeats import MAXIMUM_REPEATS, number_in_name

_REGULARIZATION_NAMES = ("reg", "class", "prior")  # beginnings of the names that trainers' guides give such folders


def about_level(source: SourceConfig, folders: Sequence[Folder], chosen: Collection[str], where: str) -> list[Problem]:
    """Return what is to be said about the level of a source's folder.

    folders: those of the source that count; chosen: real paths of all sources' folders; where: the source's setting.
    """
    used = [folder for folder in folders if folder.pictures]
    if not used or source.repeats:
        return []
    root = absolute(source.path)
    if _is_numbered(root.name):
        return [_leaf(root, used, chosen, where)]
    return _too_high(root, source, used, where)


def _leaf(root: Path, used: Sequence[Folder], chosen: Collection[str], where: str) -> Problem:
    text = f"{printable(Path(root.name))} is itself a folder named N_name; its pictures count × {used[0].repeats:g}."
    beside = [path for path in _numbered(root.parent) if real(path) not in chosen]
    if not beside:
        return Problem("note", where, text)
    text = f"{text[:-1]}, and those beside it are not used: {named(beside)}."
    return Problem("warning", where, text, f"Choose {printable(root.parent)} to use all of them.")


def _too_high(root: Path, source: SourceConfig, used: Sequence[Folder], where: str) -> list[Problem]:
    """Tell when the `N_name` folders lie a level deeper, where trainers keep `img` and `reg` side by side."""
    steps = [folder.path.relative_to(root).parts for folder in used]
    deeper = [parts for parts in steps if len(parts) > 1 and _is_numbered(parts[1])]
    if len(deeper) < len(steps) or any(_is_numbered(parts[0]) for parts in steps):
        return []
    between = sorted({parts[0] for parts in deeper})
    text = f"the folders named N_name lie one level deeper, in {', '.join(between)}; all of them are used."
    suspects = [name for name in between if name.lower().startswith(_REGULARIZATION_NAMES)]
    if not suspects or source.regularization:
        return [Problem("note", where, text)]
    text = f"{text[:-1]}, {', '.join(suspects)} like any other."
    fix = f"Choose the folder with your pictures alone, and add {suspects[0]} as a source of regularization images."
    return [Problem("warning", where, text, fix)]


def _is_numbered(name: str) -> bool:
    number = number_in_name(name)
    return number is not None and number <= MAXIMUM_REPEATS


def _numbered(folder: Path) -> list[Path]:
    """Return the folders in a folder whose names begin with a number; none when it cannot be read."""
    try:
        paths = sorted(folder.iterdir())
    except OSError:
        return []
    return [path for path in paths if _is_numbered(path.name) and is_folder(path)]
