"""The WD taggers that are known, with their own thresholds, and where on this machine one lies already."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib_lora_trainer.base.errors import ConfigError, UserError

MODEL, TAGS = "model.onnx", "selected_tags.csv"
FILES = (MODEL, TAGS)
OWNER = "SmilingWolf"
CHARACTER = 0.85  # of the models' own demo, SmilingWolf's space wd-tagger
GENERAL = 0.35  # the same demo's, for a model that is not in the catalogue


@dataclass(frozen=True)
class Model:
    """A tagger of the hub, or of a folder.

    general: the threshold at which precision equals recall, as its author gives it; character: the demo's.
    megabytes: about what it takes, from its number of float32 weights; 0 where unknown. The download tells exactly.
    """

    name: str
    general: float = GENERAL
    megabytes: int = 0
    character: float = CHARACTER

    @property
    def repository(self) -> str:
        """Where the hub has it."""
        return f"{OWNER}/{self.name}"


# Thresholds: the models' cards, as gathered in dataset-tag-editor's interrogator_names.py (vit-large and eva02-large in
# its standalone version); the two of version 1 have none, hence the demo's.
CATALOGUE = tuple(
    Model(name, general, megabytes)
    for name, general, megabytes in (
        ("wd-eva02-large-tagger-v3", 0.5296, 1260),
        ("wd-vit-large-tagger-v3", 0.2606, 1260),
        ("wd-swinv2-tagger-v3", 0.2653, 470),
        ("wd-convnext-tagger-v3", 0.2682, 395),
        ("wd-vit-tagger-v3", 0.2614, 380),
        ("wd-v1-4-moat-tagger-v2", 0.3771, 330),
        ("wd-v1-4-swinv2-tagger-v2", 0.3771, 450),
        ("wd-v1-4-convnextv2-tagger-v2", 0.371, 390),
        ("wd-v1-4-convnext-tagger-v2", 0.3685, 390),
        ("wd-v1-4-vit-tagger-v2", 0.3537, 370),
        ("wd-v1-4-convnext-tagger", 0.35, 390),
        ("wd-v1-4-vit-tagger", 0.35, 370),
    )
)
NAMES = tuple(model.name for model in CATALOGUE)


@dataclass(frozen=True)
class Found:
    """A tagger on this machine: what is known about it, and its two files."""

    about: Model
    model: Path
    tags: Path


def known(name: str) -> Model | None:
    """Return the model of the catalogue with a name, or with its repository's; None for another."""
    return next((model for model in CATALOGUE if name in (model.name, model.repository)), None)


def find(wanted: str, places: Sequence[Path]) -> Found | None:
    """Return where a tagger lies: one of the catalogue by name, or any folder that has one; None if it has to be got.

    places: folders with taggers, ours first; searched as `candidates` says. Raises ConfigError for a text that is
    neither a name nor a folder, and UserError for a folder without a tagger.
    """
    model = known(wanted)
    if model is not None:
        for folder in candidates(model, places):
            found = in_folder(folder, model)
            if found is not None:
                return found
        return None
    folder = Path(wanted).expanduser()
    if not folder.is_dir():
        near = difflib.get_close_matches(wanted, NAMES, n=1, cutoff=0.4)
        hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(NAMES)}."
        raise ConfigError(f"taggers: {wanted!r} is neither a known tagger nor a folder. {hint}")
    found = in_folder(folder)
    if found is None:
        raise UserError(f"{folder}: has no tagger. Choose a folder with {MODEL} and {TAGS}.")
    return found


def in_folder(folder: Path, about: Model | None = None) -> Found | None:
    """Return the tagger in a folder: its `model.onnx` or only .onnx file, with `selected_tags.csv` or its only .csv.

    about: what is known about it; a folder named as a model of the catalogue is taken for that model.
    """
    model, tags = _only(folder, MODEL), _only(folder, TAGS)
    if model is None or tags is None:
        return None
    plain = folder.name.removeprefix(f"{OWNER}_")
    return Found(about or known(plain) or Model(folder.name or "tagger"), model, tags)


def candidates(model: Model, places: Iterable[Path]) -> Iterable[Path]:
    """Yield the folders where programs keep a model: within each of the places, and in the hub's own cache.

    By its name (ours, and `TaggerOnnx` of stable-diffusion-webui-wd14-tagger), as sd-scripts names it in its
    `wd14_tagger_model`, and as huggingface_hub does, which the other extensions use.
    """
    for place in (*places, hub_cache()):
        yield place / model.name
        yield place / model.repository.replace("/", "_")
        yield place / model.repository
        versions = place / f"models--{model.repository.replace('/', '--')}" / "snapshots"
        if versions.is_dir():
            yield from sorted(versions.iterdir(), key=lambda folder: folder.stat().st_mtime, reverse=True)


def hub_cache() -> Path:
    """Return the folder in which huggingface_hub keeps what any program gets through it, as its page says."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or Path(home) / "hub"
    return Path(cache).expanduser()


def _only(folder: Path, name: str) -> Path | None:
    path = folder / name
    if path.is_file():
        return path
    others = [other for other in folder.glob(f"*{path.suffix}") if other.is_file()] if folder.is_dir() else []
    return others[0] if len(others) == 1 else None
