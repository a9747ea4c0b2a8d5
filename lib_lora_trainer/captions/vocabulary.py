"""Autocompletion of tags: what the dataset has comes before what the tagger knows."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lib_lora_trainer.captions.text import key

_ABSENT = "\n"  # in no key, so that a match never runs over from one tag into the next


@dataclass(frozen=True)
class Completion:
    """A tag that fits. count: how many captions of the dataset have it; 0 for one that only the tagger knows."""

    tag: str
    count: int


class Vocabulary:
    """Tags to complete from, made once and asked at every key."""

    def __init__(self, dataset: Mapping[str, int], tagger: Iterable[str] = ()) -> None:
        """dataset: tags as they are spelled, with their frequency; tagger: in the order of its own, the common first."""
        entries: dict[str, tuple[int, int, str]] = {}
        for place, tag in enumerate(tagger):
            entries.setdefault(key(tag), (0, place, tag))
        for tag, count in dataset.items():
            each = key(tag)
            known = entries.get(each, (0, 0, tag))
            # Of several spellings the most frequent one of the dataset is offered.
            entries[each] = (known[0] + count, 0, tag if known[0] <= count else known[2])
        self._entries = entries
        self._keys = sorted(each for each in entries if each)
        self._text = _ABSENT + _ABSENT.join(self._keys) + _ABSENT
        self._ranked = sorted(self._keys, key=self._rank)

    def complete(self, typed: str, limit: int = 20) -> tuple[Completion, ...]:
        """Return the tags that fit best.

        In order: the tag itself; those that begin with what was typed; those in which another word does; those that
        have it within a word. Within each the dataset's most frequent come first, then the tagger's in its order.
        Nothing typed: the dataset's most frequent.
        """
        wanted = key(typed)
        if limit < 1:
            return ()
        if not wanted:
            return tuple(self._completion(each) for each in self._ranked[:limit])
        found = self._beginning(wanted)
        ranked = sorted(found, key=lambda each: (each != wanted, self._rank(each)))[:limit]
        if len(ranked) < limit:
            within = self._containing(wanted, set(found))
            ranked += sorted(within, key=lambda each: (f" {wanted}" not in each, self._rank(each)))
        return tuple(self._completion(each) for each in ranked[:limit])

    def _rank(self, each: str) -> tuple[int, int, str]:
        count, place, _ = self._entries[each]
        return -count, place, each

    def _completion(self, each: str) -> Completion:
        count, _, tag = self._entries[each]
        return Completion(tag, count)

    def _beginning(self, wanted: str) -> list[str]:
        start = bisect_left(self._keys, wanted)
        # One step past every text that begins so: the last letter's successor.
        past = wanted[:-1] + chr(min(ord(wanted[-1]) + 1, 0x10FFFF))
        end = bisect_left(self._keys, past, start)
        return [each for each in self._keys[start:end] if each.startswith(wanted)]

    def _containing(self, wanted: str, known: set[str]) -> list[str]:
        found: list[str] = []
        position = self._text.find(wanted)
        while position >= 0:
            start = self._text.rfind(_ABSENT, 0, position) + 1
            end = self._text.find(_ABSENT, position)
            each = self._text[start:end]
            if each not in known:
                found.append(each)
            position = self._text.find(wanted, end)
        return found
