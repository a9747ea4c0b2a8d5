"""The names of a tagger's outputs: `selected_tags.csv` of the WD14 family."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.tagging.spelling import with_spaces

RATING, GENERAL, CHARACTER = 9, 0, 4
"""The board's numbers of the categories; any other, of taggers beside WD14, counts as general."""


@dataclass(frozen=True)
class Label:
    """One output of a tagger.

    name: with spaces, as captions have it; category: RATING, GENERAL or CHARACTER; count: how often the tag is used on
    the board, 0 where the list does not say.
    """

    name: str
    category: int
    count: int = 0


def read_labels(path: Path) -> tuple[Label, ...]:
    """Return the labels in the order of the model's outputs. Raises DataError that names the file."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = tuple(csv.DictReader(stream))
        return tuple(Label(with_spaces(row["name"]), int(row["category"]), int(row.get("count") or 0)) for row in rows)
    except (OSError, KeyError, ValueError, AttributeError, csv.Error) as error:
        raise DataError(f"{path}: not a tag list ({error!r}). It needs the columns name and category.") from error
