"""What the captions of one folder say about its tags: how often, beside which others, and how sure the tagger was."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lib_lora_trainer.captions.lexicon import Group, group_of, key
from lib_lora_trainer.captions.prune_rules import RARE
from lib_lora_trainer.captions.prune_values import ImageTags

Scores = Mapping[str, Mapping[str, float]]
"""Picture to tag to the tagger's score in [0, 1]."""
ENOUGH = 10
"""With fewer pictures nothing is rare."""

_SEVERAL = frozenset(
    f"{number}{who}" for number in ("2", "3", "4", "5", "6+") for who in ("girls", "boys", "others")
) | {"multiple girls", "multiple boys", "multiple others", "crowd", "everyone", "couple", "group", "hetero", "duo"}


@dataclass(frozen=True)
class Facts:
    """The tags of a folder. places: tag, as it is compared, to the numbers of the pictures that have it."""

    images: tuple[ImageTags, ...]
    places: Mapping[str, frozenset[int]]
    spelled: Mapping[str, str]
    scores: Mapping[str, Mapping[str, float]]

    @property
    def total(self) -> int:
        """How many pictures the folder has."""
        return len(self.images)

    def count(self, tag: str) -> int:
        """Return how many pictures have a tag."""
        return len(self.places[tag])

    def share(self, tag: str) -> float:
        """Return the share of pictures that have a tag, in [0, 1]."""
        return self.count(tag) / self.total

    def is_rare(self, tag: str) -> bool:
        """Tell whether at most one picture in twenty has a tag, or a single one; never in folders of less than ten."""
        return self.total >= ENOUGH and self.count(tag) <= max(1, int(RARE * self.total))

    def score(self, tag: str) -> float | None:
        """Return the mean score of a tag where it stands; None where no tagger has looked."""
        found = [value for place in self.places[tag] if (value := self._score(place, tag)) is not None]
        return sum(found) / len(found) if found else None

    def example(self, tag: str) -> str:
        """Return the picture in which the tagger was surest of a tag; without scores the first that has it."""
        best = max(sorted(self.places[tag]), key=lambda place: self._score(place, tag) or 0.0)
        return self.images[best].image

    def rivals(self, tag: str, group: Group | None) -> tuple[str, ...]:
        """Return the tags of the same group that are never in one picture with a tag, the most frequent first.

        A tag that is rare itself is no rival.
        """
        if group is None:
            return ()
        mine = self.places[tag]
        return tuple(
            other
            for other in self._by_group.get(group.name, ())
            if other != tag and mine.isdisjoint(self.places[other]) and not self.is_rare(other)
        )

    def only_beside_others(self, tag: str) -> bool:
        """Tell whether a tag stands only where several people are shown, though other pictures show one alone."""
        return bool(self._alone) and self.places[tag].isdisjoint(self._alone)

    def most_frequent(self, family: str) -> str | None:
        """Return the most frequent tag of a family; None when there is none."""
        return self._by_family.get(family)

    def _score(self, place: int, tag: str) -> float | None:
        return self.scores.get(self.images[place].image, {}).get(tag)

    @functools.cached_property
    def _by_group(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for tag in sorted(self.places, key=lambda tag: (-self.count(tag), tag)):
            group = group_of(tag)
            if group is not None:
                found.setdefault(group.name, []).append(tag)
        return {name: tuple(tags) for name, tags in found.items()}

    @functools.cached_property
    def _by_family(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for tag in sorted(self.places, key=lambda tag: (-self.count(tag), tag)):
            group = group_of(tag)
            if group is not None:
                found.setdefault(group.family, tag)
        return found

    @functools.cached_property
    def _alone(self) -> frozenset[int]:
        return frozenset(place for place, image in enumerate(self.images) if image.keys.isdisjoint(_SEVERAL))


def gather(images: Sequence[ImageTags], scores: Scores | None = None) -> Facts:
    """Return what the captions of a folder say; scores: of any pictures, with tags in any spelling."""
    places: dict[str, set[int]] = {}
    spellings: dict[str, Counter[str]] = {}
    for place, image in enumerate(images):
        for tag in image.tags:
            places.setdefault(key(tag), set()).add(place)
            spellings.setdefault(key(tag), Counter())[tag] += 1
    known = {image.image: (scores or {}).get(image.image, {}) for image in images}
    return Facts(
        tuple(images),
        {tag: frozenset(found) for tag, found in places.items()},
        {tag: found.most_common(1)[0][0] for tag, found in spellings.items()},
        {image: {key(tag): value for tag, value in found.items()} for image, found in known.items()},
    )
