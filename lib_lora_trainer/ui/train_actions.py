"""What happens on: making a plan, starting, pausing, resuming, stopping, testing in txt2img."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from lib_lora_trainer.app import jobs, runs
from lib_lora_trainer.base.errors import ConfigError, TrainerError
from lib_lora_trainer.config.paths import put
from lib_lora_trainer.plan.plan import Plan
from lib_lora_trainer.ui import findings, train_tab, watch
from lib_lora_trainer.ui import page as pages
from lib_lora_trainer.ui.page import QUIET, Page, Updates, told
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.session import Session, commit, project_of


def wire(place: Place, page: Page, save: Callable[..., Updates]) -> None:
    """Connect the events of the plan and the start. save: the event function that saves the form."""

    def plan(session: Session, *entered: Any) -> Updates:
        return planned(place, page, session, entered)[2]

    def start(session: Session, *entered: Any) -> Updates:
        place.searches.refuse_when_busy()
        session, found, updates = planned(place, page, session, entered)
        if not found.errors:
            place.searches.refuse_when_busy()  # once more: a plan takes its time
            place.runner.start(place.host, project_of(place.projects, session), session.config)
            updates[page.train.planned] = ""
        return updates

    def show(session: Session) -> Updates:
        return pages.scanned(place, page, session)

    train, form = page.train, [page.session, *page.form]
    busy = {page.session, page.styles, page.bar.notice, train.planned, train.start}  # few, as each shows the progress
    scanned = {page.seen_scan, *page.dataset.shown, page.bar.notice, page.styles}
    for button, work in ((train.plan, plan), (train.start, start)):
        saved = button.click(save, form, page.saving, **QUIET)
        done = saved.then(reported(page, work), form, busy, api_name=False)
        seen = done.then(watch.follower(place, page), [page.session, page.seen], watch.outputs(page), **QUIET)
        seen.then(told(page, show), [page.session], scanned, **QUIET)


def wire_run(place: Place, page: Page) -> None:
    """Connect pause, resume and stop."""

    def asked(wish: str) -> Any:
        def ask(session: Session, seen: str) -> Updates:
            if wish == "pause":
                place.runner.pause()
                return watch.follow(place, page, session, seen)
            status = place.runner.status()
            if not (status and status.busy):
                place.searches.refuse_when_busy()
            if wish == "stop":
                place.runner.stop()
            else:
                _resume(place, session)
            return watch.follow(place, page, session, seen)

        return told(page, ask)

    for wish, button in (("pause", page.bar.pause), ("resume", page.bar.resume), ("stop", page.bar.stop)):
        button.click(
            asked(wish), [page.session, page.seen], watch.outputs(page) | {page.bar.notice, page.styles},
            **QUIET,
        )  # fmt: skip


def wire_test(place: Place, page: Page) -> None:
    """Connect the test: the Lora list learns of the file, and the page's script fills and opens txt2img."""

    def test(session: Session, stem: str | None) -> Updates:
        try:
            text = _prompt(place, session, stem or "")
        except TrainerError as error:
            return {page.train.to_txt2img: "", page.bar.notice: findings.notice([str(error)], "error")}
        return {page.train.to_txt2img: text, page.bar.notice: ""}

    done = page.train.test.click(
        test, [page.session, page.train.test_file], {page.train.to_txt2img, page.bar.notice}, **QUIET
    )
    done.then(None, [page.train.to_txt2img], None, _js="(text) => { loraTrainer.toTxt2img(text); }", api_name=False)


def planned(place: Place, page: Page, session: Session, entered: Any) -> tuple[Session, Plan, Updates]:
    """Save the form, plan it, note the model it was planned on; the plan's warnings are about the one noted before."""
    place.gate()
    session = pages.read_form(place, session, entered)
    found = jobs.plan(place.host, session.config, Path(place.host.adapter_folder()))
    place.scans.remember(session.project, session.config, found.scan)
    model = found.info.sha256 or found.info.name
    if session.config.base_model != model:
        noted = commit(place.projects, session, put(session.config, "base_model", model))
        session = noted.session if not noted.reload else session
    session = replace(session, planned=None if found.errors else session.config)
    updates: Updates = {
        page.session: session,
        page.styles: findings.beside_fields(found.problems),
        page.bar.notice: findings.notice(session.told),
        page.train.planned: train_tab.plan_html(found),
        page.train.start: gr.update(interactive=session.ready),
    }
    return session, found, updates


def reported(page: Page, work: Callable[..., Updates]) -> Callable[..., Updates]:
    """Return `work` with what forbids it shown in the plan's place instead of raised."""

    def told_in_place(*entered: Any) -> Updates:
        try:
            return work(*entered)
        except TrainerError as error:
            return refused(page, error)

    return told_in_place


def refused(page: Page, error: TrainerError) -> Updates:
    """Return the updates that tell why there is no plan."""
    problems = findings.of_error(error)
    return {
        page.train.planned: findings.listed(problems),
        page.styles: findings.beside_fields(problems),
        page.train.start: gr.update(interactive=False),
    }


def _resume(place: Place, session: Session) -> None:
    status = place.runner.status()
    if status is not None and status.state == "paused":
        place.runner.resume(place.host, status.project, status.run)
        return
    project = project_of(place.projects, session)
    known = runs.identifiers(project)
    if not known:
        raise ConfigError("run: this project has none to resume. Start a training first.")
    place.runner.resume(place.host, project, known[0])


def _prompt(place: Place, session: Session, stem: str) -> str:
    project = project_of(place.projects, session)
    watched = watch.watched(place, session)
    if watched is None:
        raise ConfigError("file: there is no run whose file could be tested. Train first.")
    files = {Path(path).stem: path for path in runs.adapters_of(place.runner.events(project, watched.run))}
    if stem not in files:
        raise ConfigError(f"file: {stem!r} is not a file of this run. Choose one in the list.")
    if not Path(files[stem]).is_file():
        raise ConfigError(f"file: {files[stem]} does not exist any more. Choose another one in the list.")
    place.host.announce(files[stem])
    config = runs.configuration(project, watched.run)
    prompt = f"<lora:{stem}:{config.save.preferred_weight:g}> {', '.join(config.triggers)}".strip()
    return json.dumps({"prompt": prompt})
