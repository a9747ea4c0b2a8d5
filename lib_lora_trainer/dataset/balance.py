"""Repeats that show every concept equally often: proposed from a scan, applied by renaming folders."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.config.data import DataConfig
from lib_lora_trainer.dataset.entries import absolute, printable
from lib_lora_trainer.dataset.items import Concept, Scan, whole
from lib_lora_trainer.dataset.repeats import MAXIMUM_REPEATS, factor_in_file, number_in_name, words_in_name
from lib_lora_trainer.dataset.tools.arrange import multiply_file
from lib_lora_trainer.dataset.tools.members import EXCLUDED, Dataset
from lib_lora_trainer.dataset.tools.names import Names
from lib_lora_trainer.dataset.tools.operations import Operation, Proposal, move, shown
from lib_lora_trainer.dataset.tools.options import GRADES, Goal

OFF = 0.25  # of the target: from here on the rounding of repeats is told


@dataclass(frozen=True)
class Row:
    """One concept. group: the trigger it shares, "" for none; number: repeats without `multiply.txt`, now and then.

    exposures: per epoch, now; proposed: then; target: what was aimed at.
    """

    concept: str
    folder: Path
    source: int
    group: str
    grade: str
    images: int
    factor: float
    number: int
    wanted: int
    target: float

    @property
    def exposures(self) -> float:
        """Exposures per epoch now."""
        return whole(self.images * self.factor * self.number)

    @property
    def proposed(self) -> float:
        """Exposures per epoch with the proposed repeats."""
        return whole(self.images * self.factor * self.wanted)

    def facts(self) -> dict[str, Any]:
        """Return it in JSON's types."""
        values = {**asdict(self), "folder": printable(self.folder)}
        return {**values, "exposures": self.exposures, "proposed": self.proposed}

    def __str__(self) -> str:
        once = f"{self.images}" if self.factor == 1 else f"{self.images} × {self.factor:g}"
        now, then = (f"× {self.number} = {self.exposures:g}", f"× {self.wanted} = {self.proposed:g}")
        return f"{self.concept}: {once} {now} → {then}"


@dataclass(frozen=True)
class Balance:
    """A proposal for all concepts. totals: proposed exposures per epoch by group, or by concept without one."""

    rows: tuple[Row, ...]
    totals: dict[str, float]
    problems: tuple[Problem, ...]

    def facts(self) -> dict[str, Any]:
        """Return it in JSON's types, without its problems."""
        return {"rows": [row.facts() for row in self.rows], "totals": self.totals}


def propose(scan: Scan, goal: Goal, triggers: Sequence[str] = ()) -> Balance:
    """Return repeats by which every concept gets the goal's exposures, as nearly as whole repeats allow, one at least.

    A concept is a folder; folders that share a trigger are parts of one concept. Regularization images are not
    balanced. The factor in a folder's `multiply.txt` stays and is reckoned with.
    """
    concepts = [concept for concept in scan.concepts if not concept.regularization]
    groups = shared_triggers(scan, triggers) if goal.groups is None else goal.groups
    sizes = Counter(groups.get(concept.name, concept.name) for concept in concepts)
    rows = []
    for concept in concepts:
        group = groups.get(concept.name, "")
        parts = sizes[group or concept.name]
        grade = goal.grades.get(concept.name, "A").upper()
        target = (goal.exposures if parts == 1 else goal.part or goal.exposures / parts) * GRADES[grade]
        rows.append(_row(concept, group if parts > 1 else "", grade, target))
    totals: dict[str, float] = {}
    for row in rows:
        name = row.group or row.concept
        totals[name] = whole(totals.get(name, 0) + row.proposed)
    return Balance(tuple(rows), totals, (*_problems(rows), *_over_budget(totals, goal)))


def grade_problems(goal: Goal) -> tuple[Problem, ...]:
    """Return an error for every grade that is none."""
    return tuple(
        Problem("error", f"grades.{name}", f"{grade!r} is no grade.", f"Use one of {', '.join(GRADES)}.")
        for name, grade in goal.grades.items()
        if grade.upper() not in GRADES
    )


def shared_triggers(scan: Scan, triggers: Sequence[str]) -> dict[str, str]:
    """Return for each concept the trigger that it shares with most others; concepts that share none are absent.

    A concept has a trigger when more than half of its captions have it as a word.
    """
    captions: dict[str, list[str]] = {}
    for item in scan.items:
        if not item.regularization:
            captions.setdefault(item.concept, []).append(_plain(item.caption))
    owners = {
        trigger: [
            concept
            for concept, texts in captions.items()
            if 2 * sum(_has(text, _plain(trigger)) for text in texts) > len(texts)
        ]
        for trigger in triggers
        if trigger.strip()
    }
    found: dict[str, str] = {}
    for trigger, concepts in sorted(owners.items(), key=lambda each: -len(each[1])):
        if len(concepts) > 1:
            found = {**dict.fromkeys(concepts, trigger), **found}
    return found


def _plain(text: str) -> str:
    return text.replace("_", " ").casefold()


def _has(caption: str, trigger: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(trigger)}(?!\w)", caption) is not None


