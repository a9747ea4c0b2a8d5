"""What happens on: choosing a run to look at, calling off what is under way, and in every panel of the step."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import gradio as gr

from lib_lora_trainer.app import runs
from lib_lora_trainer.app.runs import Summary
from lib_lora_trainer.ui import (
    evaluate_bake,
    evaluate_blocks,
    evaluate_form,
    evaluate_grid,
    evaluate_pick,
    tools_work,
    watch,
)
from lib_lora_trainer.ui.evaluate_form import EvaluateTab
from lib_lora_trainer.ui.evaluate_work import Evaluator
from lib_lora_trainer.ui.page import QUIET, WORKING, Page, Updates
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.session import Session, project_of
from lib_lora_trainer.ui.tools_work import Works

LIVE = "live"
"""What the page's script asks for when it means the run of the live panel."""


def wire(place: Place, page: Page, works: Works | None = None) -> None:
    """Connect the step's events. works: the jobs under way; the process's own if absent."""
    tab = page.evaluate
    evaluator = Evaluator(place, tab, works or tools_work.shared())

    def known_in(session: Session) -> dict[str, Summary]:
        if not session.project:
            return {}
        return {each.run: each for each in evaluate_form.with_files(project_of(place.projects, session))}

    def look(session: Session, run: str | None, wanted: str = "") -> Updates:
        """List the runs anew, and show the one that is wanted, the chosen one, or else the newest."""
        known = known_in(session)
        live = watch.watched(place, session) if wanted == LIVE and session.project else None
        asked = (live.run if live else wanted, run)
        value = next((each for each in asked if each and each in known), next(iter(known), None))
        listed = {tab.run: gr.update(choices=list(known), value=value), tab.wanted: "", tab.opened: True}
        another = sized(session, value) if value and value != run else {}
        return {**listed, **shown_of(session, value, known), **another}

    def choose(session: Session, run: str | None) -> Updates:
        return shown_of(session, run, known_in(session))

    def change(session: Session, run: str | None) -> Updates:
        return {**choose(session, run), **(sized(session, run) if run else {})}

    def sized(session: Session, run: str) -> Updates:
        return evaluate_grid.sized(tab.grid, runs.configuration(project_of(place.projects, session), run))

    def shown_of(session: Session, run: str | None, known: dict[str, Summary]) -> Updates:
        chosen = known.get(run or "")
        updates: Updates = {}
        if session.project:
            updates[tab.about] = evaluate_form.about_html(project_of(place.projects, session), chosen)
        for module, panel in _panels(tab):
            updates |= module.chosen(evaluator, panel, session, chosen.run if chosen else "")
        return updates

    def follow(session: Session, run: str | None, opened: bool) -> Updates:
        """Return what is new when a run has begun or ended, or another project was opened; nothing unless it is seen."""
        if not opened:
            return {}
        known = known_in(session)
        if run and run in known:
            return {tab.run: gr.update(choices=list(known))}
        return look(session, run)

    shown = tab.shown | evaluator.outputs
    listed = shown | {tab.run, tab.wanted, tab.opened}
    looked = page.evaluate_step.select(evaluator.guarded(look), [page.session, tab.run, tab.wanted], listed, **QUIET)
    looked.then(evaluator.rejoined(choose), [page.session, tab.run, tab.watching], shown, **WORKING)
    page.runs.table.change(evaluator.guarded(follow), [page.session, tab.run, tab.opened], listed, **QUIET)
    tab.run.input(evaluator.guarded(change), [page.session, tab.run], shown, **QUIET)
    tab.cancel.click(lambda now: evaluator.works.cancel(now.project), [page.session], None, **QUIET)
    for module, panel in _panels(tab):
        module.wire(evaluator, page, panel)


def _panels(tab: EvaluateTab) -> tuple[tuple[ModuleType, Any], ...]:
    return (
        (evaluate_pick, tab.pick), (evaluate_grid, tab.grid), (evaluate_blocks, tab.blocks), (evaluate_bake, tab.bake),
    )  # fmt: skip
