"""Near-duplicates: which pictures are the same, resized, recompressed, cropped or mirrored; and which are variants.

Variants are one picture with a part changed: another expression, another colour of one garment. They are shown beside
their original and always kept. Nothing is removed here: the result is a proposal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from lib_lora_trainer.base.errors import DataError, Problem
from lib_lora_trainer.dataset import candidates, keeping, threads
from lib_lora_trainer.dataset.candidates import Candidate
from lib_lora_trainer.dataset.copies import same_content
from lib_lora_trainer.dataset.formats import DECODER_ERRORS, explain
from lib_lora_trainer.dataset.items import Item
from lib_lora_trainer.dataset.likeness import Judge, Likeness
from lib_lora_trainer.dataset.looks import Look, look_at, require_imagehash

Progress = Callable[[str, int, int], None]

CROWD = 12
"""Pictures that are the same by then, beyond which their remaining pairs are not compared one by one."""
ROUND = 64
"""Pairs that are compared before crowds are looked at again."""
IDENTICAL = Likeness("same", 1.0, 0.0, mirrored=False)


@dataclass(frozen=True)
class Pair:
    """Two pictures that were compared and found alike."""

    one: Path
    two: Path
    likeness: Likeness

    @property
    def variant(self) -> bool:
        """Whether a part of the one was changed in the other."""
        return self.likeness.kind == "variant"


@dataclass(frozen=True)
class Copies:
    """Files of one picture, at least one. keep: the best, with the reason; spare: the others, each with a reason."""

    keep: Path
    reason: str
    spare: tuple[tuple[Path, str], ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of them, the one to keep first."""
        return (self.keep, *(path for path, _ in self.spare))


