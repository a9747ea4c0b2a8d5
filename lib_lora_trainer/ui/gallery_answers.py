"""What the page's script asks about the pictures, and the answers: both JSON, through the events of the page.

A question has a `kind`:

    index   `filter`, and `selected` paths: the pictures that a filter lets through, as small rows; which of the selected
            are still there
    window  `paths`: thumbnail, caption and what is to be said of the pictures in sight
    whole   `path`: one picture, large

Every answer has the question's `number`. Nothing is remembered here of what a page has asked.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lib_lora_trainer.base.errors import ConfigError, DataError, TrainerError
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.thumbnails import thumbnails
from lib_lora_trainer.ui import captions_query, gallery_filter
from lib_lora_trainer.ui.gallery_index import CAPTIONS, FLAGS, STATES, Picture
from lib_lora_trainer.ui.pictures import address
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.scans import Known
from lib_lora_trainer.ui.session import Session

SMALL, LARGE = 256, 2048  # pixels of the longer side
WINDOW = 48
"""Pictures told of at once, at most: a screen of them."""


def answer(place: Place, session: Session, question: str) -> str:
    """Return the answer to a question; a user's mistake is an answer with the key `error`."""
    number = None
    try:
        asked = _mapping(question)
        number = asked.get("number")
        place.gate()
        found = _answer(place, session, asked)
    except TrainerError as error:
        found = {"error": str(error)}
    return json.dumps({"number": number, **found})


def _mapping(question: str) -> dict[str, Any]:
    try:
        asked = json.loads(question or "")
    except ValueError as error:
        raise ConfigError(f"question: {question!r} is no JSON. Reload the page.") from error
    if not isinstance(asked, dict):
        raise ConfigError(f"question: {question!r} is no JSON object. Reload the page.")
    return asked


def _answer(place: Place, session: Session, asked: Mapping[str, Any]) -> dict[str, Any]:
    known, kind = place.scans.known(session.project), asked.get("kind")
    if known is None:
        raise DataError("The folders are not scanned yet. Press “Scan folders”.")
    cache = place.projects / session.project
    if kind == "index":
        wanted = gallery_filter.from_mapping(asked.get("filter") or {})
        return index(known, wanted, _texts(asked.get("selected") or []))
    if kind == "window":
        paths = _texts(asked.get("paths") or [])[:WINDOW]
        return {"mark": known.mark, "pictures": dict(_window(known, paths, cache))}
    if kind == "whole":
        return {"mark": known.mark, "whole": _whole(known, str(asked.get("path")), cache)}
    raise ConfigError(f"question: {kind!r} is unknown. Reload the page.")


def _texts(values: Any) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ConfigError("question: a list of paths is wanted. Reload the page.")
    return values


def index(known: Known, wanted: gallery_filter.Filter, selected: Sequence[str]) -> dict[str, Any]:
    """Return the rows of a filter: [place, name, width, height, bucket, flags], each but the name and size a number.

    place: in `folders`, which end with the separator, so that place + name is the path; flags: bit n is the nth of
    `flags`. kept: those of the selected paths that still are pictures of the state in sight.
    """
    narrowed = captions_query.narrowed(known, wanted.query, wanted.within)
    found = gallery_filter.filtered(narrowed, wanted)
    folders: dict[str, int] = {}
    buckets: dict[str, int] = {}
    bits = {name: 1 << number for number, name in enumerate(FLAGS)}
    rows = [
        [
            folders.setdefault(f"{picture.path.parent}".rstrip(os.sep) + os.sep, len(folders)),
            picture.path.name,
            picture.width,
            picture.height,
            buckets.setdefault(picture.bucket, len(buckets)),
            sum(bits[name] for name in picture.flags),
        ]
        for picture in found.pictures
    ]
    there = (known.pictures.get(Path(path)) for path in selected)
    return {
        "mark": known.mark,
        "rows": rows,
        "folders": list(folders),
        "buckets": list(buckets),
        "flags": list(FLAGS.values()),
        "choices": _choices(found, wanted),
        "kept": [str(picture.path) for picture in there if picture is not None and picture.state == wanted.state],
    }


def _choices(found: gallery_filter.Filtered, wanted: gallery_filter.Filter) -> dict[str, list[tuple[str, str, int]]]:
    """Return for each kind of choice (value, label, count); values without pictures only while they are chosen."""
    labels: dict[str, Mapping[str, str]] = {"state": STATES, "flags": FLAGS, "caption": CAPTIONS}
    chosen = {
        "state": (wanted.state,), "flags": wanted.flags, "folder": (wanted.folder,), "bucket": (wanted.bucket,),
        "caption": (wanted.caption,),
    }  # fmt: skip
    choices = {}
    for name, counts in found.counts.items():
        values = labels[name] if name in labels else sorted({*counts, *filter(None, chosen[name])}, key=_natural)
        choices[name] = [
            (value, labels.get(name, {}).get(value, value), counts.get(value, 0))
            for value in values
            if counts.get(value) or value in chosen[name]
        ]
    return choices


def _natural(text: str) -> tuple[float, str]:
    width, _, height = text.partition("×")
    return (int(width) / int(height), text) if width.isdecimal() and height.isdecimal() else (0.0, text)


def _window(known: Known, paths: Sequence[str], project: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    pictures = [(path, known.pictures[Path(path)]) for path in paths if Path(path) in known.pictures]
    made = thumbnails([picture.file for _, picture in pictures], project / "cache" / "thumbnails", SMALL)
    for (path, picture), small in zip(pictures, made, strict=True):
        yield path, {**_about(picture), **_address(small, project)}


def _whole(known: Known, path: str, project: Path) -> dict[str, Any]:
    picture = known.pictures.get(Path(path))
    if picture is None:
        raise DataError(f"{printable(path)}: is not among the pictures of the last scan. Scan again.")
    (large,) = thumbnails([picture.file], project / "cache" / "thumbnails", LARGE)
    return {**_about(picture), **_address(large, project), "path": printable(picture.path)}


def _address(small: Path | DataError, project: Path) -> dict[str, str]:
    return {"broken": printable(str(small))} if isinstance(small, DataError) else {"src": address(small, project)}


def _about(picture: Picture) -> dict[str, str]:
    return {"caption": picture.text, "folder": printable(picture.folder), "told": printable(picture.told)}
