"""The tags that taggers on this machine know, for completing what is being typed."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from pathlib import Path

from lib_lora_trainer.app import tag_jobs
from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.captions.text import key
from lib_lora_trainer.tagging.labels import CHARACTER, RATING, Label, read_labels

MOST = 12_000
"""Names that are sent to a page, the most used first."""


class Vocabulary:
    """The labels of the first tagger that is found on this machine. They are read once for each list."""

    def __init__(self, taggers: tag_jobs.Place) -> None:
        self._taggers = taggers
        self._lock = threading.Lock()
        self._read: dict[Path, tuple[Label, ...]] = {}

    def names(self, without: Collection[str] = ()) -> Sequence[str]:
        """Return the names, the most used on the board first; none where there is no tagger or its list is unreadable.

        without: names, as tags are compared, that are known otherwise. An unreadable list is told where its tagger is
        to be used.
        """
        found = [label.name for label in self._labels() if key(label.name) not in without]
        return found[:MOST]

    def keys(self) -> tuple[frozenset[str], frozenset[str]]:
        """Return (characters, all labels) by what tags are compared by."""
        labels = self._labels()
        characters = frozenset(key(label.name) for label in labels if label.category == CHARACTER)
        return characters, frozenset(key(label.name) for label in labels)

    def _labels(self) -> tuple[Label, ...]:
        found = next((each for _, each in tag_jobs.catalogue(self._taggers) if each is not None), None)
        if found is None:
            return ()
        with self._lock:
            if found.tags not in self._read:
                self._read[found.tags] = _ordered(found.tags)
            return self._read[found.tags]


def _ordered(path: Path) -> tuple[Label, ...]:
    try:
        labels = read_labels(path)
    except DataError:
        return ()
    return tuple(sorted((label for label in labels if label.category != RATING), key=lambda label: -label.count))
