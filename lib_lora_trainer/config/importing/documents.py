"""A foreign file as a table, and whose it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.config.importing import kohya_gui

Kind = Literal["sd-scripts", "sd-scripts dataset", "kohya_ss", "LoRA_Easy_Training_Scripts"]

READABLE = (
    "Files that can be read: sd-scripts' configuration (.toml) and dataset configuration (.toml, .json), kohya_ss's "
    "saved settings (.json), LoRA_Easy_Training_Scripts' settings (.toml)."
)
# Two of them make a file of sd-scripts.
_TYPICAL = frozenset({
    "pretrained_model_name_or_path", "network_module", "network_dim", "network_alpha", "network_args", "train_data_dir",
    "dataset_config", "learning_rate", "unet_lr", "text_encoder_lr", "optimizer_type", "optimizer_args", "lr_scheduler",
    "max_train_epochs", "max_train_steps", "output_name", "output_dir", "train_batch_size", "mixed_precision",
    "save_precision", "resolution", "enable_bucket", "cache_latents", "caption_extension",
})  # fmt: skip


@dataclass(frozen=True)
class Document:
    """A file's content, and the kind that its content, not its name, shows."""

    path: Path
    kind: Kind
    content: Mapping[str, Any]


def load(path: Path) -> Document:
    """Return a file's content and kind. Raises ConfigError, with the next step, if it cannot be read or is unknown."""
    content = table(path)
    return Document(path, _kind(content, path), content)


def table(path: Path) -> Mapping[str, Any]:
    """Return the content of a TOML or JSON file, told apart by their first sign."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}. Check the path, and save it as UTF-8.") from error
    is_json = text.lstrip()[:1] == "{"
    found = _json(text, path) if is_json else _toml(text, path)
    if not found:
        raise ConfigError(f"{path}: holds no settings. {READABLE}")
    return found


def _json(text: str, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path}: this is not valid JSON: {error}. Correct the line it names, or save anew."
        ) from error
    return dict(found)


def _toml(text: str, path: Path) -> dict[str, Any]:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        return tomlkit.parse(text).unwrap()
    except (TOMLKitError, RecursionError) as error:
        fix = "Correct the line it names. Windows paths need single quotation marks, '…'."
        raise ConfigError(f"{path}: this is neither JSON nor valid TOML: {error}. {fix}") from error


def _kind(content: Mapping[str, Any], path: Path) -> Kind:
    if "training_method" in content and "model_type" in content:
        raise ConfigError(f"{path}: OneTrainer's settings cannot be read. {READABLE}")
    if isinstance(content.get("adapter"), Mapping) and "network_dim" not in _names(content):
        raise ConfigError(f"{path}: this is a run of this program. Open it as one; there is nothing to convert.")
    tables = [value for value in content.values() if isinstance(value, Mapping)]
    if any(isinstance(value.get(part), Mapping) for value in tables for part in ("args", "dataset_args")):
        return "LoRA_Easy_Training_Scripts"
    if isinstance(content.get("datasets"), list):
        return "sd-scripts dataset"
    if sum(mark in content for mark in kohya_gui.MARKS) >= 2:
        return "kohya_ss"
    if len(_names(content) & _TYPICAL) >= 2:
        return "sd-scripts"
    raise ConfigError(f"{path}: these settings are of no known trainer. {READABLE}")


def _names(content: Mapping[str, Any]) -> set[str]:
    """Return the names in a table and in the tables within."""
    inner = {name for value in content.values() if isinstance(value, Mapping) for name in value}
    return set(content) | inner
