"""What taggers said about pictures, kept beside a dataset: by content, so that names and folders play no part.

One file a tagger, `<name>-<first digits of its digest>.npz`, written whole or not at all:

    about      JSON: version, tagger, its digest and the pipeline that prepared the pictures
    names      the tagger's tags, one a line as captions have them; categories: the board's numbers, int32 (labels,)
    digests    SHA-256 of the pictures' contents, uint8 (pictures, 32)
    starts     where each picture's scores begin, int64 (pictures + 1,)
    columns    numbers of tags, int32; values: their scores, float32, as the model gave them

Of a picture all ratings are kept, all scores from `FLOOR` on, and in each category the highest one below it, so that
every gap between kept scores is one between neighbours.
"""

from __future__ import annotations

import functools
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lib_lora_trainer.base.files import replacing, sha256
from lib_lora_trainer.tagging.labels import CHARACTER, RATING, Label
from lib_lora_trainer.tagging.models import Found
from lib_lora_trainer.tagging.preprocess import PIPELINE

VERSION = 1
FLOOR = 0.01
DIGITS = 12
_UNUSUAL = re.compile(r"[^\w.-]+")

Sparse = tuple[NDArray[np.int32], NDArray[np.float32]]
"""Numbers of tags, ascending, and their scores."""


@dataclass(frozen=True)
class Scored:
    """What one tagger said about a picture: scores in [0, 1] by tag as captions have it, the highest first.

    Tags that are absent have scores below 0.01.
    """

    model: str
    general: Mapping[str, float]
    character: Mapping[str, float]
    rating: Mapping[str, float]


@dataclass(frozen=True)
class Kept:
    """What one tagger said about many pictures. tagger: its name; identity: its files and how pictures are prepared."""

    tagger: str
    identity: str
    labels: tuple[Label, ...]
    pictures: dict[str, Sparse] = field(default_factory=dict)

    def keep(self, digest: str, row: NDArray[np.float32]) -> None:
        """Keep the scores of a picture's content; row: (labels,) in [0, 1]."""
        self.pictures[digest] = sparse(row, self._categories)

    @functools.cached_property
    def _categories(self) -> NDArray[np.int_]:
        return np.array([label.category for label in self.labels])

    def scored(self, digest: str) -> Scored | None:
        """Return what the tagger said about a content; None when it has not seen it."""
        if digest not in self.pictures:
            return None
        columns, values = self.pictures[digest]
        order = np.argsort(-values, kind="stable")
        found: dict[int, dict[str, float]] = {}
        for column, value in zip(columns[order].tolist(), values[order].tolist(), strict=True):
            label = self.labels[column]
            kind = label.category if label.category in (RATING, CHARACTER) else 0
            found.setdefault(kind, {})[label.name] = value
        return Scored(self.tagger, found.get(0, {}), found.get(CHARACTER, {}), found.get(RATING, {}))


class Scores:
    """Everything that is kept about the pictures of a dataset."""

    def __init__(self, kept: Iterable[Kept], digest: Callable[[Path], str]) -> None:
        """digest: returns the SHA-256 of a file's content as hexadecimal digits."""
        self.kept = tuple(kept)
        self._digest = digest

    def of(self, path: Path) -> tuple[Scored, ...]:
        """Return what each tagger said about a picture as it is now; nothing when none has seen its content."""
        digest = self._digest(path)
        return tuple(scored for each in self.kept if (scored := each.scored(digest)) is not None)


def load(folder: Path, digest: Callable[[Path], str]) -> Scores:
    """Return what is kept in a folder, to be looked at; files that are damaged or of another version count as absent.

    Of several versions of one tagger the one that was written last comes first. A file is read once while it stays as
    it is.
    """
    files = sorted(((path.stat(), path) for path in folder.glob("*.npz")), key=lambda each: -each[0].st_mtime_ns)
    found = (_unchanged(path, (about.st_ino, about.st_size, about.st_mtime_ns)) for about, path in files)
    return Scores(filter(None, found), digest)


@functools.lru_cache(maxsize=8)
def _unchanged(path: Path, _identity: tuple[int, ...]) -> Kept | None:
    return read(path)


def identity(found: Found) -> str:
    """Return what decides a tagger's answers: the digest of its two files, and the preparation of pictures.

    A file is read once, as long as its length and modification time stay as they are.
    """
    digests = []
    for path in (found.model, found.tags):
        about = path.stat()
        digests.append(_digest(path, about.st_size, about.st_mtime_ns))
    return f"{'-'.join(digests)}-{PIPELINE}"


@functools.lru_cache(maxsize=64)
def _digest(path: Path, _size: int, _modified: int) -> str:
    return sha256(path)


def path_of(folder: Path, tagger: str, identity: str) -> Path:
    """Return where a tagger's scores are kept."""
    plain = _UNUSUAL.sub("_", tagger)[:80]
    return folder / f"{plain}-{identity[:DIGITS]}.npz"


def sparse(row: NDArray[np.float32], categories: NDArray[np.int_]) -> Sparse:
    """Return the scores worth keeping, as the file's docstring says."""
    wanted = (row >= FLOOR) | (categories == RATING)
    for category in np.unique(categories).tolist():
        below = np.flatnonzero((categories == category) & ~wanted)
        if len(below):
            wanted[below[np.argmax(row[below])]] = True
    columns = np.flatnonzero(wanted)
    return columns.astype(np.int32), row[columns].astype(np.float32)


def read(path: Path) -> Kept | None:
    """Return what a file keeps; None for one that is absent, damaged or of another version."""
    try:
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(bytes(file["about"]))
            if about["version"] != VERSION:
                return None
            names = bytes(file["names"]).decode("utf-8").split("\n")
            categories, starts = file["categories"].tolist(), file["starts"].tolist()
            columns, values = file["columns"], file["values"]
            digests = [row.tobytes().hex() for row in file["digests"]]
        labels = tuple(Label(name, category) for name, category in zip(names, categories, strict=True))
        spans = zip(digests, starts[:-1], starts[1:], strict=True)
        pictures = {digest: (columns[start:end], values[start:end]) for digest, start, end in spans}
        if len(columns) != len(values) or (len(columns) and not 0 <= columns.min() <= columns.max() < len(labels)):
            return None
        return Kept(about["tagger"], about["identity"], labels, pictures)
    except (OSError, ValueError, LookupError, TypeError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


def write(folder: Path, kept: Kept) -> None:
    """Write what a tagger said, together with what another process has kept meanwhile. Raises OSError."""
    path = path_of(folder, kept.tagger, kept.identity)
    other = read(path)
    earlier = other.pictures if other is not None and other.identity == kept.identity else {}
    pictures = {**earlier, **kept.pictures}
    if not pictures:
        return
    about = {"version": VERSION, "tagger": kept.tagger, "identity": kept.identity}
    spans = list(pictures.values())
    content = {
        "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
        "names": np.frombuffer("\n".join(label.name for label in kept.labels).encode(), np.uint8),
        "categories": np.array([label.category for label in kept.labels], np.int32),
        "digests": np.frombuffer(bytes.fromhex("".join(pictures)), np.uint8).reshape(-1, 32),
        "starts": np.cumsum([0, *(len(columns) for columns, _ in spans)], dtype=np.int64),
        "columns": np.concatenate([np.zeros(0, np.int32), *(columns for columns, _ in spans)]),
        "values": np.concatenate([np.zeros(0, np.float32), *(values for _, values in spans)]),
    }
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **content)
