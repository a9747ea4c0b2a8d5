"""Block weights: one number for each block of a model, written as 12, 17, 20 or 26 numbers."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lib_lora_trainer.adapters import blocks
from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.base.families import Family
from lib_lora_trainer.base.seeds import derive

_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"(R)|(U)|X([-+].+)?")
_THEIR_MIDDLE = "M00"


@dataclass(frozen=True)
class Vector:
    """The weights of all blocks of a family in the model's order, BASE (text encoders) first."""

    family: Family
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        expected = len(blocks.names(self.family))
        if len(self.values) != expected:
            raise ConfigError(f"{len(self.values)} weights were given; {self.family} has {expected} blocks.")

    def of(self, block: str) -> float:
        """Return a block's weight; 1 for "", layers in no block, which lora-block-weight leaves alone as well."""
        return self.values[blocks.names(self.family).index(block)] if block else 1.0


@dataclass(frozen=True)
class Draws:
    """What the letters in a vector stand for. seed: of R and U; x: of X."""

    seed: int = 0
    x: float = 1.0


FIXED = Draws()  # what R and U draw where nobody gave a seed


def lengths(family: Family) -> tuple[int, int]:
    """Return how many numbers a vector can have for a family: of the blocks with attention, and of all."""
    return (12, 20) if family == "sdxl" else (17, 26)


def order(count: int) -> tuple[str, ...]:
    """Return the blocks that a vector of this many numbers names, as lora-block-weight calls them (M00, not MID)."""
    if count not in blocks.ORDERS:
        raise ConfigError(f"no vector has {count} numbers. Use 12 or 20 for SDXL, 17 or 26 for SD1 and SD2.")
    return tuple(label(block) for block in blocks.ORDERS[count])


def label(block: str) -> str:
    """Return lora-block-weight's name of a block."""
    return _THEIR_MIDDLE if block == blocks.MIDDLE else block


def flat(value: float, family: Family) -> Vector:
    """Return one weight for every block."""
    return Vector(family, (value,) * len(blocks.names(family)))


def from_blocks(weights: Mapping[str, float], family: Family, rest: float = 0.0) -> Vector:
    """Return the vector with these blocks' weights and `rest` everywhere else; M00 and MID both name the middle.

    Raises ConfigError for a block that the family has not.
    """
    named = {blocks.MIDDLE if name == _THEIR_MIDDLE else name: value for name, value in weights.items()}
    unknown = sorted(set(named) - set(blocks.names(family)))
    if unknown:
        raise ConfigError(f"{unknown[0]} is no block of {family}, which has {blocks.existing(family)}.")
    return Vector(family, tuple(named.get(block, rest) for block in blocks.names(family)))


def from_numbers(numbers: Sequence[float], family: Family) -> Vector:
    """Return the vector that 12 or 20 numbers (SDXL), or 17 or 26 (SD1, SD2), stand for.

    Blocks that a short vector does not name get 0, as in lora-block-weight's `to26`. There 17 numbers are taken for SDXL
    too, where they switch off OUT00 to OUT02, its largest blocks, whatever they say, `ALL` included; here that is a
    mistake (test_seventeen_numbers_are_no_vector_for_sdxl).
    """
    if len(numbers) not in lengths(family):
        raise ConfigError(_wrong_count(len(numbers), family))
    return from_blocks(dict(zip(order(len(numbers)), numbers, strict=True)), family)


