"""What happens on: comparing runs, continuing one, taking over its settings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gradio as gr

from lib_lora_trainer.app import runs
from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.config.paths import put
from lib_lora_trainer.ui import page as pages
from lib_lora_trainer.ui import run_detail, runs_tab, waiting_list, watch
from lib_lora_trainer.ui.page import QUIET, Page, Updates, told
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.session import Session, commit, project_of


def wire(place: Place, page: Page) -> None:
    """Connect the events."""
    step = page.runs

    def compare(session: Session, first: str | None, second: str | None) -> Updates:
        project = project_of(place.projects, session)
        line = next((line for line in place.runner.history(project) if line.run == first), None)
        status = place.runner.status()
        free = not (status and status.busy)
        return {
            step.detail: run_detail.html(place.runner, project, first or "", second or ""),
            step.again: gr.update(visible=bool(line and free and line.state in runs_tab.RESUMABLE)),
            step.repeat: gr.update(visible=line is not None),
        }

    def resume(session: Session, seen: str, first: str | None) -> Updates:
        project = project_of(place.projects, session)
        place.searches.refuse_when_busy()
        place.runner.resume(place.host, project, first or "")
        return {step.again: gr.update(visible=False), **watch.follow(place, page, session, seen)}

    def repeat(session: Session, first: str | None) -> Updates:
        if not first:
            raise ConfigError("run: none is chosen. Choose one in the list.")
        before = session.config
        config = runs.configuration(project_of(place.projects, session), first)
        committed = commit(place.projects, session, put(config, "base_model", before.base_model))
        kept = replace(committed.session, undo=before)
        text = f"The settings are those of {first} now. “Undo” in the Train step takes that back."
        return pages.shown(place, page, kept, (text, *committed.messages))

    def reread(session: Session) -> Updates:
        if not session.project:
            return {}
        project = project_of(place.projects, session)
        waiting = waiting_list.shown(page.runs.waiting, place.runner, project, session.config)
        return {**watch.history(place, page, project), **waiting}

    told_too = {page.bar.notice, page.styles}
    for chosen in (step.first, step.second):
        chosen.input(
            told(page, compare), [page.session, step.first, step.second],
            {step.detail, step.again, step.repeat} | told_too, **QUIET,
        )  # fmt: skip
    step.again.click(
        told(page, resume),
        [page.session, page.seen, step.first],
        watch.outputs(page) | {step.again} | told_too,
        **QUIET,
    )
    step.repeat.click(told(page, repeat), [page.session, step.first], page.everything, **QUIET)
    listed: set[Any] = {step.table, step.first, step.second} | step.waiting.watched | told_too
    page.runs_step.select(told(page, reread), [page.session], listed, **QUIET)
