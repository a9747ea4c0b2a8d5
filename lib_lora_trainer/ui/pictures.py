"""Pictures in the page: where the browser finds one, and sample images by epoch."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.base.events import SampleMade
from lib_lora_trainer.dataset.thumbnails import thumbnail


def samples(made: Sequence[SampleMade], project: Path) -> str:
    """Return sample images as HTML: a row per prompt, its images in the order of their steps."""
    by_prompt: dict[tuple[str, int], dict[int, SampleMade]] = {}
    for sample in made:
        by_prompt.setdefault((sample.prompt, sample.seed), {})[sample.step] = sample
    rows = ""
    for (prompt, seed), images in by_prompt.items():
        cells = "".join(_sample(image, project) for _, image in sorted(images.items()))
        rows += (
            f"<section><h4>{escape(prompt) or 'empty prompt'} <small>seed {seed}</small></h4>"
            f'<div class="lora-trainer-strip">{cells}</div></section>'
        )
    return f'<div class="lora-trainer-samples">{rows}</div>' if rows else ""


def _sample(sample: SampleMade, project: Path) -> str:
    path = Path(sample.path)
    label = f"epoch {sample.epoch} · step {sample.step}" if sample.step else "before training"
    if not _inside(path, project) or not path.is_file():
        return f'<figure><div class="lora-trainer-broken">moved away</div><figcaption>{label}</figcaption></figure>'
    small = address(thumbnail(path, project / "cache" / "thumbnails", 384), project)
    whole = address(path, project)
    return (
        f'<figure><img loading="lazy" src="{small}" data-whole="{whole}" alt="{label}" tabindex="0">'
        f"<figcaption>{label}</figcaption></figure>"
    )


def address(path: Path, folder: Path) -> str:
    """Return where the page finds a picture that lies in a project's folder.

    Gradio serves nothing below a folder whose name begins with a dot; the picture then travels inside the page.
    Raises DataError for a path outside the project: no other file of the machine is ever sent.
    """
    if not _inside(path, folder):
        raise DataError(f"{path}: is not in the project's folder, so it is not shown.")
    if any(part.startswith(".") for part in path.resolve().parts):
        kind = "png" if path.suffix.lower() == ".png" else "jpeg"
        return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
    return "file=" + quote(path.resolve().as_posix())


def _inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())
