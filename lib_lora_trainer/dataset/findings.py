"""Findings about many pictures, each told in one sentence with a count and the first few names."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from pathlib import Path

from lib_lora_trainer.base.errors import ConfigError, Problem, Severity
from lib_lora_trainer.config.data import DataConfig, SourceConfig
from lib_lora_trainer.dataset.buckets import bucket_sizes, resolutions
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.faces import crops_faces, face_in
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


def about_pictures(pictures: Sequence[Path], facts: Sequence[Facts], where: str) -> list[Problem]:
    """Return notes about how the usable pictures of one source are converted. facts: of each picture."""
    total = len(pictures)
    transparent = list(compress(pictures, (fact.transparent for fact in facts)))
    cmyk = list(compress(pictures, (fact.cmyk for fact in facts)))
    deep = list(compress(pictures, (fact.deep for fact in facts)))
    damaged = list(compress(pictures, (fact.exif_unreadable for fact in facts)))
    both = zip(pictures, facts, strict=True)
    misnamed = [path for path, fact in both if fact.format not in FORMATS[path.suffix.lower()]]
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


def about_opacity(facts: Sequence[Facts], source: SourceConfig, where: str) -> list[Problem]:
    """Return a warning when masks are to come from transparency and no picture of a source has any, or may have."""
    if not source.alpha_masks or not facts or any(fact.transparent is not False for fact in facts):
        return []
    text = "no picture has transparent areas, so all of each is learned."
    return [Problem("warning", where, text, "Switch it off, or use pictures whose background is transparent.")]


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
    """Return a warning for each resolution for which pictures have too few pixels."""
    problems = []
    usual = [item for item in items if data.sources[item.source].resolution is None]
    for where, size in resolutions(data):
        trained: Sequence[Item] = usual
        if where.startswith("data.sources["):
            trained = [item for item in items if where == f"data.sources[{item.source}].resolution"]
        small = _too_small(trained, size, data)
        if small:
            lack = f"have fewer pixels than {size}×{size}" if data.bucket else f"have a side shorter than {size}"
            result = "will be trained at a smaller size" if data.bucket and data.no_upscale else "will be enlarged"
            text = f"{counted(small, len(trained))} {lack} and {result}: {named(small)}."
            problems.append(Problem("warning", where, text, "Lower the resolution, or use larger pictures."))
    return problems


def _too_small(items: Sequence[Item], size: int, data: DataConfig) -> list[Path]:
    if data.bucket:
        exact = _sizes(data, size)  # some have fewer pixels than the square, and a picture made for one is not enlarged
        return [
            item.path
            for item in items
            if item.width * item.height < size * size and (item.width, item.height) not in exact
        ]
    return [item.path for item in items if min(item.width, item.height) < size]


def _sizes(data: DataConfig, size: int) -> frozenset[tuple[int, int]]:
    try:
        return frozenset((bucket.width, bucket.height) for bucket in bucket_sizes(data, size))
    except ConfigError:  # impossible settings have problems of their own in the plan
        return frozenset()


def about_faces(items: Sequence[Item], data: DataConfig) -> list[Problem]:
    """Return a note about the pictures that cannot be cropped around a face, where that is wanted."""
    if not crops_faces(data):
        return []
    without = [item.path for item in items if face_in(item.path, item.width, item.height) is None]
    if not without:
        return []
    text = f"{counted(without, len(items))} have no face in their names and are cropped as usual: {named(without)}."
    return [Problem("note", "data.face_crop_minimum", text)]
