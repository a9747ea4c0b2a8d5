"""From the scores of one picture to the tags of its caption: thresholds, several taggers, order and spelling."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lib_lora_trainer.tagging import rules
from lib_lora_trainer.tagging.models import Model
from lib_lora_trainer.tagging.options import TagOptions
from lib_lora_trainer.tagging.rules import Rule
from lib_lora_trainer.tagging.scores import Scored
from lib_lora_trainer.tagging.spelling import escaped, with_underscores

Kind = Literal["general", "character"]
LOWEST_CHARACTER = 0.15  # below it the demo's MCut takes no character (SmilingWolf's space wd-tagger, app.py)


@dataclass(frozen=True)
class Opinion:
    """What one tagger says about a picture. names: all tags it can give, in the spelling of captions."""

    scored: Scored
    about: Model
    names: frozenset[str]


@dataclass(frozen=True)
class Chosen:
    """One tag that is taken. score: in [0, 1]; of several taggers as `combined` says."""

    name: str
    kind: Kind
    score: float


@dataclass(frozen=True)
class _Voter:
    scores: Mapping[str, float]
    threshold: float
    names: frozenset[str]


def largest_gap(scores: Iterable[float]) -> float:
    """Return the middle of the largest gap between scores in order: MCut of Largeron, Moulin and Géry (IDA 2012).

    Of less than two scores it is 1, so that nothing is taken that no other score can be compared with.
    """
    ordered = np.sort(np.fromiter(scores, np.float64))[::-1]
    if len(ordered) < 2:
        return 1.0
    place = int(np.argmax(ordered[:-1] - ordered[1:]))
    return float(ordered[place] + ordered[place + 1]) / 2


def threshold(opinion: Opinion, kind: Kind, options: TagOptions) -> float:
    """Return from which score on a tagger's tags of a kind are taken in this picture."""
    if options.cut == "largest-gap":
        gap = largest_gap(getattr(opinion.scored, kind).values())
        return max(gap, LOWEST_CHARACTER) if kind == "character" else gap
    wanted: float = getattr(options, f"{kind}_threshold")
    own: float = getattr(opinion.about, kind)
    return wanted or own


def combined(voters: Sequence[_Voter], how: str) -> dict[str, float]:
    """Return the tags that several taggers take, with the highest, lowest or mean of their scores.

    A tag that a tagger does not know says nothing about the picture: for the intersection and the mean only taggers
    count that know it. A mean is compared with the mean of their thresholds.
    """
    if len(voters) == 1:
        return {name: score for name, score in voters[0].scores.items() if score >= voters[0].threshold}
    taken: dict[str, float] = {}
    for name in dict.fromkeys(name for voter in voters for name in voter.scores):
        heard = [voter for voter in voters if name in voter.names]
        scores = [voter.scores.get(name, 0.0) for voter in heard]
        votes = [score >= voter.threshold for score, voter in zip(scores, heard, strict=True)]
        if how == "union" and any(votes):
            taken[name] = max(scores)
        elif how == "intersection" and heard and all(votes):
            taken[name] = min(scores)
        elif how == "mean" and heard:
            mean = sum(scores) / len(scores)
            if mean >= sum(voter.threshold for voter in heard) / len(heard):
                taken[name] = mean
    return taken


def choose(opinions: Sequence[Opinion], options: TagOptions) -> tuple[Chosen, ...]:
    """Return the tags that are taken, highest score first, before any rule; equal scores by name."""
    found: list[Chosen] = []
    kinds: tuple[Kind, ...] = ("general", "character")
    for kind in kinds:
        voters = [
            _Voter(getattr(opinion.scored, kind), threshold(opinion, kind, options), opinion.names)
            for opinion in opinions
        ]
        found += [Chosen(name, kind, score) for name, score in combined(voters, options.combine).items()]
    return tuple(sorted(found, key=lambda tag: (-tag.score, tag.name)))


def rating(opinions: Sequence[Opinion]) -> str:
    """Return the rating with the highest mean score; "" where no tagger gives ratings."""
    sums: dict[str, float] = {}
    for opinion in opinions:
        for name, score in opinion.scored.rating.items():
            sums[name] = sums.get(name, 0.0) + score
    return max(sums, key=lambda name: sums[name], default="")


def tags(opinions: Sequence[Opinion], options: TagOptions) -> tuple[str, ...]:
    """Return the tags of a picture's caption, in order and spelled as the options have it.

    Replaced first, then left out, so that an excluded tag is never written; then cut to the maximum, towards which the
    rating does not count. Raises ConfigError for a rule that `options.problems` would have told.
    """
    replaced, left_out = _rules(options.replace, options.exclude)

    def ruled(name: str) -> tuple[str, ...]:
        return rules.apply(rules.apply((name,), replaced), left_out)

    ranked: dict[str, Chosen] = {}
    for tag in choose(opinions, options):
        for written in ruled(tag.name):
            ranked.setdefault(written, tag)
    names = rules.apply(ranked, ())[: options.maximum or None]
    if options.order == "alphabet":
        names = tuple(sorted(names, key=str.casefold))
    if options.character_first:
        names = tuple(sorted(names, key=lambda name: ranked[name].kind != "character"))
    rated = ruled(rating(opinions)) if options.rating != "none" and rating(opinions) else ()
    ordered = (*rated, *names) if options.rating == "first" else (*names, *rated)
    return tuple(spelled(name, options) for name in rules.apply(ordered, ()))


@functools.lru_cache(maxsize=8)
def _rules(replace: tuple[str, ...], exclude: tuple[str, ...]) -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
    return tuple(map(rules.replacement, replace)), tuple(map(rules.exclusion, exclude))


def spelled(tag: str, options: TagOptions) -> str:
    """Return a tag as the options want it written."""
    if options.underscores:
        tag = with_underscores(tag)
    return escaped(tag) if options.escape else tag
