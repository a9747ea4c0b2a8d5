"""What a scan of the dataset's folders finds: pictures, concepts, problems."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from lib_lora_trainer.base.errors import Problem


class Item(NamedTuple):
    """One usable picture with its caption.

    concept: the name of its `Concept`; repeats: exposures per epoch, whole or in thousandths (see `exposures`).
    width, height: pixels, after the EXIF rotation.
    caption: the text to train with, the fallback included; may be empty; lines are kept apart where wildcards are on.
    caption_file: where the text stands; also set for a file without text; None when there is no file.
    source: index of its folder in `data.sources`; regularization: as set there; mask: its mask's file, if it has one.
    """

    path: Path
    concept: str
    repeats: float
    width: int
    height: int
    caption: str
    caption_file: Path | None
    source: int = 0
    regularization: bool = False
    mask: Path | None = None


@dataclass(frozen=True)
class Concept:
    """One folder with usable pictures directly in it.

    name: the folder as shown, from the source's own name on, with forward slashes; unique within a scan.
    repeats: as of its items; images: usable pictures directly in the folder; source, regularization: as of its items.
    """

    name: str
    folder: Path
    repeats: float
    images: int
    source: int = 0
    regularization: bool = False

    @property
    def exposures(self) -> float:
        """Return how many pictures of this concept one epoch shows, on average; an int when it is whole.

        At one resolution, and before regularization images are balanced.
        """
        return whole(self.images * self.repeats)


@dataclass(frozen=True)
class Scan:
    """Everything found; `items` sorted by path, `concepts` by folder, `skipped` holds the pictures left out."""

    items: tuple[Item, ...]
    concepts: tuple[Concept, ...]
    problems: tuple[Problem, ...]
    skipped: tuple[Path, ...]


def whole(number: float) -> float:
    """Return a number of exposures with at most three decimals, as int when it has none."""
    rounded = round(number, 3)
    return int(rounded) if rounded == int(rounded) else rounded
