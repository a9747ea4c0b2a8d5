"""Which pictures of a scan a filter lets through."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from pathlib import Path, PurePath

from lib_lora_trainer.app import tag_jobs
from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.base.files import sha256
from lib_lora_trainer.captions import query, text
from lib_lora_trainer.captions.text import key
from lib_lora_trainer.dataset.entries import absolute
from lib_lora_trainer.tagging.scores import Scores
from lib_lora_trainer.ui import captions_tokens
from lib_lora_trainer.ui.gallery_index import Picture
from lib_lora_trainer.ui.scans import Known

_OF_SCORES = ("score:", "has:scores")


def narrowed(known: Known, wanted: str, within: Collection[str]) -> Collection[Picture]:
    """Return the pictures that fit a filter, of those with the paths in `within`; "" and nothing let all through.

    Raises QueryError naming the column.
    """
    pictures = known.pictures.values()
    if within:
        chosen = set(within)
        pictures = [picture for picture in pictures if str(picture.path) in chosen]  # type: ignore[assignment]
    if not wanted.strip():
        return pictures
    fits, marks = query.compiled(wanted), text.marks_of(known.data.caption)
    counter = _tokens if captions_tokens.count("") is not None else None
    scores = _Scores(known)
    return [
        picture
        for picture in pictures
        if fits(
            query.Record(
                PurePath(picture.folder, picture.path.name),
                text.parse("" if picture.caption in ("none", "empty") else picture.text, marks),
                functools.partial(scores.of, picture),
                picture.caption != "none",
                counter,
            )
        )
    ]


def _tokens(caption: str) -> int:
    counted = captions_tokens.count(caption)
    return counted.tokens if counted else 0


def digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, read once as long as its length and modification time stay as they are.

    Raises DataError naming a file that cannot be read.
    """
    try:
        about = path.stat()
        return _digest(path, about.st_size, about.st_mtime_ns)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}. Scan the folder again.") from error


@functools.lru_cache(maxsize=100_000)
def _digest(path: Path, _size: int, _modified: int) -> str:
    return sha256(path)


class _Scores:
    """What taggers said about the pictures of a scan, looked up only when a filter asks."""

    def __init__(self, known: Known) -> None:
        self._known = known

    def of(self, picture: Picture) -> Mapping[str, float] | None:
        """Return the scores of a picture by what tags are compared by, of several taggers the highest."""
        kept = self._kept[picture.source]
        if picture.state != "used" or not kept.kept:
            return None
        try:
            said = kept.of(picture.path)
        except DataError:  # changed since the scan; the next one tells
            return None
        best: dict[str, float] = {}
        for scored in said:
            for name, score in (*scored.general.items(), *scored.character.items()):
                best[key(name)] = max(score, best.get(key(name), 0.0))
        return best if said else None

    @functools.cached_property
    def _kept(self) -> tuple[Scores, ...]:
        roots = [absolute(source.path) for source in self._known.data.sources]
        return tuple(Scores(tag_jobs.kept_scores(root).kept, digest) for root in roots)
