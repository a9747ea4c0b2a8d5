"""A small training dataset to make regularization images for, and what tests do with it in one line."""

from __future__ import annotations

from pathlib import Path

from lib_lora_trainer.app import reg_jobs
from lib_lora_trainer.app.reg_jobs import Draft, Request
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.events import Event
from lib_lora_trainer.config.data import CaptionConfig, DataConfig, SourceConfig
from lib_lora_trainer.config.regularization import RegularizationConfig
from lib_lora_trainer.config.run import RunConfig
from tool_cases import picture

QUICK = RegularizationConfig(steps=2, guidance=3.0, sampler="Euler", negative="blurry, (bad:1.2)")
CAPTIONS = {
    "10_mikori/one.png": ((96, 96), "mikori, 1girl, red_hair, smile"),
    "10_mikori/two.jpg": ((60, 130), "mikori, 1girl, red_hair, smile"),
    "10_mikori/three.png": ((160, 80), "1girl, mikori, hat (large)"),
    "5_other/four.png": ((100, 100), "mikori, forest, AND:2"),
}


def dataset(root: Path) -> Path:
    """Write four pictures of three shapes in two concepts, and return their folder."""
    for seed, (name, (size, caption)) in enumerate(CAPTIONS.items()):
        picture(root / name, size, caption=caption, seed=seed)
    return root


def config(*roots: Path, **caption: object) -> RunConfig:
    """Return a run on folders of pictures at 96 pixels, buckets in steps of 32."""
    data = DataConfig(
        sources=tuple(SourceConfig(str(root)) for root in roots), resolution=96, bucket_minimum=64, bucket_maximum=192,
        bucket_step=32, caption=CaptionConfig(**caption),  # type: ignore[arg-type]
    )  # fmt: skip
    return RunConfig(triggers=("mikori",), data=data)


def drafted(host, request: Request) -> Draft:
    """Return the draft of a request."""
    return list(reg_jobs.draft(host, request, Control()))[-1]  # type: ignore[return-value]


def generated(host, request: Request, control: Control | None = None) -> list[Event]:
    """Make what a request asks for, and return the events."""
    return list(reg_jobs.generate(host, request, control or Control()))


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder with their bytes, the journal's own left out."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".lora-trainer" not in path.parts
    }
