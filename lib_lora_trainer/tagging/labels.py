"""The names of a tagger's outputs: `selected_tags.csv` of the WD14 family."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from lib_lora_trainer.base.errors import DataError

RATING, GENERAL, CHARACTER = 9, 0, 4
# Faces made of punctuation, in which the underscore is part of the drawing.
KAOMOJI = frozenset(
    "0_0 (o)_(o) +_+ +_- ._. <o>_<o> <|>_<|> =_= >_< 3_3 6_9 >_o @_@ ^_^ o_o u_u x_x |_| ||_||".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Label:
    """One output of a tagger. name: with spaces, as captions have it; category: RATING, GENERAL or CHARACTER."""

    name: str
    category: int


def with_spaces(tag: str) -> str:
    """Return a board's tag as captions write it: underscores become spaces, except in kaomoji."""
    return tag if tag in KAOMOJI else tag.replace("_", " ")


def read_labels(path: Path) -> tuple[Label, ...]:
    """Return the labels in the order of the model's outputs. Raises DataError that names the file."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return tuple(Label(with_spaces(row["name"]), int(row["category"])) for row in csv.DictReader(stream))
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path}: not a tag list ({error!r}). It needs the columns name and category.") from error
