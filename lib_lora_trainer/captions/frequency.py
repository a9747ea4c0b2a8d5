"""How often tags occur: overall, per folder, and together with another; and a summary of captions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from lib_lora_trainer.captions.text import Caption, key


@dataclass(frozen=True)
class Row:
    """A tag. tag: its most frequent spelling; captions: how many have it; by_folder: the same, of folders that do."""

    key: str
    tag: str
    captions: int
    by_folder: Mapping[str, int]


@dataclass(frozen=True)
class Summary:
    """Captions in numbers. tags: mean per caption that has some; distinct: by key; once: tags of one caption only."""

    captions: int
    empty: int
    prose: int
    tags: float
    most: int
    distinct: int
    once: int


def table(captions: Mapping[Path, Caption], root: Path) -> tuple[Row, ...]:
    """Return every tag, the most frequent first; of equally frequent ones by alphabet.

    root: the folders are named from there on, with forward slashes, `.` being itself. Each caption counts once,
    whatever its repeats; spellings are one tag.
    """
    total: Counter[str] = Counter()
    folders: dict[str, Counter[str]] = {}
    spellings: dict[str, Counter[str]] = {}
    for path, caption in captions.items():
        folder = (path.parent.relative_to(root) if path.is_relative_to(root) else path.parent).as_posix()
        for tag in dict.fromkeys(caption.tags):
            spellings.setdefault(key(tag), Counter())[tag] += 1
        for each in caption.keys:
            total[each] += 1
            folders.setdefault(each, Counter())[folder] += 1
    rows = (
        Row(each, spellings[each].most_common(1)[0][0], count, dict(sorted(folders[each].items())))
        for each, count in total.items()
    )
    return tuple(sorted(rows, key=lambda row: (-row.captions, row.key)))


def counts(captions: Iterable[Caption]) -> Counter[str]:
    """Return how many captions have each tag, by key."""
    return Counter(each for caption in captions for each in caption.keys)


def together(captions: Iterable[Caption], tag: str) -> tuple[tuple[str, int], ...]:
    """Return the tags that occur in captions with one tag, with in how many, the most frequent first."""
    wanted = key(tag)
    found = counts(caption for caption in captions if wanted in caption.keys)
    found.pop(wanted, None)
    return tuple(sorted(found.items(), key=lambda entry: (-entry[1], entry[0])))


def summary(captions: Iterable[Caption]) -> Summary:
    """Return captions in numbers."""
    known = tuple(captions)
    lengths = [len(caption.tags) for caption in known if caption.tags]
    found = counts(known)
    return Summary(
        captions=len(known),
        empty=sum(caption.kind == "empty" for caption in known),
        prose=sum(caption.kind in ("prose", "mixed") for caption in known),
        tags=fmean(lengths) if lengths else 0.0,
        most=max(lengths, default=0),
        distinct=len(found),
        once=sum(count == 1 for count in found.values()),
    )
