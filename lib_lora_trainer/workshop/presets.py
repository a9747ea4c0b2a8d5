"""Named block weights: those that come with the program, and files in lora-block-weight's format."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lib_lora_trainer.adapters import blocks
from lib_lora_trainer.base.errors import ConfigError, DataError
from lib_lora_trainer.base.families import Family
from lib_lora_trainer.base.files import write_bytes
from lib_lora_trainer.workshop import vectors
from lib_lora_trainer.workshop.vectors import Draws, Vector

FILE = "lbwpresets.txt"  # in lora-block-weight's folder `scripts`
_COUNTS = (12, 17, 20, 26, 61)  # 61 is for Flux, which is no family here: kept in the file, never offered
_COLUMNS = re.compile(r"[0-9RUX.]\s*[,;\s]")
_NOT = re.compile(r"NOT\s+(.+)", re.DOTALL)

# lora-block-weight's DEF_WEIGHT_PRESET at b403cb7: which of 17 columns are 1.
_SD = {
    "NONE": (),
    "ALL": tuple(range(17)),
    "INS": (0, 1, 2, 3),
    "IND": (0, 4, 5, 6),
    "INALL": tuple(range(7)),
    "MIDD": (0, *range(4, 12)),
    "OUTD": (0, *range(8, 12)),
    "OUTS": (0, *range(12, 17)),
    "OUTALL": (0, *range(8, 17)),
}
# The same names for SDXL, over all 20 blocks, which lora-block-weight lacks. D (deep) are the blocks at a quarter of the
# latent's size, whose transformers have ten layers; S (shallow) those above, of two layers or none. So a layer is in
# exactly one of INS, IND, M00, OUTD, OUTS (test_sdxl_presets_split_the_model).
_SDXL_PARTS = {
    "INS": tuple(f"IN{number:02d}" for number in range(6)),
    "IND": ("IN06", "IN07", "IN08"),
    "M00": ("M00",),
    "OUTD": ("OUT00", "OUT01", "OUT02"),
    "OUTS": tuple(f"OUT{number:02d}" for number in range(3, 9)),
}
_SDXL = {
    "ALL": ("INS", "IND", "M00", "OUTD", "OUTS"),
    "INS": ("INS",),
    "IND": ("IND",),
    "INALL": ("INS", "IND"),
    "MIDD": ("IND", "M00", "OUTD"),
    "OUTD": ("OUTD",),
    "OUTS": ("OUTS",),
    "OUTALL": ("OUTD", "OUTS"),
}


@dataclass(frozen=True)
class Line:
    """One line of a preset file. raw: as it is there, its end included; name: "" for a line that is no preset."""

    raw: str
    name: str = ""
    text: str = ""

    @property
    def count(self) -> int:
        """How many columns the preset has."""
        return self.text.count(",") + 1


@dataclass(frozen=True)
class Presets:
    """The lines of a preset file, in its order; lines that are no preset are kept."""

    lines: tuple[Line, ...] = ()

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the vectors of this name, the last one first: it wins where several fit."""
        return tuple(line.text for line in reversed(self.lines) if line.name == name)

    def names(self, family: Family) -> tuple[str, ...]:
        """Return every name that can be used for a family: those of the program first, each once."""
        fitting = [line.name for line in self.lines if line.name and line.count in vectors.lengths(family)]
        return tuple(dict.fromkeys([*built_in(family), *fitting]))


def built_in(family: Family) -> dict[str, Vector]:
    """Return the presets that come with the program: NONE, ALL, INS, IND, INALL, MIDD, OUTD, OUTS, OUTALL, ALL0.5."""
    if family == "sdxl":
        found = {
            name: vectors.from_blocks(
                {"BASE": 1.0, **{block: 1.0 for part in parts for block in _SDXL_PARTS[part]}}, family
            )
            for name, parts in _SDXL.items()
        }
        return {"NONE": vectors.flat(0.0, family), **found, "ALL0.5": vectors.flat(0.5, family)}
    found = {
        name: vectors.from_numbers([float(column in ones) for column in range(17)], family)
        for name, ones in _SD.items()
    }
    return {**found, "ALL0.5": vectors.from_numbers([0.5] * 17, family)}


def parse_file(text: str) -> Presets:
    """Return the lines of a preset file.

    A line counts as `NAME:w,w,…` under lora-block-weight's rules: it has a colon, no # anywhere, and 12, 17, 20, 26 or
    61 columns.
    """
    return Presets(tuple(_line(raw) for raw in text.splitlines(keepends=True)))


def write_file(presets: Presets) -> str:
    """Return the text of a preset file: lines that were not changed are as they were, byte for byte."""
    return "".join(line.raw for line in presets.lines)


