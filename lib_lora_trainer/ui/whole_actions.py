"""What replaces many settings at once: recipes, imports, a found learning rate; how that is taken back; the export."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gradio as gr

from lib_lora_trainer.app import projects
from lib_lora_trainer.base import codec
from lib_lora_trainer.config.recipes import RECIPES, apply
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.ui import findings, importing
from lib_lora_trainer.ui import page as pages
from lib_lora_trainer.ui.page import QUIET, Page, Updates, told
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.session import Session, commit, described, project_of
from lib_lora_trainer.ui.train_tab import recipe_html


def put(place: Place, page: Page, session: Session, config: RunConfig, what: str) -> Updates:
    """Save settings that replace many at once, say what changed, and remember how it was before."""
    before = session.config
    committed = commit(place.projects, session, config)
    changes = projects.differences(before, committed.session.config)
    said = f"{what} {described(changes)}." if changes else "Nothing to change: the settings are like that already."
    session = replace(committed.session, undo=before if changes else session.undo)
    return pages.shown(place, page, session, (said, *committed.messages))


def wire(place: Place, page: Page) -> None:
    """Connect the recipes and the undo."""
    train = page.train

    def use_recipe(session: Session, name: str | None) -> Updates:
        if name is None or name not in RECIPES:
            return {page.bar.notice: findings.notice(["Choose a recipe in the list first."], "warning")}
        return put(place, page, session, apply(RECIPES[name], session.config), f"{name}:")

    def take_back(session: Session) -> Updates:
        if session.undo is None:
            return {}
        committed = commit(place.projects, session, session.undo)
        session = replace(committed.session, undo=None)
        return pages.shown(place, page, session, ("Taken back.", *committed.messages))

    train.recipe.input(
        lambda name: (recipe_html(name), gr.update(interactive=name in RECIPES)),
        [train.recipe], [train.recipe_text, train.apply], **QUIET,
    )  # fmt: skip
    train.apply.click(told(page, use_recipe), [page.session, train.recipe], page.everything, **QUIET)
    train.undo.click(told(page, take_back), [page.session], page.everything, **QUIET)


def wire_file(place: Place, page: Page) -> None:
    """Connect the export, and the import of our own and of other trainers' files."""
    file = page.train.file

    def taken(session: Session, read: importing.Read) -> Updates:
        config = importing.onto(session.config, read)
        updates = put(place, page, session, config, "Imported:")
        return {**updates, file.result: importing.html(read)}

    def take_text(session: Session, text: str, name: str) -> Updates:
        project = project_of(place.projects, session)
        return taken(session, importing.from_text(text or "", name or "", project, place.gate))

    def take_path(session: Session, path: str) -> Updates:
        place.gate()
        project_of(place.projects, session)
        return taken(session, importing.from_path(path or ""))

    outputs: set[Any] = page.everything | {file.result}
    file.take.click(told(page, take_text), [page.session, file.text, file.name], outputs, **QUIET)
    file.take_path.click(told(page, take_path), [page.session, file.path], outputs, **QUIET)
    file.export.click(
        told(page, lambda session: {file.text: codec.to_toml(session.config), file.name: ""}),
        [page.session], {file.text, file.name, page.bar.notice, page.styles}, **QUIET,
    )  # fmt: skip