def parse(text: str, family: Family, draws: Draws = FIXED) -> Vector:
    """Return the vector that a text of numbers and the letters R, U and X stands for.

    R: random between 0 and 1 with three digits; U: random between -0.5 and 1.5, which is what lora-block-weight draws
    (its README says -1.5). Each column's draw is addressed by the seed and the block, so that it can be repeated; there
    it cannot (test_random_weights_can_be_repeated). X, X+0.2, X-0.2: the value x.
    Full-width characters, spaces around commas and a comma at the end are taken. There, what cannot be read means "all
    ones" without a word; here it raises ConfigError naming the column (golden/lbw/vectors.json).
    """
    columns = [column.strip() for column in blocks.plain(text).split(",")]
    if columns[-1] == "":
        columns.pop()
    if not columns:
        raise ConfigError(f"no numbers were given. {_wanted(family)}")
    if len(columns) not in lengths(family):
        raise ConfigError(_wrong_count(len(columns), family, columns))
    named = list(zip(order(len(columns)), columns, strict=True))
    return from_blocks(
        {block: _value(column, index, block, draws) for index, (block, column) in enumerate(named)}, family
    )


def looks_like_one(text: str) -> bool:
    """Tell whether a text is meant as a vector: several columns of which most are numbers or letters that stand for some."""
    columns = [column.strip() for column in blocks.plain(text).split(",")]
    known = [column for column in columns if _NUMBER.fullmatch(column) or _SPECIAL.fullmatch(column)]
    return len(columns) > 2 and 2 * len(known) > len(columns)


def write(vector: Vector, count: int | None = None) -> str:
    """Return a vector as text, which `parse` reads back exactly; count: how many numbers, all blocks when None.

    Raises ConfigError when a block that `count` numbers do not name has a weight other than 0.
    """
    chosen = count or len(vector.values)
    return ",".join(_text(number) for number in numbers(vector, chosen))


def numbers(vector: Vector, count: int) -> tuple[float, ...]:
    """Return a vector's weights in the order of `count` numbers. Raises ConfigError as `write` does."""
    if count not in lengths(vector.family):
        raise ConfigError(_wrong_count(count, vector.family))
    kept = blocks.ORDERS[count]
    lost = [block for block in blocks.names(vector.family) if block not in kept and vector.of(block)]
    if lost:
        raise ConfigError(
            f"{count} numbers do not name {', '.join(lost)}, which have weights. Write {max(lengths(vector.family))}."
        )
    return tuple(vector.of(block) for block in kept)


def complement(vector: Vector) -> Vector:
    """Return 1 - w for every block: what lora-block-weight calls ZYX."""
    return Vector(vector.family, tuple(1 - value for value in vector.values))


def multiply(vector: Vector, factor: float) -> Vector:
    """Return every weight times a factor."""
    return Vector(vector.family, tuple(value * factor for value in vector.values))


def _value(column: str, index: int, block: str, draws: Draws) -> float:
    where = f"column {index + 1} ({block})"
    special = _SPECIAL.fullmatch(column)
    if special is None:
        return _number(column, where)
    drawn = random.Random(derive(draws.seed, f"block weight {block}"))
    if special[1]:
        return round(drawn.random(), 3)
    if special[2]:
        return round(drawn.uniform(-0.5, 1.5), 3)
    return draws.x + (_number(special[3], where) if special[3] else 0.0)


def _number(text: str, where: str) -> float:
    if not text:
        raise ConfigError(f"{where} is empty: two commas follow one another. Write a number, 0 to leave the block out.")
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        hint = " Write a decimal point and separate columns by commas." if " " in text or ";" in text else ""
        raise ConfigError(f"{where}: {text!r} is no number. Write one such as 0.5, or R, U or X.{hint}")
    return float(text)


def _text(number: float) -> str:
    return repr(int(number)) if number == int(number) and abs(number) < 1e15 else repr(number)


def _wanted(family: Family) -> str:
    short, full = lengths(family)
    return f"For {family} write {short} ({', '.join(order(short))}) or {full} (every block)."


def _wrong_count(count: int, family: Family, columns: Sequence[str] = ()) -> str:
    other = f", which is a vector for {'SD1 and SD2' if family == 'sdxl' else 'SDXL'}" if count in blocks.ORDERS else ""
    joined = any(re.search(r"\d[\s;]+[-+.\d]", column) for column in columns)
    hint = " Separate them by commas." if joined else ""
    return f"it has {count} number{'' if count == 1 else 's'}{other}. {_wanted(family)}{hint}"
