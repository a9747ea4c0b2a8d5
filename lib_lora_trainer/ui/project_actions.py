"""What happens on: opening the page, choosing or making a project, editing a setting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gradio as gr

from lib_lora_trainer.app import projects
from lib_lora_trainer.base import codec
from lib_lora_trainer.base.errors import ProblemsFound
from lib_lora_trainer.config import run as run_config
from lib_lora_trainer.config.recipes import RECIPES, apply
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.ui import dataset_tab, findings
from lib_lora_trainer.ui import page as pages
from lib_lora_trainer.ui.page import QUIET, Page, Updates, told
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.session import Session, commit, described, latest, opened, project_of
from lib_lora_trainer.ui.train_tab import recipe_html


def wire(place: Place, page: Page, rescan: Any) -> None:
    """Connect the events. rescan: called with an event, to follow it by a scan where none is known."""

    def attach(session: Session, remembered: str | None) -> Updates:
        return pages.shown(place, page, latest(place.projects, session, remembered or ""), session.told)

    def choose(name: str | None) -> Updates:
        return pages.shown(place, page, opened(place.projects, name or ""))

    def create(name: str) -> Updates:
        project = projects.create(place.projects, name or "")
        return pages.shown(place, page, opened(place.projects, project.name))

    everything, bar = page.everything, page.bar
    rescan(
        page.attach.click(
            told(page, attach),
            [page.session, page.remembered],
            everything,
            _js="() => loraTrainer.remembered()",
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
            page.bar.notice: findings.notice(saved.told),
            page.train.start: gr.update(interactive=saved.ready),
        }
        if session.ready and not saved.ready:
            text = "The settings have changed since the plan. Make a new one before you start."
            changed[page.train.planned] = findings.notice([text])
        return changed

    return told(page, edit)


def wire_form(page: Page, save: Callable[..., Updates]) -> None:
    """Save every edit as it is made."""
    for component in page.form:
        kind = type(component).__name__.lower()
        events = [component.input] if kind in ("checkbox", "dropdown") else [component.blur, component.submit]
        for event in events:
            event(save, [page.session, *page.form], page.saving, **QUIET)


def wire_folders(place: Place, page: Page) -> None:
    """Connect the rows of folders: add one, remove one."""

    def add(session: Session, extra: int) -> Updates:
        return {page.extra: extra + 1, **pages.rows(page, session.config, extra + 1)}

    def remover(row: int) -> Any:
        def remove(session: Session) -> Updates:
            config = dataset_tab.without(session.config, row)
            committed = commit(place.projects, session, config)
            return pages.shown(place, page, committed.session, committed.messages)

        return remove

    page.dataset.add.click(
        told(page, add), [page.session, page.extra], {page.extra, *page.dataset.rows, page.bar.notice}, **QUIET
    )
    for row, button in enumerate(page.dataset.removes):
        button.click(told(page, remover(row)), [page.session], page.everything, **QUIET)


def wire_whole(place: Place, page: Page) -> None:
    """Connect what replaces many settings at once: recipes, import, undo; and the export."""
    train = page.train

    def put(session: Session, config: RunConfig, what: str) -> Updates:
        before = session.config
        committed = commit(place.projects, session, config)
        changes = projects.differences(before, committed.session.config)
        said = f"{what} {described(changes)}." if changes else "Nothing to change: the settings are like that already."
        session = replace(committed.session, undo=before if changes else session.undo)
        return pages.shown(place, page, session, (said, *committed.messages))

    def use_recipe(session: Session, name: str | None) -> Updates:
        if name is None or name not in RECIPES:
            return {page.bar.notice: findings.notice(["Choose a recipe in the list first."], "warning")}
        return put(session, apply(RECIPES[name], session.config), f"{name}:")

    def take_back(session: Session) -> Updates:
        if session.undo is None:
            return {}
        committed = commit(place.projects, session, session.undo)
        session = replace(committed.session, undo=None)
        return pages.shown(place, page, session, ("Taken back.", *committed.messages))

    def take_in(session: Session, text: str) -> Updates:
        project = project_of(place.projects, session)
        config = codec.from_toml(RunConfig, text or "", "TOML", run_config.MIGRATIONS)
        return put(session, run_config.with_absolute_sources(config, project.folder), "Imported:")

    train.recipe.input(
        lambda name: (recipe_html(name), gr.update(interactive=name in RECIPES)),
        [train.recipe], [train.recipe_text, train.apply], **QUIET,
    )  # fmt: skip
    train.apply.click(told(page, use_recipe), [page.session, train.recipe], page.everything, **QUIET)
    train.undo.click(told(page, take_back), [page.session], page.everything, **QUIET)
    train.importing.click(told(page, take_in), [page.session, train.toml], page.everything, **QUIET)
    train.export.click(
        told(page, lambda session: {train.toml: codec.to_toml(session.config)}),
        [page.session], {train.toml, page.bar.notice, page.styles}, **QUIET,
    )  # fmt: skip