def read(path: Path) -> Presets:
    """Return the presets of a file; none where it does not exist. Raises DataError when it is no UTF-8 text."""
    if not path.exists():
        return Presets()
    try:
        return parse_file(path.read_bytes().decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as presets ({error}). Save it as UTF-8 text.") from error


def named(path: Path) -> Path:
    """Return a file that was named to be read. Raises ConfigError where there is none."""
    if not path.is_file():
        raise ConfigError(f"presets: there is no file {path}. Give the path of one, or leave it empty.")
    return path


def read_all(paths: Iterable[Path]) -> Presets:
    """Return the presets of several files, of which the last one counts. Raises DataError as `read`."""
    return Presets(tuple(line for path in paths for line in read(path).lines))


def save(path: Path, presets: Presets) -> None:
    """Write a preset file atomically."""
    write_bytes(path, write_file(presets).encode("utf-8"))


def with_preset(presets: Presets, name: str, vector: Vector) -> Presets:
    """Return the presets with this one added, or in the place of the last of its name and size; other lines stay.

    Raises ConfigError for a name that the format cannot hold.
    """
    if not name or name != name.strip() or re.search(r"[:#,=<>\r\n]", name) or name.startswith("NOT "):
        raise ConfigError(f"{name!r} cannot be a preset's name. Use letters and digits, without : # , = < > or NOT.")
    text = vectors.write(vector)
    end = next((line.raw[len(line.raw.rstrip("\r\n")) :] for line in presets.lines if line.raw.endswith("\n")), "\n")
    made = Line(f"{name}:{text}{end}", name, text)
    places = [
        index
        for index, line in enumerate(presets.lines)
        if line.name == name and line.count in vectors.lengths(vector.family)
    ]
    lines = list(presets.lines)
    if places:
        lines[places[-1]] = made
        return Presets(tuple(lines))
    if lines and not lines[-1].raw.endswith("\n"):
        lines[-1] = Line(lines[-1].raw + end, lines[-1].name, lines[-1].text)
    return Presets((*lines, made))


def choose(text: str, family: Family, presets: Presets | None = None, draws: Draws = vectors.FIXED) -> Vector:
    """Return what a preset's name, a vector, blocks and ranges (`IN04-07,MID`) or `NOT` before any of them stands for.

    A name is looked for first in the file, the last one with a fitting number of columns, then among the program's own.
    A file's line that is lora-block-weight's own for SD1 does not hide the SDXL preset of that name. Blocks that are
    named get 1, the others 0. Raises ConfigError that says what is wrong and what there is.
    """
    presets = presets or Presets()
    plain = blocks.plain(text).strip()
    negated = _NOT.fullmatch(plain)
    if negated is not None:
        return vectors.complement(choose(negated[1], family, presets, draws))
    if not plain:
        raise ConfigError(f"no block weights were given. {_known(family, presets)}")
    own = built_in(family)
    texts = presets.texts(plain)
    fitting = [each for each in texts if each.count(",") + 1 in vectors.lengths(family)]
    if fitting:
        return _of_preset(plain, fitting[0], family, draws)
    if plain in own:
        return own[plain]
    if texts:
        raise ConfigError(
            f"preset {plain}: it has {texts[0].count(',') + 1} numbers, and {family} takes "
            f"{' or '.join(map(str, vectors.lengths(family)))}. Add a preset of that size under the same name."
        )
    if vectors.looks_like_one(plain) or (_COLUMNS.search(plain) and not _has_block(plain)):
        return vectors.parse(plain, family, draws)
    return _named_blocks(plain, family, presets)


def _of_preset(name: str, text: str, family: Family, draws: Draws) -> Vector:
    try:
        return vectors.parse(text, family, draws)
    except ConfigError as error:
        raise ConfigError(f"preset {name}: {error}") from error


def _has_block(text: str) -> bool:
    return re.search(r"\b((IN|OUT)(\d|\b)|(MID|M00|BASE|TE|ALL)\b)", text.upper()) is not None


def _named_blocks(text: str, family: Family, presets: Presets) -> Vector:
    if not _has_block(text) or text.upper() in map(str.upper, presets.names(family)):
        raise ConfigError(f"{text!r} is no preset.{_near(text, presets.names(family))} {_known(family, presets)}")
    try:
        chosen = blocks.parse(text, family)
    except ConfigError as error:
        raise ConfigError(f"{text!r} is no preset, and no blocks: {error} {_known(family, presets)}") from error
    return vectors.from_blocks(dict.fromkeys(chosen, 1.0), family)


def _near(text: str, names: Sequence[str]) -> str:
    by_case = {name.upper(): name for name in names}
    near = difflib.get_close_matches(text.upper(), by_case, n=1, cutoff=0.6)
    return f" Did you mean {by_case[near[0]]}?" if near else ""


def _known(family: Family, presets: Presets) -> str:
    return f"There are {', '.join(presets.names(family))}; or write a vector, or blocks such as IN04-07,MID."


def _line(raw: str) -> Line:
    name, colon, text = raw.strip().lstrip("\ufeff").partition(":")
    if not colon or "#" in raw or text.count(",") + 1 not in _COUNTS:
        return Line(raw)
    return Line(raw, name.strip(), text.strip())
