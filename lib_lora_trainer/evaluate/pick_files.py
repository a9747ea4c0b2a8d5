"""The adapter files of a run in the order of its training, from what they say about themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors import SafetensorError, safe_open

from lib_lora_trainer.base.errors import ConfigError, DataError
from lib_lora_trainer.base.files import sha256


@dataclass(frozen=True)
class AdapterFile:
    """One saved adapter. step, epoch: when it was saved; digest: of its content; about: its metadata."""

    path: Path
    step: int
    epoch: int
    digest: str
    about: Mapping[str, str]

    @property
    def label(self) -> str:
        """Its name as the WebUI has it."""
        return self.path.stem

    @property
    def moment(self) -> tuple[str, int, int]:
        """The run and the step: files that share these hold the same weights."""
        return self.about.get("ss_session_id", "") or self.digest, self.step, self.epoch


def ordered(paths: Sequence[Path]) -> tuple[AdapterFile, ...]:
    """Return adapter files in the order of training; of several saves of one moment the one with the shortest name.

    Files that do not say when they were saved keep the order in which they were given. Raises DataError for one that
    cannot be read, ConfigError when there is none.
    """
    if not paths:
        raise ConfigError("files: there is no adapter. Give the run's folder, or its .safetensors files.")
    found = [_read(path) for path in dict.fromkeys(path.resolve() for path in paths)]
    if any(each.step == 0 for each in found):
        found = [replace(each, step=number, epoch=each.epoch or number) for number, each in enumerate(found, 1)]
    moments: dict[tuple[str, int, int], AdapterFile] = {}
    for each in sorted(found, key=lambda file: (len(file.path.name), str(file.path))):
        moments.setdefault(each.moment, each)
    files = sorted(moments.values(), key=lambda file: (file.step, file.path.name))
    names = [each.label for each in files]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"files: two adapters are named {twice[0]}. Rename one: the WebUI cannot tell them apart.")
    return tuple(files)


def _read(path: Path) -> AdapterFile:
    try:
        with safe_open(str(path), framework="pt") as file:
            about = dict(file.metadata() or {})
        digest = sha256(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: cannot be read as an adapter ({error}). Choose a .safetensors file.") from error
    return AdapterFile(path, _number(about, "ss_steps"), _number(about, "ss_epoch"), digest, about)


def _number(about: Mapping[str, str], name: str) -> int:
    text = about.get(name, "")
    return int(text) if text.isdigit() else 0
