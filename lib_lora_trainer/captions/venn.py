"""The Venn check: which triggers occur in the same pictures, and what pruned tags will therefore mean (G3).

A model tells triggers apart by the pictures in which one stands without the other. So two triggers of the same pictures
learn the same thing; a tag pruned everywhere lands in the trigger that is everywhere, one pruned only where outfit B is
lands in B; and what stands pruned in all pictures, and in none by its own name, is learned as a part of the trigger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.captions.lexicon import group_of, key
from lib_lora_trainer.captions.prune_values import ImageTags

Relation = Literal["same", "almost", "within", "around", "overlapping", "apart"]
ALMOST = 0.9
"""From this share of common pictures (of all that have either) on, two triggers are hard to tell apart."""


@dataclass(frozen=True)
class Pair:
    """Two triggers, by the pictures that have them. relation: of the first to the second; `within` it has fewer."""

    first: str
    second: str
    relation: Relation
    common: int


@dataclass(frozen=True)
class Landing:
    """Where a pruned tag goes.

    triggers: that it becomes a part of; more than one when they cannot be told apart, none when no trigger stands in
    all of its pictures. images: from which it was pruned; of: pictures of the trigger; named: pictures in which it
    still stands by its own name.
    """

    tag: str
    triggers: tuple[str, ...]
    images: int
    of: int
    named: int


@dataclass(frozen=True)
class Venn:
    """The check of a dataset. matrix: common pictures of each trigger with each, its own number in the diagonal."""

    triggers: tuple[str, ...]
    images: int
    matrix: tuple[tuple[int, ...], ...]
    pairs: tuple[Pair, ...]
    landings: tuple[Landing, ...]
    findings: tuple[Problem, ...]


def check(triggers: Iterable[str], after: Sequence[ImageTags], before: Sequence[ImageTags] | None = None) -> Venn:
    """Return how triggers relate in the captions that will be trained on, and where tags land that were pruned.

    after: the captions of all folders, those without triggers too; before: the same pictures before pruning.
    """
    words = tuple(dict.fromkeys(triggers))
    sets = {word: frozenset(image.image for image in after if key(word) in image.keys) for word in words}
    matrix = tuple(tuple(len(sets[row] & sets[column]) for column in words) for row in words)
    pairs = tuple(
        Pair(first, second, relation(sets[first], sets[second]), len(sets[first] & sets[second]))
        for place, first in enumerate(words)
        for second in words[place + 1 :]
    )
    landings = tuple(_landings(sets, after, before or ()))
    findings = (*_about(words, sets, len(after)), *_between(pairs), *_landed(landings, sets, len(after)))
    return Venn(words, len(after), matrix, pairs, landings, findings)


def relation(first: frozenset[str], second: frozenset[str]) -> Relation:
    """Return how two sets of pictures relate; empty sets are apart."""
    common = len(first & second)
    if not common:
        return "apart"
    if first == second:
        return "same"
    if common / len(first | second) >= ALMOST:
        return "almost"
    if first < second:
        return "within"
    return "around" if second < first else "overlapping"


def _landings(
    sets: Mapping[str, frozenset[str]], after: Sequence[ImageTags], before: Sequence[ImageTags]
) -> Iterable[Landing]:
    now = {image.image: image.keys for image in after}
    mine = {key(word) for word in sets}
    spelled: dict[str, str] = {}
    taken: dict[str, set[str]] = {}
    for image in before:
        for tag in image.tags:
            if key(tag) not in mine and key(tag) not in now.get(image.image, frozenset()):
                taken.setdefault(spelled.setdefault(key(tag), tag), set()).add(image.image)
    for tag, images in sorted(taken.items(), key=lambda entry: (-len(entry[1]), entry[0])):
        holding = {word: found for word, found in sets.items() if images <= found}
        size = min(map(len, holding.values()), default=0)
        nearest = tuple(word for word, found in holding.items() if len(found) == size)
        named = sum(key(tag) in keys for keys in now.values())
        yield Landing(tag, nearest, len(images), size, named)


def _about(words: Sequence[str], sets: Mapping[str, frozenset[str]], images: int) -> Iterable[Problem]:
    for word in words:
        where = f"trigger {word!r}"
        if not sets[word]:
            yield Problem("error", where, "is in no caption.", "Insert it, or remove it from the list.")
        elif len(sets[word]) == 1 and images > 1:
            yield Problem("warning", where, "is in one picture only.", "Add pictures, or give them another's trigger.")


def _between(pairs: Iterable[Pair]) -> Iterable[Problem]:
    for pair in pairs:
        where = f"triggers {pair.first!r} and {pair.second!r}"
        if pair.relation == "same":
            text = f"stand in exactly the same {pair.common} pictures: both will learn the same thing."
            fix = (
                f"Use one of them, or add pictures that have only one: another outfit, a misc folder with {pair.first} "
                f"and the parts of {pair.second} unpruned, or duplicates retagged in this way."
            )
            yield Problem("error", where, text, fix)
        elif pair.relation == "almost":
            text = f"share {pair.common} pictures, nearly all that have either: they will hardly be told apart."
            yield Problem("warning", where, text, "Add pictures that have only one of them, unpruned.")
        elif pair.relation in ("within", "around"):
            inner, outer = (pair.first, pair.second) if pair.relation == "within" else (pair.second, pair.first)
            text = f"{inner} stands only where {outer} does: it learns what its pictures have beyond those of {outer}."
            yield Problem("note", where, text)


def _landed(landings: Sequence[Landing], sets: Mapping[str, frozenset[str]], images: int) -> Iterable[Problem]:
    lost = [landing.tag for landing in landings if not landing.triggers]
    if lost:
        text = f"{_listed(lost)} are pruned where no single trigger stands: they become a part of every picture."
        yield Problem("warning", "pruned tags", text, "Keep them, or give all of their pictures one trigger.")
    for word in sets:
        mine = [landing for landing in landings if word in landing.triggers]
        thin = [landing.tag for landing in mine if landing.of and landing.images * 2 < landing.of]
        if thin:
            text = f"{_listed(thin)} are pruned from less than half of its pictures: it will draw them now and then."
            yield Problem("warning", f"trigger {word!r}", text, "Keep them in the captions.")
        unanchored = [
            landing.tag
            for landing in mine
            if not landing.named and (group := group_of(landing.tag)) is not None and group.family == "garment"
        ]
        if unanchored and len(sets[word]) == images:
            text = f"{_listed(unanchored)} are in every picture only as a part of it."
            fix = (
                "A misc folder with other pictures, where such parts stand unpruned, anchors what is not a part of it."
            )
            yield Problem("note", f"trigger {word!r}", text, fix)


def _listed(tags: Sequence[str]) -> str:
    return ", ".join(tags[:5]) + (f" and {len(tags) - 5} more" if len(tags) > 5 else "")


def settled_by(
    misc: Sequence[ImageTags], triggers: Iterable[str], after: Sequence[ImageTags], before: Sequence[ImageTags]
) -> tuple[Problem, ...]:
    """Return the findings that a folder of more pictures, with these captions, would settle; it need not exist yet."""
    words = tuple(triggers)
    found, then = check(words, after, before), check(words, (*after, *misc), (*before, *misc))
    left = {(problem.severity, problem.where) for problem in then.findings}
    return tuple(problem for problem in found.findings if (problem.severity, problem.where) not in left)
