"""What the page's script asks about captions, and the answers: both JSON, through the events of the page.

A question has a `kind`:

    caption  `path`: the caption of one picture as its file is now, with its tokens, and the picture itself
    count    `text`: the tokens of what is being typed
    save     `path`, `text`, `seen`: write a caption through the journal, unless the file differs from what was seen
    words    what can be completed, and how often each tag occurs in each folder
    query    `text`: how many pictures a filter lets through, or what is wrong with it, and at which column

Every answer has the question's `number`. Nothing is remembered here of what a page has asked.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_lora_trainer.app import dataset_tools
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError, DataError, TrainerError
from lib_lora_trainer.captions import text
from lib_lora_trainer.captions.query import QueryError
from lib_lora_trainer.dataset.entries import absolute, printable
from lib_lora_trainer.dataset.thumbnails import thumbnails
from lib_lora_trainer.ui import captions_files, captions_query, captions_tokens
from lib_lora_trainer.ui.captions_words import Vocabulary
from lib_lora_trainer.ui.gallery_index import Picture
from lib_lora_trainer.ui.pictures import address
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.scans import Known
from lib_lora_trainer.ui.session import Session, project_of

SIDE = 1024  # pixels of the longer side of the picture beside its caption


@dataclass(frozen=True)
class Asked:
    """Who asks, and what: the place, the browser's session, and where other tags than the dataset's come from."""

    place: Place
    session: Session
    vocabulary: Vocabulary

    def known(self) -> Known:
        """Return the latest scan. Raises DataError when there is none, or folders have changed since."""
        known = self.place.scans.known(self.session.project)
        if known is None:
            raise DataError("The folders are not scanned yet. Press “Scan folders” in the Dataset step.")
        if known.data.sources != self.session.config.data.sources:
            raise DataError("The folders have changed since the scan. Press “Scan folders” in the Dataset step.")
        return known

    def picture(self, path: str) -> Picture:
        """Return a picture of the scan. Raises DataError for any other path."""
        picture = self.known().pictures.get(Path(path))
        if picture is None or picture.state == "removed":
            raise DataError(f"{printable(path)}: is not among the pictures of the last scan. Scan again.")
        return picture


def answer(place: Place, session: Session, vocabulary: Vocabulary, question: str) -> str:
    """Return the answer to a question; a user's mistake is an answer with the key `error`."""
    number = None
    try:
        wish = json.loads(question or "null")
        if not isinstance(wish, dict):
            raise ConfigError(f"question: {question!r} is no JSON object. Reload the page.")
        number = wish.get("number")
        place.gate()
        project_of(place.projects, session)
        found = _answer(Asked(place, session, vocabulary), wish)
    except ValueError as error:
        found = {"error": f"question: {question[:80]!r} is no JSON ({error}). Reload the page."}
    except TrainerError as error:
        found = {"error": str(error)}
    return json.dumps({"number": number, **found})


def _answer(asked: Asked, wish: Mapping[str, Any]) -> dict[str, Any]:
    kind, path, entered = wish.get("kind"), str(wish.get("path") or ""), str(wish.get("text") or "")
    if kind == "caption":
        return caption(asked, path)
    if kind == "count":
        return {"tokens": tokens(entered)}
    if kind == "save":
        return save(asked, path, entered, str(wish.get("seen") or ""))
    if kind == "words":
        return words(asked)
    if kind == "query":
        return query(asked, entered)
    raise ConfigError(f"question: {kind!r} is unknown. Reload the page.")


def caption(asked: Asked, path: str) -> dict[str, Any]:
    """Return a picture's caption as it is now, and where the page finds the picture."""
    picture = asked.picture(path)
    held = captions_files.read(asked.known().data, picture.path)
    project = asked.place.projects / asked.session.project
    (small,) = thumbnails([picture.file], project / "cache" / "thumbnails", SIDE)
    image = {"broken": printable(str(small))} if isinstance(small, DataError) else {"src": address(small, project)}
    return {
        "path": path, "name": picture.path.name, "folder": printable(picture.folder), "text": held.file.text,
        "seen": held.file.version, "file": held.file.path.name, "told": held.told, "editable": picture.state == "used",
        "tokens": tokens(held.file.text), **image,
    }  # fmt: skip


def tokens(entered: str) -> dict[str, Any] | None:
    """Return how many tokens a caption takes, and behind which of its tags a chunk ends; None where none can count.

    Of several lines, each a caption of its own, the longest counts.
    """
    counted = [captions_tokens.count(line) for line in entered.split("\n") if line.strip()] or [
        captions_tokens.count("")
    ]
    longest = max((each for each in counted if each is not None), key=lambda each: each.tokens, default=None)
    return longest if longest is None else {"count": longest.tokens, "chunks": longest.chunks, "ends": longest.ends}


def save(asked: Asked, path: str, entered: str, seen: str) -> dict[str, Any]:
    """Write a caption; where the file is another one than was seen, say what it holds now and change nothing."""
    picture, data = asked.picture(path), asked.known().data
    if picture.state != "used":
        raise DataError(
            f"{printable(path)}: is not in use. Take it in again in the Dataset step, then edit its caption."
        )
    held = captions_files.read(data, picture.path)
    if held.file.version != seen:
        return {"conflict": caption(asked, path)}
    drafted = captions_files.draft(absolute(data.sources[picture.source].path), data, held.file, entered)
    for _ in dataset_tools.apply(drafted, Control()):
        pass
    return {"saved": caption(asked, path), "changed": bool(drafted.operations)}


def words(asked: Asked) -> dict[str, Any]:
    """Return the dataset's tags with their counts by folder, and what taggers know besides."""
    known = asked.known()
    used = [picture for picture in known.pictures.values() if picture.state == "used"]
    marks = text.marks_of(known.data.caption)
    counts: dict[str, dict[str, int]] = {}
    spelled: dict[str, Counter[str]] = {}
    for picture in used:
        for tag in dict.fromkeys(text.parse(picture.text, marks).tags):
            folders = counts.setdefault(text.key(tag), {})
            folders[picture.folder] = folders.get(picture.folder, 0) + 1
            spelled.setdefault(text.key(tag), Counter())[tag] += 1
    names = sorted({picture.folder for picture in used})
    total = {tag: sum(folders.values()) for tag, folders in counts.items()}
    rows = [
        [spelled[tag].most_common(1)[0][0], total[tag], [counts[tag].get(name, 0) for name in names]]
        for tag in sorted(total, key=lambda tag: (-total[tag], tag))
    ]
    of_folder = Counter(picture.folder for picture in used)
    return {
        "mark": known.mark, "folders": names, "pictures": [of_folder[name] for name in names], "rows": rows,
        "others": asked.vocabulary.names(frozenset(total)),
    }  # fmt: skip


def query(asked: Asked, wanted: str) -> dict[str, Any]:
    """Return how many pictures a filter lets through, or where it cannot be read."""
    known = asked.known()
    try:
        found = captions_query.narrowed(known, wanted, ())
    except QueryError as error:
        return {"wrong": str(error), "column": error.column}
    return {"fits": sum(picture.state == "used" for picture in found)}
