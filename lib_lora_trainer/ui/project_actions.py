"""What happens on: opening the page, choosing or making a project, editing a setting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from lib_lora_trainer.app import projects
from lib_lora_trainer.base.errors import ProblemsFound
from lib_lora_trainer.ui import bind, findings, relevance, source_form
from lib_lora_trainer.ui import page as pages
from lib_lora_trainer.ui.page import QUIET, Page, Updates, told
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.session import Session, commit, latest, opened


def wire(place: Place, page: Page, rescan: Any) -> None:
    """Connect the events. rescan: called with an event, to follow it by a scan where none is known."""

    def attach(session: Session, remembered: str | None, key: str | None) -> Updates:
        now = latest(place.projects, session, remembered or "")
        folder = bind.folder_of(now.config, key or "") if now.project == session.project else 0
        return pages.shown(place, page, now, session.told, folder)

    def choose(name: str | None) -> Updates:
        return pages.shown(place, page, opened(place.projects, name or ""))

    def create(name: str) -> Updates:
        project = projects.create(place.projects, name or "")
        return pages.shown(place, page, opened(place.projects, project.name))

    everything, bar = page.everything, page.bar
    rescan(
        page.attach.click(
            told(page, attach),
            [page.session, page.remembered, page.dataset.folders.key],
            everything,
            _js="(session, project, folder) => loraTrainer.remembered(folder)",
            **QUIET,
        )
    )
    rescan(bar.project.input(told(page, choose), [bar.project], everything, **QUIET))
    bar.new.click(lambda: gr.update(visible=True), None, [bar.name_row], **QUIET)
    for event in (bar.create.click, bar.name.submit):
        event(told(page, create), [bar.name], everything, **QUIET)


def saver(place: Place, page: Page) -> Callable[..., Updates]:
    """Return the event function that saves the form; its outputs are `page.saving`."""

    def edit(session: Session, *entered: Any) -> Updates:
        try:
            saved = pages.read_form(place, session, entered)
        except ProblemsFound as error:
            return {
                page.styles: findings.beside_fields(error.problems),
                page.bar.notice: findings.notice(["Not saved: correct the marked field first."], "warning"),
                page.train.start: gr.update(interactive=False),
            }
        if saved == session:
            return {page.styles: "", page.bar.notice: ""}
        changed: Updates = {
            page.session: saved,
            page.styles: "",
            page.relevance: relevance.style(saved.config),
            page.bar.notice: findings.notice(saved.told),
            page.train.start: gr.update(interactive=saved.ready),
        }
        folders = page.dataset.folders
        if saved.config.data.sources != session.config.data.sources:
            changed.update(source_form.listed(folders, saved.config))
        elif saved.config.data != session.config.data:
            meanings = source_form.standing_for(folders, saved.config)
            changed.update({cell: gr.update(**update) for cell, update in meanings.items()})
        if session.ready and not saved.ready:
            text = "The settings have changed since the plan. Make a new one before you start."
            changed[page.train.planned] = findings.notice([text])
        return changed

    return told(page, edit)


def wire_form(page: Page, save: Callable[..., Updates]) -> None:
    """Save every edit as it is made."""
    for component in page.form:
        if component is page.dataset.folders.key:
            continue
        kind = type(component).__name__.lower()
        events = [component.input] if kind in ("checkbox", "dropdown", "radio") else [component.blur, component.submit]
        for event in events:
            event(save, [page.session, *page.form], page.saving, **QUIET)


def wire_folders(place: Place, page: Page) -> None:
    """Connect the list of folders: choose one, add one, remove one."""
    folders = page.dataset.folders

    def choose(session: Session, number: str | None) -> Updates:
        wanted = int(number) if number and number.isdecimal() else 0
        return source_form.shown(folders, session.config, wanted)

    def add(session: Session) -> Updates:
        return source_form.shown(folders, session.config, len(session.config.data.sources))

    def remove(session: Session, key: str | None) -> Updates:
        folder = bind.folder_of(session.config, key or "")
        committed = commit(place.projects, session, source_form.without(session.config, folder))
        return pages.shown(place, page, committed.session, committed.messages, max(folder - 1, 0))

    told_too = {page.bar.notice, page.styles}
    folders.chosen.input(told(page, choose), [page.session, folders.chosen], folders.all | told_too, **QUIET)
    folders.add.click(told(page, add), [page.session], folders.all | told_too, **QUIET)
    folders.remove.click(told(page, remove), [page.session, folders.key], page.everything, **QUIET)
