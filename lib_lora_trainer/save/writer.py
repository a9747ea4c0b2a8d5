"""Adapter files under names of their own, each with what the Lora page shows beside it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.base.files import check_name, replacing, unused, write_text
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.hosts.api import ModelInfo
from lib_lora_trainer.save import weights

_VERSION = {"sd1": "SD1", "sd2": "SD2", "sdxl": "SDXL"}


@dataclass(frozen=True)
class Place:
    """Where a run's files go. stem: common to all of them; session: tells this run's files from another's."""

    folder: Path
    stem: str
    session: str


def free_stem(folder: Path, name: str) -> str:
    """Return `name`, or the first of `name-2`, `name-3`, … of which no file exists.

    A stem counts as taken by `stem.safetensors` and by the saves of unfinished runs, `stem-000001.safetensors`. The
    WebUI knows adapters by their stem alone, so folders below `folder` count as well.
    Raises ConfigError for a name that cannot be a file's.
    """
    check_name(name, "name")
    taken = {path.stem for path in folder.rglob("*.safetensors")} if folder.is_dir() else set()
    candidate, number = name, 2
    while any(stem == candidate or _is_save_of(stem, candidate) for stem in taken):
        candidate, number = f"{name}-{number}", number + 1
    return candidate


def _is_save_of(stem: str, run: str) -> bool:
    rest = stem[len(run) + 1 :]
    epoch = len(rest) == 6 and rest.isdigit()
    step = rest.startswith("step") and rest[4:12].isdigit()
    rank = rest.startswith("rank") and rest[4:].isdigit()
    return stem.startswith(f"{run}-") and (epoch or step or rank)


def path_for(place: Place, label: str) -> Path:
    """Return the path of a save. label: `000003` (epoch), `step00000120`, `rank4`, or "" for the finished adapter.

    A file of this run at that path is written anew (a resumed run repeats its saves); another run's is left alone.
    """
    path = place.folder / f"{place.stem}{'-' if label else ''}{label}.safetensors"
    if path.exists() and _session_of(path) != place.session:
        return unused(path)
    return path


def _session_of(path: Path) -> str:
    try:
        with safe_open(str(path), framework="pt") as file:
            return (file.metadata() or {}).get("ss_session_id", "")
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: this file is in the way and cannot be read ({error}). Move it away.") from error


def write(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write the adapter file. Raises OSError when the disk is full or the folder is not writable."""
    weights.write(path, tensors, metadata)


def write_beside(path: Path, config: RunConfig, model: ModelInfo, picture: Path | None) -> None:
    """Write the preview and the JSON that the Lora card reads; what the user changed there is never replaced."""
    card = path.with_suffix(".json")
    if not card.exists():
        write_text(card, _card(config, model))
    preview = path.with_suffix(".png")
    if picture is not None and not preview.exists():
        with replacing(preview) as temporary:
            shutil.copyfile(picture, temporary)


def discard(path: Path, config: RunConfig, model: ModelInfo) -> None:
    """Remove a save; its card and preview as well if the user changed nothing in the card."""
    card = path.with_suffix(".json")
    if card.exists() and card.read_text(encoding="utf-8", errors="replace") == _card(config, model):
        card.unlink()
        path.with_suffix(".png").unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _card(config: RunConfig, model: ModelInfo) -> str:
    content = {
        "description": config.comment,
        "sd version": _VERSION[model.family],
        "activation text": ", ".join(config.triggers),
        "preferred weight": config.save.preferred_weight,
        "notes": f"Trained on {model.title}.",
    }
    return json.dumps(content, ensure_ascii=False, indent=4)
