"""What a scan of the dataset's folders finds: pictures, concepts, problems."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lib_lora_trainer.base.errors import Problem


@dataclass(frozen=True)
class Item:
    """One usable picture with its caption.

    concept: the name of its `Concept`; repeats: exposures per epoch.
    width, height: pixels, after the EXIF rotation.
    caption: the text to train with, the fallback included; may be empty.
    caption_file: where the text stands; also set for a file without text; None when there is no file.
    """

    path: Path
    concept: str
    repeats: int
    width: int
    height: int
    caption: str
    caption_file: Path | None


@dataclass(frozen=True)
class Concept:
    """One folder with usable pictures directly in it.

    name: the folder as shown, from the source's own name on, with forward slashes; unique within a scan.
    images: usable pictures directly in the folder.
    """

    name: str
    folder: Path
    repeats: int
    images: int

    @property
    def exposures(self) -> int:
        """Return how many pictures of this concept one epoch shows."""
        return self.images * self.repeats


@dataclass(frozen=True)
class Scan:
    """Everything found; `items` sorted by path, `concepts` by folder, `skipped` holds the pictures left out."""

    items: tuple[Item, ...]
    concepts: tuple[Concept, ...]
    problems: tuple[Problem, ...]
    skipped: tuple[Path, ...]
