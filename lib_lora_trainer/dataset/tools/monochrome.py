"""How many pictures of each concept are monochrome; too many teach the adapter to draw so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.dataset.formats import DECODER_ERRORS, opened
from lib_lora_trainer.dataset.items import Scan
from lib_lora_trainer.dataset.pixels import upright_rgb

WARNED = 0.5  # of a concept's pictures (the guide on baking: above half is risky, up to 80 % works with negatives)
WORKABLE = 0.8
ANALYSIS = 128  # pixels of the longer side
TINT = 48.0  # of 0 to 180: the strongest even tint that paper and old prints have; sepia is at 41
STRAY = 10.0  # how far a pixel's colour may be from the tint of its brightness
SHARE = 0.98  # of the pixels


def is_monochrome(image: Image.Image) -> bool:
    """Tell whether a picture is grey, or of one tint such as sepia, but for a few pixels.

    In YCbCr: almost no pixel is strongly coloured, and pixels of one brightness have one colour. So a tinted page counts
    and a pale drawing in several colours does not.
    """
    small = image.convert("RGB")
    small.thumbnail((ANALYSIS, ANALYSIS), Image.Resampling.BOX)
    values = np.asarray(small.convert("YCbCr")).reshape(-1, 3).astype(np.float32)
    chroma = values[:, 1:] - 128
    if np.quantile(np.linalg.norm(chroma, axis=1), SHARE) > TINT:
        return False
    stray = np.zeros(len(values), dtype=np.float32)
    levels = (values[:, 0] // 16).astype(int)
    for level in np.unique(levels):
        chosen = levels == level
        stray[chosen] = np.linalg.norm(chroma[chosen] - np.median(chroma[chosen], axis=0), axis=1)
    return bool(np.quantile(stray, SHARE) <= STRAY)


def looked_at(scan: Scan) -> Iterator[tuple[Path, bool]]:
    """Yield each picture that is no regularization image, and whether it is monochrome; unreadable ones are not."""
    for item in scan.items:
        if not item.regularization:
            yield item.path, _file_is_monochrome(item.path)


def _file_is_monochrome(path: Path) -> bool:
    try:
        with opened(path) as image:
            image.draft("RGB", (2 * ANALYSIS, 2 * ANALYSIS))  # a JPEG then decodes at a fraction of its size
            return is_monochrome(upright_rgb(image))
    except DECODER_ERRORS:
        return False  # the scan tells of it


def shares(scan: Scan, monochrome: Mapping[Path, bool]) -> dict[str, float]:
    """Return the share of monochrome pictures, 0 to 1, of each concept that is no regularization."""
    flags: dict[str, list[bool]] = {}
    for item in scan.items:
        if not item.regularization:
            flags.setdefault(item.concept, []).append(monochrome.get(item.path, False))
    return {concept: sum(found) / len(found) for concept, found in flags.items()}


def problems(found: Mapping[str, float]) -> tuple[Problem, ...]:
    """Return a warning for each concept with more monochrome pictures than others."""
    return tuple(
        Problem(
            "warning",
            concept,
            f"{share:.0%} of its pictures are monochrome, so that the adapter may lose colours.",
            "Leave some out, or prompt with monochrome as a negative."
            if share <= WORKABLE
            else f"Leave some out: above {WORKABLE:.0%} negatives do not help any more.",
        )
        for concept, share in sorted(found.items())
        if share > WARNED
    )
