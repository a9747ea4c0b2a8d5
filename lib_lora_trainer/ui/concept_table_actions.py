"""What happens on: grading a folder, balancing concepts, counting monochrome pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import gradio as gr

from lib_lora_trainer.app import dataset_tools
from lib_lora_trainer.app.dataset_tools import Draft
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError, DataError, Problem, ProblemsFound
from lib_lora_trainer.base.setting import range_problems
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.dataset import balance as balancing
from lib_lora_trainer.dataset.balance import Balance, Row
from lib_lora_trainer.dataset.entries import absolute, printable
from lib_lora_trainer.dataset.items import Scan
from lib_lora_trainer.dataset.tools.options import Goal
from lib_lora_trainer.ui import concept_table, findings, gallery_history
from lib_lora_trainer.ui import concept_table_goal as goals
from lib_lora_trainer.ui import page as pages
from lib_lora_trainer.ui.concept_table import NUMBERS
from lib_lora_trainer.ui.concept_table_goal import Balanced, Repeats
from lib_lora_trainer.ui.gallery_history import notes
from lib_lora_trainer.ui.page import QUIET, WORKING, Page, Updates, told
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.session import Session, project_of


@dataclass(frozen=True)
class Proposed:
    """A balance that can be applied. drafts: the folders to rename, by source; repeats: settings to change."""

    balance: Balance
    drafts: tuple[Draft, ...]
    repeats: tuple[Repeats, ...]
    problems: tuple[Problem, ...]

    @property
    def renames(self) -> Iterator[tuple[str, str]]:
        """The folders' names before and after."""
        for draft in self.drafts:
            for proposal in draft.proposals:
                if proposal.operations:
                    yield printable(proposal.about.name), Path(str(proposal.after["folder"])).name


def wire(place: Place, page: Page, save: Callable[..., Updates], refresh: Callable[[Any], None]) -> None:
    """Connect the events. save: saves the form first, so that nothing typed in it is lost; refresh: scans after one."""
    table = page.dataset.table
    told_too = {page.bar.notice, page.styles}
    numbers = [table.numbers[name] for name in NUMBERS]
    deciding = table.deciding | told_too

    def grade(session: Session, chosen: str) -> Updates:
        key, letter = _chosen(chosen)
        goals.set_grade(project_of(place.projects, session), key, letter)
        return {page.bar.notice: ""}

    def aim(session: Session, *entered: Any) -> Updates:
        keep(place, session, entered)
        return {page.bar.notice: ""}

    def propose(session: Session, *entered: Any) -> Updates:
        place.gate()
        keep(place, session, entered)
        made = proposed(place, session)
        html = concept_table.proposal_html(made.balance, list(made.renames), made.repeats, made.problems)
        something = any(draft.operations for draft in made.drafts) or bool(made.repeats)
        return {
            table.proposal: html,
            table.pending: made if something else None,
            table.confirm_row: gr.update(visible=something),
            page.bar.notice: "",
        }

    def again(session: Session, pending: Proposed | None) -> Updates:
        if pending is None:
            return {}
        updates = propose(session, *_aimed(place, session))
        updates.pop(page.bar.notice)  # it may say what was wrong with the grade
        return updates

    def confirm(session: Session, pending: Proposed | None, key: str) -> Updates:
        place.gate()
        if pending is None:
            raise DataError("Nothing is waiting for a confirmation. Press “Balance” first.")
        said, config = applied(place, session, pending)
        updates = pages.with_sources(place, page, session, config, key)
        return {**updates, **nothing_pending(page), page.bar.notice: findings.notice(said)}

    chosen = table.grade.click(
        told(page, grade), [page.session, table.chosen], told_too,
        _js="() => [null, loraTrainerGallery.graded()]", **QUIET,
    )  # fmt: skip
    chosen.then(told(page, again), [page.session, table.pending], deciding, **QUIET)
    for number in numbers:
        for event in (number.blur, number.submit):
            event(told(page, aim), [page.session, *numbers], told_too, **QUIET)
    table.balance.click(told(page, propose), [page.session, *numbers], deciding, **WORKING)
    table.refuse.click(lambda: nothing_pending(page), None, table.deciding, **QUIET)
    saved = table.confirm.click(save, [page.session, *page.form], page.saving, **QUIET)
    done = saved.then(
        told(page, confirm), [page.session, table.pending, page.dataset.folders.key], page.saving | deciding, **WORKING
    )
    refresh(done)


def nothing_pending(page: Page) -> Updates:
    """Return the updates that take a proposal away."""
    table = page.dataset.table
    return {table.proposal: "", table.pending: None, table.confirm_row: gr.update(visible=False)}


def _chosen(chosen: str) -> tuple[str, str]:
    try:
        key, letter = json.loads(chosen or "")
    except (ValueError, TypeError) as error:
        raise ConfigError(f"grade: {chosen!r} is no choice. Reload the page.") from error
    return str(key), str(letter)


