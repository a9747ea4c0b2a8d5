"""The adapter files of a run, found from its folder alone, and a prompt for them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from lib_lora_trainer.app import runs
from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.config import run as run_config

_RECORD = "run.json"  # in the folder of a run that the command line made; its adapters are beside that folder
_NUMBER = re.compile(r"-(?:step)?([0-9]{6}|[0-9]{8})$")
_OTHER = re.compile(r"-rank[0-9]+$")  # DyLoRA's smaller ranks are no earlier saves


def find(place: Path) -> tuple[str, ...]:
    """Return a run's adapter files, in the order of their making, the finished one last.

    place: the run's folder, a folder with its adapters, or one of its files, which stands for all of them.
    Raises ConfigError when there is none, or when files of several runs are in the folder.
    """
    if place.is_file():
        return _sorted(_saves(place.parent, _stem(place)))
    if (place / runs.JOURNAL).is_file():
        written = runs.adapters_of(runs.read_events(place))
        found = [Path(path) for path in written if Path(path).is_file() and not _OTHER.search(Path(path).stem)]
    elif (place / _RECORD).is_file():
        record = json.loads((place / _RECORD).read_text(encoding="utf-8"))
        found = _saves(place.parent, str(record.get("stem", "")))
    else:
        found = [path for path in place.glob("*.safetensors") if not _OTHER.search(path.stem)]
        stems = sorted({_stem(path) for path in found})
        if len(stems) > 1:
            raise ConfigError(f"{place}: holds files of {len(stems)} runs, {', '.join(stems[:5])}. Name a file of one.")
    if not found:
        raise ConfigError(f"{place}: no adapter of a run is there. Name the run's folder, or one of its files.")
    return _sorted(found)


def prompt_for(place: Path, saves: tuple[str, ...]) -> str:
    """Return what to prompt a run's adapter with: its first sample prompt, else its triggers.

    Raises ConfigError when neither is known.
    """
    settings = place / runs.CONFIG
    if settings.is_file():
        config = run_config.read(settings)
        text = next(iter(config.samples.prompts), "") or ", ".join(config.triggers)
        if text:
            return text
    for save in reversed(saves):
        card = Path(save).with_suffix(".json")
        if card.is_file():
            content = json.loads(card.read_text(encoding="utf-8", errors="replace"))
            text = content.get("activation text", "") if isinstance(content, dict) else ""
            if text:
                return str(text)
    raise ConfigError(f"{place}: does not say what to prompt. Give the prompt.")


def _stem(path: Path) -> str:
    return _NUMBER.sub("", path.stem)


def _saves(folder: Path, stem: str) -> list[Path]:
    return [path for path in folder.glob("*.safetensors") if _stem(path) == stem]


def _sorted(found: list[Path]) -> tuple[str, ...]:
    """Return files by epoch or step, the finished adapter last; where both kinds are there, by when they were made."""

    def place(path: Path) -> tuple[bool, float]:
        match = _NUMBER.search(path.stem)
        return match is None, int(match[1]) if match and one_kind else path.stat().st_mtime

    kinds = {len(match[1]) for path in found if (match := _NUMBER.search(path.stem))}
    one_kind = len(kinds) < 2
    return tuple(str(path) for path in sorted(found, key=place))
