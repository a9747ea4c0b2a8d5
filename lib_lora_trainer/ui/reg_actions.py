"""What happens on: listing reduced captions, generating, reviewing and re-rolling regularization images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from lib_lora_trainer.app import dataset_tools, reg_folder, reg_jobs, reg_project
from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.config.paths import put
from lib_lora_trainer.ui import findings, reg_form, reg_making, reg_options, reg_state, tools_work, whole_actions
from lib_lora_trainer.ui.page import QUIET, WORKING, Page, Updates, told
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.reg_form import Held, Listed
from lib_lora_trainer.ui.reg_making import Mode
from lib_lora_trainer.ui.reg_work import Bench
from lib_lora_trainer.ui.session import Session, project_of
from lib_lora_trainer.ui.tools_work import Works


def wire(place: Place, page: Page, refresh: Callable[[Any], Any], works: Works | None = None) -> None:
    """Connect the step's events.

    refresh: follows an event by a new scan. works: the jobs under way; the process's own if absent.
    """
    bench = Bench(place, page.reg, works or tools_work.shared())
    _wire_look(page, bench)
    _wire_form(page, bench)
    _wire_list(page, bench)
    _wire_making(page, bench, refresh)
    _wire_images(page, bench, refresh)
    _wire_source(place, page, bench, refresh)


def _wire_look(page: Page, bench: Bench) -> None:
    tab = page.reg
    known = [page.session, tab.held, tab.listed, tab.leafed]
    outputs = bench.outputs | tab.form | {tab.seen}
    for event in (page.reg_step.select, page.dataset.gallery.mark.change):  # the second: another project, or scan
        event(bench.guarded(bench.look), known, outputs, **QUIET)
    page.refresh.click(bench.guarded(bench.follow), [*known, tab.seen], outputs, **QUIET)


def _wire_form(page: Page, bench: Bench) -> None:
    tab = page.reg

    def save(session: Session, held: Held, listed: Listed, beside: str, *entered: Any) -> Updates:
        wish = bench.wish(session, held, entered)
        kept = reg_project.save(project_of(bench.place.projects, session), wish.options, held.kept.options)
        right: Updates = {tab.beside: "", tab.said: ""} if beside else {}  # another message stays
        return {
            **right, **reg_form.relevant(tab, kept.options.prompts), **bench.stale(session, listed, kept.options),
            tab.held: Held(session.project, kept),
        }  # fmt: skip

    def choose(session: Session, held: Held, folder: str | None) -> Updates:
        return {tab.marks: reg_options.marks_of(folder, held.kept.options, session.config)}

    outputs = {tab.held, tab.beside, tab.said, tab.stale, tab.by_folder, *tab.settings.values()}
    sent = [page.session, tab.held, tab.listed, tab.beside, *tab.entered]
    for component in tab.entered:
        if component is tab.of:
            continue
        kind = type(component).__name__.lower()
        events = [component.input] if kind in ("dropdown", "radio") else [component.blur, component.submit]
        for event in events:
            event(bench.guarded(save), sent, outputs, **QUIET)
    tab.of.input(bench.guarded(choose), [page.session, tab.held, tab.of], {tab.marks, tab.said, tab.beside}, **QUIET)


def _wire_list(page: Page, bench: Bench) -> None:
    tab = page.reg

    def work(session: Session, held: Held, number: int, *entered: Any) -> Iterator[Updates]:
        yield from bench.started(reg_state.LISTING, reg_making.listing, session, held, number, entered)

    def turner(change: int) -> Callable[..., Updates]:
        def turn(session: Session, listed: Listed) -> Updates:
            return bench.turned(session, replace(listed, page=listed.page + change))

        return bench.guarded(turn)

    def show(session: Session, listed: Listed, which: str) -> Updates:
        return bench.turned(session, replace(listed, which=which, page=0))

    tab.list.click(work, [page.session, tab.held, tab.leafed, *tab.entered], bench.outputs, **WORKING)
    outputs = tab.listing | {tab.said, tab.beside}
    for button, change in ((tab.previous, -1), (tab.next, 1)):
        button.click(turner(change), [page.session, tab.listed], outputs, **WORKING)
    tab.which.input(bench.guarded(show), [page.session, tab.listed, tab.which], outputs, **WORKING)


def _wire_making(page: Page, bench: Bench, refresh: Callable[[Any], Any]) -> None:
    tab = page.reg

    def work(mode: Mode, session: Session, held: Held, number: int, *entered: Any) -> Iterator[Updates]:
        make = functools.partial(_making, mode)
        yield from bench.started(reg_state.MAKING, make, session, held, number, entered)

    modes: tuple[tuple[Any, Mode], ...] = ((tab.make, "ask"), (tab.remake, "all"), (tab.rest, "rest"))
    for button, mode in modes:
        sent = [page.session, tab.held, tab.leafed, *tab.entered]
        refresh(button.click(functools.partial(work, mode), sent, bench.outputs, **WORKING))
    tab.leave.click(bench.unasked, None, {tab.asking}, **QUIET)
    tab.stop.click(lambda now: bench.works.cancel(now.project), [page.session], None, **QUIET)


def _making(mode: Mode, wish: reg_making.Wish, control: Any) -> Iterator[Any]:
    return reg_making.making(wish, mode, control)


def _wire_images(page: Page, bench: Bench, refresh: Callable[[Any], Any]) -> None:
    tab = page.reg

    def chosen(make: Callable[..., Iterator[Any]], title: str) -> Callable[..., Iterator[Updates]]:
        def job(selection: str, wish: reg_making.Wish, control: Any) -> Iterator[Any]:
            yield from make(wish, reg_making.chosen(selection, wish.folder), control)

        def work(session: Session, held: Held, number: int, selection: str, *entered: Any) -> Iterator[Updates]:
            yield from bench.started(title, functools.partial(job, selection), session, held, number, entered)

        return work

    sent = [page.session, tab.held, tab.leafed, tab.selection, *tab.entered]
    # Gradio calls it with the values of all inputs and, behind them, of all outputs.
    script = f"(...sent) => [...sent.slice(0, 3), loraTrainerReg.selected(), ...sent.slice(4, {len(sent)})]"
    for button, make, title in (
        (tab.reroll, reg_making.rerolling, reg_state.REROLLING), (tab.remove, reg_making.removing, reg_state.REMOVING),
    ):  # fmt: skip
        refresh(button.click(chosen(make, title), sent, bench.outputs, _js=script, **WORKING))
    for button, direction in ((tab.undo, dataset_tools.undo), (tab.redo, dataset_tools.redo)):
        step = functools.partial(bench.stepped, direction)
        refresh(button.click(step, [page.session, tab.leafed], bench.outputs, **WORKING))

    def turner(change: int) -> Callable[..., Updates]:
        def turn(session: Session, number: int) -> Updates:
            return bench.images(session, number + change)

        return bench.guarded(turn)

    outputs = tab.images | {tab.said, tab.beside}
    for button, change in ((tab.images_previous, -1), (tab.images_next, 1)):
        button.click(turner(change), [page.session, tab.leafed], outputs, **WORKING)


def _wire_source(place: Place, page: Page, bench: Bench, refresh: Callable[[Any], Any]) -> None:
    tab = page.reg

    def add(session: Session, number: int) -> Updates:
        project = project_of(place.projects, session)
        folder = reg_project.folder(project)
        if not reg_folder.holds_any(folder):
            raise ConfigError("images: there are none yet. Press Generate first.")
        if reg_project.is_source(project, session.config):
            said = findings.notice(["The project trains on them already."])
            return {page.bar.notice: said, **bench.images(session, number)}
        sources = (*session.config.data.sources, reg_jobs.as_source(folder, session.config))
        config = put(session.config, "data.sources", sources)
        updates = whole_actions.put(place, page, session, config, "Regularization images added:")
        return {**updates, **bench.images(updates[page.session], number)}

    outputs = page.everything | tab.images
    refresh(tab.add.click(told(page, add), [page.session, tab.leafed], outputs, **QUIET))