def _aimed(place: Place, session: Session) -> tuple[int, ...]:
    aim = goals.load(project_of(place.projects, session))
    return tuple(getattr(aim, name) for name in NUMBERS)


def keep(place: Place, session: Session, entered: Sequence[Any]) -> None:
    """Keep the goal's numbers. Raises ProblemsFound for impossible ones, and keeps none then."""
    project = project_of(place.projects, session)
    usual = goals.Aim()
    exposures, part, budget = (
        getattr(usual, name) if raw is None else int(raw) for name, raw in zip(NUMBERS, entered, strict=True)
    )
    problems = range_problems(Goal(exposures, part, budget=budget))
    if problems:
        raise ProblemsFound(tuple(problems))
    if _aimed(place, session) != (exposures, part, budget):
        goals.set_numbers(project, exposures, part, budget)


def proposed(place: Place, session: Session) -> Proposed:
    """Return repeats for all concepts of the latest scan, and what gives them. Raises DataError without a scan."""
    project, config = project_of(place.projects, session), session.config
    scan = place.scans.last(session.project)
    if scan is None or not place.scans.current(session.project, config):
        raise DataError("The settings have changed since the scan. Press “Scan folders”, then balance again.")
    goal = goals.load(project).goal(scan, config.training.epochs)
    balance = balancing.propose(scan, goal, config.triggers)
    repeats = settings_for(balance, config)
    settled = {absolute(each.path) for each in repeats}
    drafts = tuple(
        dataset_tools.draft_balance(balance, config.data, index) for index in range(len(config.data.sources))
    )
    problems = [*balance.problems]
    problems += [problem for draft in drafts if draft.root not in settled for problem in draft.problems]
    return Proposed(balance, drafts, repeats, tuple(dict.fromkeys(problems)))


def settings_for(balance: Balance, config: RunConfig) -> tuple[Repeats, ...]:
    """Return the sources whose repeats have to change because renaming folders cannot do it.

    A source's repeats hold for all its folders, so they change only where all are to have the same: where they are set
    already, or where the source's own folder, which is not renamed, is its only concept.
    """
    changes = []
    for index, source in enumerate(config.data.sources):
        rows = [row for row in balance.rows if row.source == index]
        wanted = {row.wanted for row in rows}
        if len(wanted) == 1 and (source.repeats or _only_root(rows, source.path)):
            (number,) = wanted
            if {row.number for row in rows} != wanted:
                changes.append(Repeats(source.path, source.repeats, number))
    return tuple(changes)


def _only_root(rows: Sequence[Row], path: str) -> bool:
    return len(rows) == 1 and rows[0].folder == absolute(path)


def applied(place: Place, session: Session, pending: Proposed) -> tuple[list[str], RunConfig]:
    """Rename the folders through their journals; return what to say, and the settings with the new repeats."""
    project = project_of(place.projects, session)
    time = datetime.now().isoformat(timespec="seconds")
    drafts = [draft for draft in pending.drafts if draft.operations]
    said = [text for draft in drafts for text in notes(dataset_tools.apply(draft, Control()))]
    entries = []
    for draft in drafts:
        entry = dataset_tools.next_to("undo", draft.root)
        entries += [(str(draft.root), entry.number)] if entry else []
    count = len(list(pending.renames))
    text = f"Balanced repeats: {count} folders renamed, {len(pending.repeats)} settings changed"
    goals.remember(project, Balanced(text, time, tuple(entries), pending.repeats))
    config = gallery_history.with_repeats(session.config, pending.repeats, "redo")
    return [*said, f"{text}."], config


def wire_monochrome(place: Place, page: Page, begin: Callable[..., Updates], show: Callable[..., Updates]) -> None:
    """Connect the count of monochrome pictures. begin, show: as of a scan, since it reads every picture, too."""
    data = page.dataset
    told_too = {page.bar.notice, page.styles}
    under_way = {data.cancel, data.progress, page.status, *told_too}

    def count(session: Session) -> Updates:
        try:
            place.gate()
            project_of(place.projects, session)
            found = _scan(place, session)
            place.scans.look_for_monochrome(session.project, found)
        finally:
            place.scans.end(session.project)
        return {page.bar.notice: ""}

    begun = data.table.monochrome.click(told(page, begin), [page.session], under_way, **QUIET)
    counted = begun.then(told(page, count), [page.session], told_too, **WORKING)
    counted.then(told(page, show), [page.session], {page.seen_scan, *data.shown, *under_way}, **QUIET)


def _scan(place: Place, session: Session) -> Scan:
    scan = place.scans.last(session.project)
    if scan is None:
        raise DataError("The folders are not scanned yet. Press “Scan folders”.")
    return scan
