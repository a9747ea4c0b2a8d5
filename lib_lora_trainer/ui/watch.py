"""Watching: what the page asks for again and again while it is open, in any number of browsers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from lib_lora_trainer.app import projects, runs
from lib_lora_trainer.app.projects import Project
from lib_lora_trainer.app.runs import RunState
from lib_lora_trainer.base.errors import TrainerError
from lib_lora_trainer.ui import (
    captions_form,
    dataset_tab,
    evaluate_form,
    findings,
    live,
    pictures,
    project_bar,
    rate_form,
    reg_state,
    runs_tab,
    waiting_list,
)
from lib_lora_trainer.ui.page import QUIET, Page, Updates
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.session import Session, project_of

_QUEUE = " | "  # in what a browser has seen: between the run and the queue


@dataclass(frozen=True)
class Watched:
    """The run that the live panel of a project shows. mark: differs when there is something new to show."""

    project: Project
    run: str
    state: RunState
    mark: str


def wire(place: Place, page: Page) -> None:
    """Connect the page's regular question."""
    looked = page.refresh.click(follower(place, page), [page.session, page.seen], outputs(page), **QUIET)
    looked.then(
        lambda session, seen: searched(place, page, session, seen),
        [page.session, page.seen_rate],
        page.train.rate.watched | {page.seen_rate},
        **QUIET,
    )


def outputs(page: Page) -> set[Any]:
    """Return what a look at the runner may update."""
    bar, train, step = page.bar, page.train, page.runs
    return {
        page.status, page.dataset.progress, page.seen, train.start, bar.model, bar.running, bar.pause, bar.resume,
        bar.stop, train.live, train.samples, train.test_row, train.test_file, step.table, step.first, step.second, step.detail,
        *step.waiting.watched,
    }  # fmt: skip


def follower(place: Place, page: Page) -> Callable[[Session, str], Updates]:
    """Return the function behind the regular question; its mistakes are told in the panel."""

    def look(session: Session, seen: str) -> Updates:
        try:
            return follow(place, page, session, seen)
        except TrainerError as error:
            return {page.train.live: findings.notice([str(error)], "error"), page.status: _status(place, session, None)}

    return look


def follow(place: Place, page: Page, session: Session, seen: str) -> Updates:
    """Return what is new since this browser last looked."""
    status, bar = place.runner.status(), page.bar
    found = watched(place, session) if session.project else None
    can_resume = status.state == "paused" if status else found is not None and found.state in ("paused", "interrupted")
    updates: Updates = {
        **reading(place, page, session, found),
        bar.model: project_bar.model_html(project_bar.model_of(place), session),
        bar.running: project_bar.running_html(place, status),
        bar.pause: gr.update(visible=bool(status and status.state == "running")),
        bar.resume: gr.update(visible=can_resume and not (status and status.busy)),
        bar.stop: gr.update(visible=bool(status and (status.state in ("running", "pausing", "paused")))),
    }
    mark = found.mark if found else f"{session.project} without runs"
    queue = waiting_list.mark(place.runner, project_of(place.projects, session)) if session.project else ""
    before, _, queue_before = seen.partition(_QUEUE)
    if f"{mark}{_QUEUE}{queue}" != seen:
        updates[page.seen] = f"{mark}{_QUEUE}{queue}"
        updates[page.train.start] = gr.update(interactive=session.ready and not (status and status.busy))
        updates.update(_panel(place, page, found, before))
    if session.project and queue != queue_before:
        project = project_of(place.projects, session)
        updates.update(waiting_list.shown(page.runs.waiting, place.runner, project, session.config))
    return updates


def reading(place: Place, page: Page, session: Session, found: Watched | None = None) -> Updates:
    """Return how far a scan of the project is, and what the page's script reads."""
    found = found or (watched(place, session) if session.project else None)
    return {
        page.dataset.progress: dataset_tab.reading(place.scans.progress(session.project)),
        page.status: _status(place, session, found),
    }