def _row(concept: Concept, group: str, grade: str, target: float) -> Row:
    file = multiply_file(concept.folder)
    factor = factor_in_file(file) if file else 1.0
    return Row(
        concept=concept.name,
        folder=concept.folder,
        source=concept.source,
        group=group,
        grade=grade,
        images=concept.images,
        factor=factor,
        number=round(concept.repeats / factor),
        wanted=_nearest(target, concept.images * factor),
        target=target,
    )


def _nearest(target: float, once: float) -> int:
    """Return the number of repeats whose exposures are nearest to the target, the smaller of two; 1 at least."""
    below = max(1, min(MAXIMUM_REPEATS, math.floor(target / once)))
    above = min(MAXIMUM_REPEATS, below + 1)
    return above if abs(above * once - target) < abs(below * once - target) else below


def _problems(rows: Sequence[Row]) -> Iterator[Problem]:
    for row in rows:
        if row.wanted == 1 and row.proposed > row.target * (1 + OFF):
            text = (
                f"shows {row.proposed:g} pictures per epoch without any repeats, more than its share of {row.target:g}."
            )
            fix = "Leave some out, write a number below 1 into its multiply.txt, or raise the exposures for all."
            yield Problem("warning", row.concept, text, fix)
        elif abs(row.proposed - row.target) > OFF * row.target:
            text = (
                f"cannot come nearer to {row.target:g} exposures than {row.proposed:g}, as repeats are whole numbers."
            )
            yield Problem("note", row.concept, text)


def _over_budget(totals: Mapping[str, float], goal: Goal) -> Iterator[Problem]:
    for name, exposures in totals.items():
        if goal.budget and exposures * goal.epochs > goal.budget:
            text = f"is shown {exposures * goal.epochs:g} times in {goal.epochs} epochs; its budget is {goal.budget}."
            yield Problem("warning", name, text, "Lower the exposures or the epochs, or raise the budget.")


def plan(balance: Balance, dataset: Dataset) -> Iterator[Proposal]:
    """Yield for each concept of a source its folder's new name, N_words; none where the right number counts already.

    The folders that answer to it among the masks and the excluded pictures are renamed alike. What keeps a folder from
    being renamed is a problem. Inner folders come first, so that the operations can be done in their order.
    """
    rows = [row for row in balance.rows if row.source == dataset.index]
    numbers: dict[Path, int] = {}
    proposals = []
    names = Names()
    for row in sorted(rows, key=lambda row: len(row.folder.parts)):
        problem = _unnameable(row, dataset)
        own = number_in_name(row.folder.name)
        counts = own if own is not None and own <= MAXIMUM_REPEATS else _inherited(row.folder, dataset, numbers)
        if problem is not None and row.wanted != row.number:
            proposals.append(Proposal(row.folder, (), row.facts(), {}, (problem,)))
        elif problem is not None or counts == row.wanted:
            proposals.append(Proposal(row.folder, (), row.facts()))
        else:
            numbers[row.folder] = row.wanted
            words = row.folder.name if own is not None and own > MAXIMUM_REPEATS else words_in_name(row.folder.name)
            target = names.folder(row.folder.parent, f"{row.wanted}_{words}")
            after = {"folder": shown(target, dataset.root), "repeats": row.wanted, "exposures": row.proposed}
            proposals.append(Proposal(row.folder, tuple(_renames(row.folder, target, dataset)), row.facts(), after))
    yield from reversed(proposals)


def _inherited(folder: Path, dataset: Dataset, numbers: Mapping[Path, int]) -> int:
    """Return the repeats that a folder without a number gets from those around it, as they will be named."""
    for place in folder.parents:
        own = numbers.get(place, number_in_name(place.name))
        if own is not None and own <= MAXIMUM_REPEATS:
            return own
        if place == dataset.root:
            break
    return 1


def _renames(folder: Path, target: Path, dataset: Dataset) -> Iterator[Operation]:
    mirrors = [dataset.root, dataset.root / EXCLUDED]
    mirrors += [dataset.masks, dataset.masks / EXCLUDED] if dataset.masks is not None else []
    inside, to = folder.relative_to(dataset.root), target.relative_to(dataset.root)
    for mirror in mirrors:
        if (mirror / inside).is_dir():
            yield move(mirror / inside, mirror / to)


def _unnameable(row: Row, dataset: Dataset) -> Problem | None:
    """Return why a folder cannot be renamed, None if it can."""
    where, source = printable(row.folder), dataset.data.sources[dataset.index]
    if source.repeats:
        text = f"its source sets {source.repeats} repeats for all its folders."
        return Problem("warning", where, text, "Set the source's repeats to 0, so that folders' names count.")
    if row.folder == dataset.root:
        text = f"is the source itself, which is not renamed; it would take {row.wanted} repeats."
        alone = len(dataset.folders) == 1
        fix = f"Set the source's repeats to {row.wanted}." if alone else "Move its pictures into a folder inside it."
        return Problem("warning", where, text, fix)
    for path in _paths_in_settings(dataset.data):
        if path.is_relative_to(row.folder):
            text = f"holds a folder that the settings name, {printable(path)}, and cannot be renamed."
            return Problem("warning", where, text, "Move that folder elsewhere, and choose it there.")
    return None


def _paths_in_settings(data: DataConfig) -> Iterator[Path]:
    for source in data.sources:
        yield from (absolute(path) for path in (source.path, source.masks) if path.strip())
