"""How often a folder's pictures are shown: the number in front of its name, and the factor in its `multiply.txt`."""

from __future__ import annotations

import math
import re
from pathlib import Path

from lib_lora_trainer.base.errors import DataError, Problem
from lib_lora_trainer.dataset.caption_files import read_caption
from lib_lora_trainer.dataset.entries import printable

MAXIMUM_REPEATS = 10_000  # as in SourceConfig.repeats
LIKELY_A_YEAR = 1000
MULTIPLY_FILE = "multiply.txt"
_PREFIX = re.compile(r"([0-9]+)_")


def number_in_name(name: str) -> int | None:
    """Return the number in front of a folder's name, as in `10_sks` or `17_characters~fanart~Name`, else None."""
    match = _PREFIX.match(name)
    return int(match.group(1)) if match else None


def words_in_name(name: str) -> str:
    """Return a folder's name without the number in front of it."""
    return _PREFIX.sub("", name, count=1)


def from_name(folder: Path, inherited: int) -> tuple[int, tuple[Problem, ...]]:
    """Return the repeats that a folder's name gives, `inherited` if it gives none, and what is odd about it."""
    number = number_in_name(folder.name)
    if number is None:
        return inherited, ()
    if number > MAXIMUM_REPEATS:
        text = f"{number} is too large for repeats; it is taken as part of the name, and repeats are {inherited}."
        fix = f"Rename it to begin with 1_ to {MAXIMUM_REPEATS}_."
        return inherited, (Problem("warning", printable(folder), text, fix),)
    if number >= LIKELY_A_YEAR:
        text = f"the number in front of the name makes {number} repeats of every picture."
        return number, (Problem("warning", printable(folder), text, "Rename the folder if it is a year."),)
    return number, ()


def factor_in_file(path: Path) -> float:
    """Return the number in a `multiply.txt`, rounded to three decimals. Raises DataError that names the file.

    As in EveryDream (EveryDream2trainer, doc/BALANCING.md) it multiplies the pictures directly in its folder and does
    not reach into folders inside it; it multiplies the repeats that the folder has otherwise. 0 switches the folder
    off, which EveryDream has no word for. What a fraction means for each picture: see `exposures`.
    """
    text, _ = read_caption(path)
    try:
        number = float(text)
    except ValueError:
        raise DataError(f"{path}: {text[:40]!r} is not a number. Write one number into it, such as 2 or 0.5.") from None
    if not 0 <= number <= MAXIMUM_REPEATS or math.isnan(number):
        raise DataError(f"{path}: {text[:40]} is out of range. Write a number from 0.001 to {MAXIMUM_REPEATS}.")
    if 0 < number < 0.001:
        raise DataError(f"{path}: {text[:40]} is too small. Write 0.001 or more, or 0 to leave the folder out.")
    return round(number, 3)