def searched(place: Place, page: Page, session: Session, seen: str | None = None) -> Updates:
    """Return the search for a learning rate, where it differs from what this browser has seen of it."""
    rate, known = page.train.rate, place.searches.events(session.project)
    busy, occupied = place.searches.busy(session.project), place.searches.busy()
    mark = f"{session.project} {len(known)} {busy} {occupied}"
    if mark == seen:
        return {page.seen_rate: mark}
    found = rate_form.found_in(known)
    return {
        page.seen_rate: mark,
        rate.panel: rate_form.panel_html(known, place.searches.config(session.project), busy=busy),
        rate.begin: gr.update(interactive=not occupied),
        rate.stop: gr.update(visible=busy),
        rate.use: gr.update(visible=bool(found and found.learning_rate and not busy)),
    }


def watched(place: Place, session: Session) -> Watched | None:
    """Return the run to show: the one this process works on or ended last, else the project's newest."""
    project = projects.find(place.projects, session.project)
    status = place.runner.status()
    if status is not None and status.project == project:
        count = len(place.runner.events(project, status.run))
        return Watched(project, status.run, status.state, f"{status.run} {status.state} {count}")
    known = runs.identifiers(project)
    if not known:
        return None
    journal = project.runs / known[0] / runs.JOURNAL
    about = journal.stat() if journal.is_file() else None
    state = runs.summary(project, known[0]).state
    return Watched(project, known[0], state, f"{known[0]} {state} {about.st_mtime_ns if about else 0}")


def _panel(place: Place, page: Page, found: Watched | None, seen: str) -> Updates:
    if found is None:
        return {
            page.train.live: "", page.train.samples: "", page.train.test_row: gr.update(visible=False),
            page.runs.table: runs_tab.nothing(), page.runs.first: gr.update(choices=[], value=None),
            page.runs.second: gr.update(choices=[], value=None), page.runs.detail: "",
        }  # fmt: skip
    known = place.runner.events(found.project, found.run)
    made = live.sample_events(known)
    updates: Updates = {
        page.train.live: live.panel(runs.name_of(found.run), found.state, known),
        page.train.samples: pictures.samples(made, found.project.folder),
    }
    if seen.split(" ")[:2] != [found.run, found.state]:
        updates.update(history(place, page, found.project))
    stems = [Path(path).stem for path in reversed(runs.adapters_of(known))]
    tested = place.txt2img and bool(stems) and found.state not in live.ACTIVE
    updates[page.train.test_row] = gr.update(visible=tested)
    if tested:
        updates[page.train.test_file] = gr.update(choices=stems, value=stems[0])
    return updates


def history(place: Place, page: Page, project: Project) -> Updates:
    """Return the Runs step's table and lists."""
    lines = place.runner.history(project)
    choices = [line.run for line in lines]
    return {
        page.runs.table: runs_tab.table(lines),
        page.runs.first: gr.update(choices=choices),
        page.runs.second: gr.update(choices=["", *choices]),
    }


def _status(place: Place, session: Session, found: Watched | None) -> str:
    """Return what the page's script reads: whether something trains or was changed, and the steps' marks."""
    status = place.runner.status()
    stale = False
    marks = {"dataset": "todo", "captions": "todo", "train": "todo", "evaluate": "", "runs": ""}
    marks["reg"] = reg_state.state_of(place, session)
    if session.project:
        project = Project(session.project, place.projects / session.project)
        stale = projects.version(project) != session.version
        scan = place.scans.last(session.project)
        if not place.scans.current(session.project, session.config):
            scan = None
        marks["dataset"] = dataset_tab.state_of(scan, session.config)
        marks["captions"] = captions_form.state_of(scan)
    if found is not None:
        train_marks = {"done": "done", "stopped": "done", "running": "busy", "pausing": "busy", "stopping": "busy"}
        marks["train"] = train_marks.get(found.state, "look")
        marks["runs"] = "busy" if found.state in live.ACTIVE else ""
        marks["evaluate"] = evaluate_form.mark_of(found.project, found.run, found.state)
    scanning = place.scans.progress(session.project) is not None
    values = {
        "busy": int(bool(status and status.busy) or place.searches.busy() or scanning or marks["reg"] == "busy"),
        "active": int(bool(status and status.busy)),
        "stale": int(stale),
        "tick": time.monotonic_ns(),
        "project": session.project,
        **marks,
    }
    written = " ".join(f'data-{name}="{escape(str(value))}"' for name, value in values.items())
    return f'<span id="lora_trainer_state" {written}></span>'
