"""Datasets for the tests of dataset tools, and a tool's run in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from lib_lora_trainer.app import dataset_tools
from lib_lora_trainer.app.dataset_tools import Draft, Request
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.events import Finished, Note
from lib_lora_trainer.config.data import DataConfig, SourceConfig
from lib_lora_trainer.dataset.tools.options import OPTIONS


def noise(size, seed=0, mode="RGB"):
    """Return a picture of random pixels."""
    bands = len(mode) if mode != "L" else 1
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], bands), dtype=np.uint8)
    return Image.fromarray(values[..., 0] if bands == 1 else values, mode)


def picture(path: Path, size=(64, 48), caption="sks, red", seed=0, mode="RGB", **saving) -> Path:
    """Save a picture of random pixels, with a caption beside it unless that is None."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise(size, seed, mode).save(path, **saving)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def animation(path: Path, frames=3, caption="moving", size=(16, 12)) -> Path:
    """Save an animation whose frames have one colour each, red rising by 60."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [Image.new("RGB", size, (60 * (number + 1), 10, 10)) for number in range(frames)]
    lossless = {"lossless": True} if path.suffix == ".webp" else {}
    images[0].save(path, save_all=True, append_images=images[1:], duration=100, loop=0, **lossless)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def settings(root: Path, masks: Path | None = None, **data) -> DataConfig:
    """Return settings with one source."""
    source = SourceConfig(str(root), masks=str(masks) if masks else "", **data.pop("source", {}))
    plain = {"resolution": 64, "bucket_minimum": 32, "bucket_step": 8, "bucket_maximum": 256}
    return DataConfig(sources=(source,), **{**plain, **data})


def drafted(tool: str, data: DataConfig, **options) -> Draft:
    """Return what a tool would do."""
    *told, made = dataset_tools.draft(tool, Request(data, OPTIONS[tool](**options)), Control())
    assert isinstance(made, Draft), made
    assert not [event for event in told if isinstance(event, Note) and event.severity == "error"]
    return made


def applied(draft: Draft, files=None) -> Finished:
    """Do it, and return the last event."""
    *_, last = dataset_tools.apply(draft, Control(), files)
    assert isinstance(last, Finished)
    return last


def run(tool: str, data: DataConfig, **options) -> Draft:
    """Do what a tool proposes, and return that."""
    draft = drafted(tool, data, **options)
    assert applied(draft).reason == "done"
    return draft


def undo(root: Path) -> None:
    """Take the latest change back."""
    *_, last = dataset_tools.undo(root)
    assert last.reason == "done"


def names(root: Path) -> set[str]:
    """Return every file below a folder, journal and folders left out."""
    found = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if path.parts[0] != ".lora-trainer"}


def facts(draft: Draft) -> dict[str, dict]:
    """Return what a draft says of each picture after the change, by file name."""
    return {proposal.about.name: dict(proposal.after) for proposal in draft.proposals if proposal.after}
