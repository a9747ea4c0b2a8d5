"""The entries of a journal: what each records, which one is next to be undone or redone, and how they are kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.tools.steps import Step, from_mapping, to_mapping

VERSION = 1
State = Literal["applying", "applied", "undoing", "undone", "redoing", "taking back", "rolled back", "closed"]


@dataclass(frozen=True)
class Entry:
    """One run of a tool.

    text: what it did, in words; time: when it began, ISO 8601, the user's time; steps: in order.
    state: applied and undone are those at rest that can be undone and redone; rolled back: an error took it back;
    closed: its part of the holding was emptied. left: files that could not be put back, with the reason.
    ended: numbers of the entries that were undone when this one was made, and can never be redone after it.
    """

    number: int
    tool: str
    text: str
    time: str
    state: State
    steps: tuple[Step, ...]
    left: tuple[str, ...] = ()
    ended: tuple[int, ...] = ()

    @property
    def files(self) -> int:
        """How many files and folders it changed, new folders not counted."""
        return sum(step.kind not in ("make", "drop") for step in self.steps)


def undoable(entries: Sequence[Entry]) -> Entry | None:
    """Return the entry that is undone next: the latest one that is applied."""
    return next((entry for entry in reversed(entries) if entry.state == "applied"), None)


def redoable(entries: Sequence[Entry]) -> Entry | None:
    """Return the entry that is redone next: the first one undone since the latest that is applied.

    Whatever was undone before another entry was made is never redone, also when that one is undone in its turn.
    """
    last = undoable(entries)
    after = last.number if last else 0
    ended = {number for entry in entries if entry.state != "rolled back" for number in entry.ended}
    waiting = (entry for entry in entries if entry.state == "undone" and entry.number > after)
    return next((entry for entry in waiting if entry.number not in ended), None)


def to_json(entry: Entry) -> str:
    """Return an entry as the text of its file."""
    content = {
        "version": VERSION,
        "number": entry.number,
        "tool": entry.tool,
        "text": entry.text,
        "time": entry.time,
        "state": entry.state,
        "left": list(entry.left),
        "ended": list(entry.ended),
        "steps": [to_mapping(step) for step in entry.steps],
    }
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def read(folder: Path) -> tuple[Entry, ...]:
    """Return the entries in a journal's folder, oldest first; none when there is no such folder.

    Raises DataError naming a file that cannot be read or was not written by this version.
    """
    return tuple(_entry(path) for path in sorted(folder.glob("[0-9]*.json")))


def _entry(path: Path) -> Entry:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if values["version"] != VERSION:
            raise ValueError(f"version {values['version']!r} of the journal is not known here")
        if values["state"] not in get_args(State):
            raise ValueError(f"{values['state']!r} is no state")
        return Entry(
            number=int(values["number"]),
            tool=str(values["tool"]),
            text=str(values["text"]),
            time=str(values["time"]),
            state=values["state"],
            steps=tuple(from_mapping(step) for step in values["steps"]),
            left=tuple(map(str, values["left"])),
            ended=tuple(map(int, values.get("ended", ()))),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        text = f"{printable(path)}: this entry of the journal cannot be read: {error}."
        raise DataError(f"{text} Update the extension, or move the file away; its files lie in the holding.") from error
