"""What a trial asks for: the triggers with the traits that each has to bring, and the tags that have to stay promptable.

Traits are given, or those that pruning took out of the captions, or what the tagger sees in the dataset's pictures and
their captions do not say. A trait counts only as far as the tagger sees it in the dataset itself.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from lib_lora_trainer.base.errors import Problem, ProblemsFound
from lib_lora_trainer.base.seeds import derive
from lib_lora_trainer.captions.lexicon import group_of, key
from lib_lora_trainer.captions.reduced import as_prompt
from lib_lora_trainer.captions.tags import join, split
from lib_lora_trainer.tagging.labels import RATING, Label

HALF = 0.5
"""A tag belongs to a trigger when so many of its pictures have it; one in more captions than that is no choice."""
FEW = 2
"""Groups of fewer pictures say nothing of their own, and tags in fewer captions are not asked for."""
MOST = 6
"""Tags of one prompt, beside the trigger and who is shown."""
_NEVER = ("count", "meta", "quality", "view", "name")  # families that are no trait of anything
_WORN = ("garment", "footwear")


@dataclass(frozen=True)
class Example:
    """One picture of the dataset. caption: its tags; before: those before pruning; scores: (labels,) of the tagger."""

    caption: tuple[str, ...]
    scores: NDArray[np.float32]
    before: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """One trigger, or several that stand together. traits: what it has to bring, by the rate that the dataset shows."""

    words: tuple[str, ...]
    traits: Mapping[str, float]
    pictures: int = 0

    @property
    def ceiling(self) -> float:
        """How much of its traits the dataset's pictures show, on average."""
        return sum(self.traits.values()) / len(self.traits)


@dataclass(frozen=True)
class Scene:
    """What a prompt asks for beside the trigger. who: how many are shown, not looked for; tags: looked for."""

    who: tuple[str, ...]
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Subject:
    """The triggers with their traits, and scenes made of the captions' other tags, as many as images are wanted."""

    parts: tuple[Part, ...]
    scenes: tuple[Scene, ...] = field(default=())

    @property
    def ceiling(self) -> float:
        """The recall that the dataset's own pictures have."""
        return sum(part.ceiling for part in self.parts) / len(self.parts)

    def others(self, part: Part) -> tuple[str, ...]:
        """Return the traits of all other parts that are none of a part's."""
        found = dict.fromkeys(tag for other in self.parts if other is not part for tag in other.traits)
        return tuple(tag for tag in found if tag not in part.traits)

    @property
    def traits(self) -> tuple[str, ...]:
        """The traits of all parts, each once."""
        return tuple(dict.fromkeys(tag for part in self.parts for tag in part.traits))


@dataclass(frozen=True)
class Looking:
    """With what is looked. threshold: from which probability on a tag counts as shown."""

    labels: Sequence[Label]
    threshold: float

    def shown(self, scores: NDArray[np.float32]) -> frozenset[str]:
        """Return the tags that an image shows, as they are compared; ratings left out."""
        places = np.flatnonzero(scores >= self.threshold).tolist()
        return frozenset(key(self.labels[place].name) for place in places if self.labels[place].category != RATING)

    @property
    def known(self) -> frozenset[str]:
        """Every tag that can be seen, as they are compared."""
        return frozenset(key(label.name) for label in self.labels if label.category != RATING)


