"""The smallest set of blocks that keeps enough of the trait recall, found by asking what sets keep.

What is guaranteed, given the answers: the set keeps enough in the images of the analysis and in those of other seeds,
and no single block of it can be left out without falling short in one of them. Smaller sets of quite other blocks may
exist: with B blocks there are 2^B sets, and the question is as hard as finding a smallest feature subset.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

Set = frozenset[str]
_FIRST, _BOTH = (False,), (False, True)  # which images decide: those of the analysis, or those of other seeds as well


@dataclass(frozen=True)
class Question:
    """What does a set of blocks keep? fresh: in images with other seeds than those that its blocks were chosen by."""

    blocks: Set
    fresh: bool


@dataclass(frozen=True)
class Answer:
    """What a set of blocks keeps of what the adapter adds to the recall, 1 for all."""

    question: Question
    share: float


@dataclass(frozen=True)
class Smallest:
    """The set that was found. blocks: the one that matters most first; share, fresh: what it keeps.

    without: what the set keeps without each of its blocks, the smaller of both shares where both were asked for.
    answers: all, in the order of asking.
    """

    blocks: tuple[str, ...]
    share: float
    fresh: float
    without: dict[str, float]
    answers: tuple[Answer, ...]


Asking = Generator[Question, float, Smallest]


def smallest(ranked: Sequence[str], keep: float) -> Asking:
    """Yield the sets whose share is to be sent in, and return the set that was found; nothing is asked twice.

    ranked: all blocks, the one that matters most first. First the shortest beginning of the ranking that keeps `keep` is
    looked for by halving. Then blocks are left out, the least one first, as long as the rest keeps enough, until each of
    them has been tried on the set as it is (backward elimination). Then the set is asked for at other seeds: a set
    chosen among many by chance-laden measurements is on the lucky side. If it falls short there, blocks are given back,
    the one that matters most first, until it keeps enough in both, and elimination goes on with both.
    All blocks keep 1 by definition, so that there is an end. One block stays in any case.
    """
    return (yield from _Search(tuple(ranked), keep).found())


class _Search:
    def __init__(self, ranked: tuple[str, ...], keep: float) -> None:
        self._ranked = ranked
        self._keep = keep
        self._known: dict[Question, float] = {}

    def found(self) -> Asking:
        chosen = yield from self._beginning()
        chosen = yield from self._eliminated(chosen, _FIRST)
        if not (yield from self._enough(Question(chosen, fresh=True))):
            for block in self._ranked:
                if block in chosen:
                    continue
                chosen = chosen | {block}
                if (yield from self._keeps(chosen, _BOTH)):
                    break
            chosen = yield from self._eliminated(chosen, _BOTH)
        share = yield from self._share(Question(chosen, fresh=False))
        fresh = yield from self._share(Question(chosen, fresh=True))
        inside = tuple(block for block in self._ranked if block in chosen)
        answers = tuple(Answer(question, value) for question, value in self._known.items())
        return Smallest(inside, share, fresh, self._without(chosen), answers)

    def _beginning(self) -> Generator[Question, float, Set]:
        low, high = 1, len(self._ranked)
        while low < high:
            middle = (low + high) // 2
            if (yield from self._enough(Question(frozenset(self._ranked[:middle]), fresh=False))):
                high = middle
            else:
                low = middle + 1
        return frozenset(self._ranked[:high])  # what the last success was, or all

    def _eliminated(self, chosen: Set, looks: tuple[bool, ...]) -> Generator[Question, float, Set]:
        again = True
        while again:
            again = False
            for block in reversed(self._ranked):
                if len(chosen) > 1 and block in chosen and (yield from self._keeps(chosen - {block}, looks)):
                    chosen = chosen - {block}
                    again = True  # what could not go before may go now
        return chosen

    def _keeps(self, blocks: Set, looks: tuple[bool, ...]) -> Generator[Question, float, bool]:
        for fresh in looks:
            if not (yield from self._enough(Question(blocks, fresh))):
                return False
        return True

    def _enough(self, question: Question) -> Generator[Question, float, bool]:
        return (yield from self._share(question)) >= self._keep - 1e-9

    def _share(self, question: Question) -> Generator[Question, float, float]:
        if len(question.blocks) == len(self._ranked):
            return 1.0
        if question not in self._known:
            self._known[question] = yield question
        return self._known[question]

    def _without(self, chosen: Set) -> dict[str, float]:
        found = {}
        for block in self._ranked:
            rest = chosen - {block}
            shares = [
                self._known[each] for each in (Question(rest, False), Question(rest, True)) if each in self._known
            ]
            if block in chosen and shares:
                found[block] = min(shares)
        return found