@dataclass(frozen=True)
class Cluster:
    """One picture in all its files and variants. copies: a group for each variant; pairs: those that were compared."""

    copies: tuple[Copies, ...]
    pairs: tuple[Pair, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every picture of the cluster."""
        return tuple(path for each in self.copies for path in each.paths)

    @property
    def spare(self) -> tuple[Path, ...]:
        """What may go: every file but the best of each variant."""
        return tuple(path for each in self.copies for path, _ in each.spare)


@dataclass(frozen=True)
class Found:
    """The clusters of at least two pictures, in the order of their first ones, and pictures that could not be read."""

    clusters: tuple[Cluster, ...]
    problems: tuple[Problem, ...]


def clusters(pictures: Sequence[Item | Path], progress: Progress | None = None) -> Found:
    """Return which of some pictures are near-duplicates or variants of each other, and which files to keep.

    progress: called with (what is done, how many are done, how many there are); what it raises ends the search.
    A picture that is mirrored counts as the same. Pictures of one colour or of fewer than 16 pixels on a side are
    compared by their files' contents alone. Raises UserError when ImageHash is not installed.
    """
    require_imagehash()
    report = progress or _nobody
    paths = list(dict.fromkeys(each.path if isinstance(each, Item) else each for each in pictures))
    problems: list[Problem] = []
    identical = same_content(paths, lambda: report("comparing files", 0, len(paths)))
    again = {path: group[0] for group in identical for path in group[1:]}
    looks = _looks([path for path in paths if path not in again], problems, report)
    pairs = [Pair(group[0], path, IDENTICAL) for group in identical for path in group[1:]]
    known = {look.path for look in looks}
    pairs = [pair for pair in pairs if pair.one in known]
    pairs += _compared([look for look in looks if look.recognizable], problems, report)
    pixels = {look.path: look.width * look.height for look in looks}
    pixels |= {path: pixels[first] for path, first in again.items() if first in pixels}
    found = _clusters(paths, pairs, pixels)
    proposed = [_proposed(cluster, problems, report, (number, len(found))) for number, cluster in enumerate(found)]
    return Found(tuple(proposed), tuple(dict.fromkeys(problems)))


def _nobody(_what: str, _done: int, _whole: int) -> None:
    """Follow no progress."""


def _looks(paths: Sequence[Path], problems: list[Problem], report: Progress) -> list[Look]:
    def look(path: Path) -> Look | Problem:
        try:
            return look_at(path)
        except DECODER_ERRORS as error:
            return explain(path, error)

    looks = []
    with closing(threads.in_order(look, paths)) as results:
        for done, result in enumerate(results, start=1):
            if isinstance(result, Problem):
                problems.append(result)
            else:
                looks.append(result)
            report("reading pictures", done, len(paths))
    return looks


def _compared(looks: Sequence[Look], problems: list[Problem], report: Progress) -> list[Pair]:
    """Return the pairs of pictures that are the same or variants."""
    found = candidates.find(looks, lambda done, whole: report("looking for likely pairs", done, whole))
    judge, groups = Judge(), _Groups()

    def compare(ways: Sequence[Candidate]) -> Likeness | Problem | None:
        one, two = looks[ways[0].one], looks[ways[0].two]
        try:
            return judge.compare(one, two, ways)
        except DECODER_ERRORS as error:  # the file changed since its look was taken
            return explain(two.path, error)

    pairs = []
    for start in range(0, len(found), ROUND):
        # What a round leaves out depends on earlier rounds alone, not on which thread is faster.
        part = [ways for ways in found[start : start + ROUND] if not groups.crowded(ways[0].one, ways[0].two)]
        with closing(threads.in_order(compare, part)) as results:
            for done, (ways, result) in enumerate(zip(part, results, strict=True), start=start + 1):
                if isinstance(result, Problem):
                    problems.append(result)
                elif result is not None:
                    one, two = ways[0].one, ways[0].two
                    pairs.append(Pair(looks[one].path, looks[two].path, result))
                    if result.kind == "same":
                        groups.join(one, two)
                report("comparing pictures", done, len(found))
    return pairs


class _Groups:
    """Numbers that belong together (union–find)."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}
        self._size: dict[int, int] = {}

    def of(self, number: int) -> int:
        """Return the number that stands for its group."""
        while (parent := self._parent.get(number, number)) != number:
            number = parent
        return number

    def join(self, one: int, two: int) -> None:
        """Put two numbers' groups together."""
        small, large = sorted((self.of(one), self.of(two)), key=self._members)
        if small != large:
            self._size[large] = self._members(small) + self._members(large)
            self._parent[small] = large

    def _members(self, root: int) -> int:
        return self._size.get(root, 1)

    def crowded(self, one: int, two: int) -> bool:
        """Tell whether two numbers are in one group already, and that is a large one."""
        root = self.of(one)
        return root == self.of(two) and self._members(root) > CROWD


def _clusters(paths: Sequence[Path], pairs: Sequence[Pair], pixels: Mapping[Path, int]) -> list[Cluster]:
    """Return the clusters, without proposals: the first file of each group stands for the one to keep.

    Two pictures that were found to be variants stay apart, also where a third one, too small to show the difference,
    looks the same as both: large pictures come together first, and the small one joins the more similar of them.
    """
    number = {path: index for index, path in enumerate(paths)}
    same, near = _Groups(), _Groups()
    apart: dict[int, set[int]] = {}
    for pair in pairs:
        near.join(number[pair.one], number[pair.two])
        if pair.variant and not pair.likeness.mirrored:  # a symmetric figure is a variant of itself in the mirror
            apart.setdefault(number[pair.one], set()).add(number[pair.two])
            apart.setdefault(number[pair.two], set()).add(number[pair.one])

    def order(pair: Pair) -> tuple[int, float, int, int]:
        detail = min(pixels[pair.one], pixels[pair.two]).bit_length()  # doublings: about the same size counts as equal
        return -detail, -pair.likeness.similarity, number[pair.one], number[pair.two]

    members: dict[int, list[int]] = {}
    for pair in sorted((pair for pair in pairs if not pair.variant), key=order):
        one, two = same.of(number[pair.one]), same.of(number[pair.two])
        if one == two:
            continue
        some, others = members.get(one, [one]), members.get(two, [two])
        if any(apart.get(each, set()).intersection(others) for each in some):
            continue
        same.join(one, two)
        members[same.of(one)] = sorted(some + others)
    return _assembled(paths, pairs, (same, near), number)


def _assembled(
    paths: Sequence[Path], pairs: Sequence[Pair], groups: tuple[_Groups, _Groups], number: Mapping[Path, int]
) -> list[Cluster]:
    same, near = groups
    by_cluster: dict[int, dict[int, list[Path]]] = {}
    for index, path in enumerate(paths):
        by_cluster.setdefault(near.of(index), {}).setdefault(same.of(index), []).append(path)
    own: dict[int, list[Pair]] = {}
    for pair in pairs:
        one, two = number[pair.one], number[pair.two]
        if not (pair.variant and same.of(one) == same.of(two)):
            own.setdefault(near.of(one), []).append(pair)
    return [
        Cluster(tuple(Copies(files[0], "", tuple((path, "") for path in files[1:])) for files in of.values()), pairs_of)
        for root, of in by_cluster.items()
        if (pairs_of := tuple(own.get(root, ())))
    ]


def _proposed(cluster: Cluster, problems: list[Problem], report: Progress, place: tuple[int, int]) -> Cluster:
    """Return a cluster with the best file of each of its pictures."""
    report("choosing the best", *place)
    copies = []
    for each in cluster.copies:
        if not each.spare:
            copies.append(Copies(each.keep, "the only one", ()))
            continue
        try:
            best = keeping.choose(each.paths)
        except DataError as error:  # a file changed meanwhile: all of them stay, the first one in front
            problems.append(Problem("warning", "data.sources", str(error), "Look for duplicates again."))
            copies += [Copies(path, "could not be compared", ()) for path in each.paths]
            continue
        copies.append(Copies(best.keep, best.reason, best.others))
    return Cluster(tuple(copies), cluster.pairs)
