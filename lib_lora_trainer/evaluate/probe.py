"""The contamination probe: what a bare word makes the base model draw, next to nothing and to words without meaning.

G3's test: pictures of a free word differ with every seed, as those of noise do; a word that the model knows draws the
same thing every time, which pushes the right way or has to be renamed. Here a tagger looks instead of a person, and
chance is told apart by Fisher's exact test. All words have the same seeds, which makes their pictures alike without any
meaning; the test takes them for independent, so that it errs on the side of calling a word free.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lib_lora_trainer.base.families import Family
from lib_lora_trainer.base.seeds import derive
from lib_lora_trainer.base.setting import setting
from lib_lora_trainer.captions import lexicon, triggers
from lib_lora_trainer.captions.reduced import as_prompt
from lib_lora_trainer.hosts.values import ImageRequest
from lib_lora_trainer.tagging.labels import RATING, Label

Verdict = Literal["free", "boosting", "contaminated"]

PRESENT = 0.5
"""A picture shows what the tagger gives this probability or more."""
SHIFT = 0.5
"""A word pushes a tag that it draws in so many more, or fewer, of its pictures: half of them."""
CHANCE = 0.01
"""Probability of calling a meaningless word contaminated, over all tags that are compared (Bonferroni)."""
FAR = 2.0
"""A word that moves pictures this many times as far as any meaningless one draws what the tagger has no tag for."""
SIDES: dict[Family, int] = {"sd1": 512, "sd2": 768, "sdxl": 1024}
_CLIP = 0.001
_LETTERS = ("bcdfghjklmnpqrstvwxz", "aeiou")


@dataclass(frozen=True)
class ProbeOptions:
    """How a word is probed."""

    pictures: int = setting(
        8, "Pictures of each word, one a seed. With fewer than six, chance explains nearly everything.",
        label="Pictures", minimum=4, maximum=64,
    )  # fmt: skip
    random_words: int = setting(
        3, "Words without meaning that it is compared with.", label="Random words", minimum=1, maximum=8
    )
    seed: int = setting(1, "The first seed; equal for all words.", label="Seed", minimum=0)
    steps: int = setting(20, "Sampling steps.", label="Steps", minimum=1, maximum=150)
    guidance: float = setting(7.0, "Guidance (CFG scale).", label="Guidance", minimum=1.0, maximum=30.0)
    side: int = setting(
        0, "Width and height of the pictures; 0: 512 for SD 1, 768 for SD 2, 1024 for SDXL.",
        label="Size", minimum=0, maximum=2048, unit="px",
    )  # fmt: skip
    sampler: str = setting("Euler a", "The host's name of the sampler.", label="Sampler")
    clip_skip: int = setting(1, "As in training.", label="Clip skip", minimum=1, maximum=12)


@dataclass(frozen=True)
class Panel:
    """The pictures of one prompt. scores: (pictures, labels) float32 in [0, 1], in the order of the seeds."""

    word: str
    scores: NDArray[np.float32]


@dataclass(frozen=True)
class Pushed:
    """A tag that a word draws more often than chance allows, or less.

    rate: share of its pictures that show it, in [0, 1]; usual: share of the pictures without the word; chance:
    probability of so much of a difference, over all tags.
    """

    tag: str
    rate: float
    usual: float
    chance: float


@dataclass(frozen=True)
class Reading:
    """What the probe says about a word.

    pushed: tags it draws, suppressed: tags it keeps away, both by size. consistency: mean cosine between what it
    changes at two seeds, in [-1, 1]: 0 for noise, 1 for the same change every time. drift: how far it moves the mean
    picture away from the empty prompt's, in multiples of the meaningless words' mean: 1 for such a word.
    usual_consistency: the meaningless words' mean.
    """

    word: str
    verdict: Verdict
    pushed: tuple[Pushed, ...]
    suppressed: tuple[Pushed, ...]
    consistency: float
    usual_consistency: float
    drift: float
    text: str


def random_words(seed: int, count: int, without: Iterable[str] = ()) -> tuple[str, ...]:
    """Return words that mean nothing: consonants and vowels in turn, eight letters; equal seeds give equal words."""
    known = {*lexicon.words(), *without}
    found: list[str] = []
    number = 0
    while len(found) < count:
        draw = random.Random(derive(seed, "random word", number))
        word = "".join(draw.choice(_LETTERS[place % 2]) for place in range(8))
        if word not in known and word not in found:
            found.append(word)
        number += 1
    return tuple(found)


def requests(word: str, options: ProbeOptions, family: Family) -> tuple[ImageRequest, ...]:
    """Return the pictures to make of a bare word; "" for the empty prompt. All words have the same seeds."""
    side = options.side or SIDES[family]
    prompt = as_prompt(word, weighted=False)
    return tuple(
        ImageRequest(
            prompt,
            seed=options.seed + number,
            steps=options.steps,
            guidance=options.guidance,
            width=side,
            height=side,
            sampler=options.sampler,
            clip_skip=options.clip_skip,
        )
        for number in range(options.pictures)
    )


def read(
    panel: Panel, empty: Panel, meaningless: Sequence[Panel], labels: Sequence[Label], wanted: Collection[str] = ()
) -> Reading:
    """Return what a word's pictures say, compared with those of the empty prompt and of meaningless words.

    wanted: tags that the word is to stand for; drawing these, and no others, is boosting. All panels have the same
    seeds, one at least of them meaningless; labels: of the tagger, of which ratings do not count.
    """
    columns = [place for place, label in enumerate(labels) if label.category != RATING]
    names = [labels[place].name for place in columns]
    mine, nothing = panel.scores[:, columns], empty.scores[:, columns]
    others = [each.scores[:, columns] for each in meaningless]
    usual = np.concatenate([nothing, *others])
    shown = (mine >= PRESENT).sum(0)
    before = (usual >= PRESENT).sum(0)
    compared = [place for place in range(len(names)) if shown[place] or before[place]]
    pushed: list[Pushed] = []
    suppressed: list[Pushed] = []
    for place in compared:
        hits, others_hits = int(shown[place]), int(before[place])
        rate, rest = hits / len(mine), others_hits / len(usual)
        chance = fisher((hits, len(mine)), (others_hits, len(usual)), more=rate > rest) * 2 * len(compared)
        if abs(rate - rest) >= SHIFT and chance < CHANCE:
            (pushed if rate > rest else suppressed).append(Pushed(names[place], rate, rest, chance))
    moves = [_distance(other, nothing) for other in others]
    drift, farthest = _distance(mine, nothing), max(moves)
    mean = sum(moves) / len(moves)
    far = drift > FAR * farthest
    verdict = _verdict(pushed, suppressed, wanted, far=far)
    for side in (pushed, suppressed):
        side.sort(key=lambda each: (-abs(each.rate - each.usual), each.tag))
    return Reading(
        word=panel.word,
        verdict=verdict,
        pushed=tuple(pushed),
        suppressed=tuple(suppressed),
        consistency=consistency(mine, nothing),
        usual_consistency=sum(consistency(other, nothing) for other in others) / len(others),
        drift=drift / mean if mean > 0 else 0.0 if drift == 0 else math.inf,
        text=_words(panel.word, verdict, (pushed, suppressed), wanted),
    )


def fisher(mine: tuple[int, int], others: tuple[int, int], *, more: bool) -> float:
    """Return the one-sided probability of Fisher's exact test for (hits, of) against (hits, of).

    more: that the first has so many hits or more, else so few or fewer, when all hits are dealt at random.
    """
    (hits, size), (other_hits, other_size) = mine, others
    total, whole = hits + other_hits, size + other_size
    lowest, highest = max(0, total - other_size), min(total, size)
    span = range(hits, highest + 1) if more else range(lowest, hits + 1)
    ways = sum(math.comb(total, count) * math.comb(whole - total, size - count) for count in span)
    return ways / math.comb(whole, size)


def consistency(mine: NDArray[np.float32], nothing: NDArray[np.float32]) -> float:
    """Return the mean cosine between the changes at two seeds, in [-1, 1]; 0 where nothing changes.

    mine, nothing: (pictures, tags) probabilities at the same seeds; a change is the difference of their log odds, so
    that 0.01 to 0.1 counts as 0.5 to 0.92 does.
    """
    changes = _log_odds(mine) - _log_odds(nothing)
    lengths = np.linalg.norm(changes, axis=1, keepdims=True)
    units = np.divide(changes, lengths, out=np.zeros_like(changes), where=lengths > 0)
    count = len(units)
    whole = float(np.square(units.sum(0)).sum() - np.square(units).sum())
    return whole / (count * (count - 1)) if count > 1 else 0.0


def _distance(mine: NDArray[np.float32], nothing: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(mine.mean(0) - nothing.mean(0)))


def _log_odds(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    clipped = np.clip(scores.astype(np.float64), _CLIP, 1 - _CLIP)
    result: NDArray[np.float64] = np.log(clipped / (1 - clipped))
    return result


def _verdict(pushed: list[Pushed], suppressed: list[Pushed], wanted: Collection[str], *, far: bool) -> Verdict:
    right = {lexicon.key(tag) for tag in wanted}
    if pushed and all(lexicon.key(each.tag) in right for each in pushed):
        return "boosting"  # what stands in the way of a wanted tag gives way to it
    return "contaminated" if pushed or suppressed or far else "free"


def _words(word: str, verdict: Verdict, found: tuple[list[Pushed], list[Pushed]], wanted: Collection[str]) -> str:
    pushed, suppressed = found
    draws = ", ".join(f"{each.tag} in {each.rate:.0%} of its pictures, else {each.usual:.0%}" for each in pushed[:3])
    if verdict == "free":
        return f"{word!r} draws nothing of its own: it can be a trigger."
    if verdict == "boosting":
        return f"{word!r} already draws what it is to stand for: {draws}. It learns faster, and keeps it."
    if draws:
        other = " besides what it is to stand for" if wanted else ""
        said = f"{word!r} has a meaning{other}: {draws}"
    elif suppressed:
        said = f"{word!r} keeps {', '.join(each.tag for each in suppressed[:3])} away"
    else:
        said = f"{word!r} changes pictures in a way that the tagger has no word for"
    return f"{said}. Rename it, for example to {triggers.suggestion(word)}, and probe again."
