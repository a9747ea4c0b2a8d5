"""Findings about many pictures, each told in one sentence with a count and the first few names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lib_lora_trainer.base.errors import Problem, Severity
from lib_lora_trainer.config.data import DataConfig
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.formats import FORMATS, Facts
from lib_lora_trainer.dataset.items import Item

SHOWN = 5


def named(paths: Sequence[Path]) -> str:
    """Return the first five file names and how many more there are."""
    names = ", ".join(printable(Path(path.name)) for path in paths[:SHOWN])
    return f"{names} and {len(paths) - SHOWN} more" if len(paths) > SHOWN else names


def counted(paths: Sequence[Path], total: int) -> str:
    """Return `3 of 24 pictures`."""
    return f"{len(paths)} of {total} pictures"


def about_pictures(facts: Sequence[tuple[Path, Facts]], where: str) -> list[Problem]:
    """Return notes about how the usable pictures of one source are converted."""
    total = len(facts)
    transparent = [path for path, fact in facts if fact.transparent]
    cmyk = [path for path, fact in facts if fact.cmyk]
    deep = [path for path, fact in facts if fact.deep]
    damaged = [path for path, fact in facts if fact.exif_unreadable]
    misnamed = [path for path, fact in facts if fact.format not in FORMATS[path.suffix.lower()]]
    told: tuple[tuple[Severity, list[Path], str, str], ...] = (
        ("note", transparent, "have transparent areas, which become white", ""),
        ("note", cmyk, "are CMYK and are converted without their colour profile", ""),
        ("note", deep, "have 16 bits per channel and are reduced to 8", ""),
        ("note", misnamed, "are of another format than their extension says, and are used", ""),
        ("warning", damaged, "have damaged EXIF data and may lie on their side", "Look at them; save them anew."),
    )
    return [
        Problem(severity, where, f"{counted(paths, total)} {text}: {named(paths)}.", fix)
        for severity, paths, text, fix in told
        if paths
    ]


def about_captions(
    lacking: tuple[Sequence[Path], Sequence[Path]], fallback: str, total: int, where: str
) -> list[Problem]:
    """Return warnings about pictures of one source without a caption file, and with one that holds no text.

    lacking: those without a file, those with an empty one; fallback: what they are trained with.
    """
    problems = []
    instead = f"are trained with {fallback!r}" if fallback else "are trained without any text"
    for paths, lack in zip(lacking, ("no caption file", "an empty caption file"), strict=True):
        if paths:
            text = f"{counted(paths, total)} have {lack} and {instead}: {named(paths)}."
            problems.append(Problem("warning", where, text, "Write captions, or set the caption when missing."))
    return problems


def about_orphans(orphans: Sequence[Path], where: str) -> list[Problem]:
    """Return a note about caption files beside which there is no picture."""
    if not orphans:
        return []
    text = f"caption files that belong to no picture are ignored, {len(orphans)} in all: {named(orphans)}."
    return [Problem("note", where, text)]


def about_sizes(items: Sequence[Item], data: DataConfig) -> list[Problem]:
    """Return a warning when pictures have fewer pixels than the training resolution asks for."""
    size = data.resolution
    if data.bucket:
        small = [item.path for item in items if item.width * item.height < size * size]
        lack = f"have fewer pixels than {size}×{size}"
    else:
        small = [item.path for item in items if min(item.width, item.height) < size]
        lack = f"have a side shorter than {size}"
    if not small:
        return []
    result = "will be trained at a smaller size" if data.bucket and data.no_upscale else "will be enlarged"
    text = f"{counted(small, len(items))} {lack} and {result}: {named(small)}."
    return [Problem("warning", "data.resolution", text, "Lower the resolution, or use larger pictures.")]