def subject(
    examples: Sequence[Example], triggers: Sequence[str], given: Sequence[str], looking: Looking
) -> tuple[Subject, tuple[Problem, ...]]:
    """Return what is asked for, still without scenes, and what of it the tagger cannot see.

    triggers: the words that call the adapter; pictures are grouped by which of them their captions have. given: traits,
    or nothing for those that follow from the captions. Raises ProblemsFound when there is nothing to look for.
    """
    problems: list[Problem] = []
    if not triggers:
        problems.append(Problem("error", "triggers", "there is none.", "Give the words that call the adapter."))
    unknown = [tag for tag in given if key(tag) not in looking.known]
    if unknown:
        text = f"the tagger does not know {', '.join(unknown)}."
        problems.append(Problem("error", "traits", text, "Spell it as the tagger does, or leave it out."))
    if problems:
        raise ProblemsFound(tuple(problems))
    groups: dict[tuple[str, ...], list[Example]] = {}
    for example in examples:
        own = {key(tag) for tag in example.caption}
        words = tuple(word for word in triggers if all(key(part) in own for part in split(word)))
        groups.setdefault(words, []).append(example)
    parts = [
        Part(words, _traits(group, given, looking), len(group))
        for words, group in sorted(groups.items())
        if words and len(group) >= FEW
    ]
    empty = [part for part in parts if not part.traits]
    found = tuple(part for part in parts if part.traits)
    if not found:
        text = "the tagger sees nothing in the dataset's pictures that the trigger has to bring."
        fix = "Give the traits, or look whether the captions have the trigger."
        raise ProblemsFound((Problem("error", "traits", text, fix),))
    notes = tuple(
        Problem("note", f"trigger {join(part.words)!r}", "brings nothing that the tagger sees, and is not asked for.")
        for part in empty
    )
    seen = {tag for part in found for tag in part.traits}
    unseen = tuple(
        Problem("warning", f"trait {tag!r}", "is seen in less than half of the pictures, and is not asked for.",
                "Look whether the dataset shows it.")
        for tag in given if tag not in seen
    )  # fmt: skip
    return Subject(found), (*notes, *unseen)


def with_scenes(asked: Subject, examples: Sequence[Example], looking: Looking, count: int) -> Subject:
    """Return a subject with scenes: clothes of one caption and the rest of another, so that most are in no picture.

    Of the captions' tags those are asked for that the tagger can see, that several captions have, and not most of them.
    """
    triggers = {key(tag) for part in asked.parts for word in part.words for tag in split(word)}
    barred = triggers | {key(tag) for tag in asked.traits}
    counts = Counter(key(tag) for example in examples for tag in dict.fromkeys(example.caption))
    choices = {
        tag for tag, times in counts.items()
        if tag not in barred and tag in looking.known and FEW <= times <= max(FEW, HALF * len(examples))
    }  # fmt: skip
    scenes = []
    for number in range(count):
        draw = random.Random(derive(1, "pick scene", number))
        one, other = draw.choice(examples), draw.choice(examples)
        wanted = [tag for tag in one.caption if key(tag) in choices and _family(tag) in _WORN]
        wanted += [tag for tag in other.caption if key(tag) in choices and _family(tag) not in (*_WORN, "count")]
        kept = set(draw.sample(range(len(wanted)), min(MOST, len(wanted))))
        who = tuple(tag for tag in one.caption if _family(tag) == "count" and key(tag) not in barred)
        scenes.append(Scene(who, tuple(dict.fromkeys(tag for n, tag in enumerate(wanted) if n in kept))))
    return replace(asked, scenes=tuple(scenes))


def prompt(words: Iterable[str], scene: Scene | None = None) -> str:
    """Return a prompt of triggers and a scene; brackets in tags are plain characters."""
    tags = (*words, *scene.who, *scene.tags) if scene is not None else tuple(words)
    return as_prompt(join(tags), weighted=False)


def _traits(group: Sequence[Example], given: Sequence[str], looking: Looking) -> dict[str, float]:
    """Return the traits of a group's trigger with the share of its pictures in which the tagger sees each."""
    shown = [looking.shown(example.scores) for example in group]
    counts = Counter(tag for each in shown for tag in each)
    if given:
        wanted = {key(tag): tag for tag in given}
    elif any(example.before for example in group):
        wanted = _often(group, ({key(tag): tag for tag in example.before} for example in group))
    else:
        names = {key(label.name): label.name for label in looking.labels}
        wanted = _often(group, ({tag: names[tag] for tag in each} for each in shown))
    rates = {name: counts[tag] / len(group) for tag, name in wanted.items()}
    return {name: rate for name, rate in sorted(rates.items(), key=lambda each: (-each[1], each[0])) if rate >= HALF}


def _often(group: Sequence[Example], tags: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return the tags that most pictures of a group have and their captions have not."""
    counts: Counter[str] = Counter()
    names: dict[str, str] = {}
    for example, found in zip(group, tags, strict=True):
        own = {key(tag) for tag in example.caption}
        counts.update(tag for tag in found if tag not in own and _family(tag) not in _NEVER)
        names |= {tag: name for tag, name in found.items() if tag not in names}
    return {tag: names[tag] for tag, times in counts.items() if times >= HALF * len(group)}


def _family(tag: str) -> str:
    group = group_of(tag)
    return group.family if group is not None else ""
