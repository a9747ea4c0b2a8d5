"""The whole tab's components, and the updates that several events share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_lora_trainer.base.errors import ProblemsFound, TrainerError
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.dataset.balance import shared_triggers
from lib_lora_trainer.ui import (
    bind,
    concept_table,
    dataset_tab,
    fields,
    findings,
    gallery,
    gallery_history,
    project_bar,
    relevance,
    source_form,
    train_tab,
)
from lib_lora_trainer.ui import concept_table_goal as goals
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.project_bar import Bar
from lib_lora_trainer.ui.runs_tab import RunsTab
from lib_lora_trainer.ui.session import Session, commit, project_of
from lib_lora_trainer.ui.train_tab import TrainTab

if TYPE_CHECKING:
    from lib_lora_trainer.ui.captions_form import CaptionsTab
    from lib_lora_trainer.ui.dataset_tab import DatasetTab
    from lib_lora_trainer.ui.evaluate_form import EvaluateTab
    from lib_lora_trainer.ui.reg_form import RegTab

Updates = dict[Any, Any]

QUIET: Mapping[str, Any] = MappingProxyType({"queue": False, "show_progress": "hidden", "api_name": False})
"""For events that are done at once. No event has an API name: gradio would describe every one of them, with all its
inputs and outputs, each time a page is opened, which takes many seconds."""

WORKING: Mapping[str, Any] = MappingProxyType({"show_progress": "hidden", "api_name": False})
"""For events that may take long: in the queue, where there is one."""


@dataclass(frozen=True)
class Page:
    """Every component that events read or write.

    session, seen (what the live panel shows), seen_rate (the same of the search for a learning rate), seen_scan (of which
    scan the Dataset step tells): per browser. status: read by the page's script. styles: problems beside their fields;
    relevance: which fields mean something as the others stand.
    """

    session: Any
    seen: Any
    seen_rate: Any
    seen_scan: Any
    remembered: Any
    attach: Any
    refresh: Any
    status: Any
    styles: Any
    relevance: Any
    welcome: Any
    steps: Any
    bar: Bar
    dataset: DatasetTab
    train: TrainTab
    runs: RunsTab
    runs_step: Any
    captions: CaptionsTab
    reg: RegTab
    reg_step: Any
    evaluate: EvaluateTab
    evaluate_step: Any

    @property
    def form(self) -> list[Any]:
        """The settings' components in the order of `bind.values`."""
        held = {**self.train.settings, "triggers": self.dataset.triggers}
        return [held[field.path] for field in fields.all_fields()] + self.dataset.folders.entered

    @property
    def saving(self) -> set[Any]:
        """What saving the form may update."""
        return {
            self.session, self.styles, self.relevance, self.bar.notice, self.train.start, self.train.planned,
            *self.dataset.folders.listed, *self.dataset.folders.cells.values(),
        }  # fmt: skip

    @property
    def everything(self) -> set[Any]:
        """What `shown` may update, for the outputs of an event."""
        bar, data, train = self.bar, self.dataset, self.train
        return {
            self.session, self.seen, self.seen_rate, self.seen_scan, self.styles, self.relevance, self.welcome, self.steps,
            bar.project, bar.name_row, bar.name, bar.model, bar.notice, *self.form, *data.folders.all, *data.shown,
            *data.table.numbers.values(), train.undo, train.start, train.planned,
        }  # fmt: skip


def shielded(work: Callable[..., Updates], failed: Callable[[TrainerError], Updates]) -> Callable[..., Updates]:
    """Return `work` with the user's mistakes shown, as `failed` says, instead of raised."""

    @functools.wraps(work)
    def guarded(*entered: Any, **special: Any) -> Updates:
        try:
            return work(*entered, **special)
        except TrainerError as error:
            return failed(error)

    return guarded


def told(page: Page, work: Callable[..., Updates]) -> Callable[..., Updates]:
    """Return `work` with the user's mistakes shown in the notice below the bar instead of raised."""

    @functools.wraps(work)
    def answered(*entered: Any, **special: Any) -> Updates:
        return work(*entered, **special) or {page.bar.notice: gr.update()}  # gradio refuses an empty answer

    def failed(error: TrainerError) -> Updates:
        if isinstance(error, ProblemsFound):
            return {
                page.bar.notice: findings.listed(error.problems),
                page.styles: findings.beside_fields(error.problems),
            }
        return {page.bar.notice: findings.notice([str(error)], "error")}

    return shielded(answered, failed)


def shown(place: Place, page: Page, session: Session, messages: Sequence[str] = (), folder: int = 0) -> Updates:
    """Return the updates that make the whole page show a session, with the form on one of its folders."""
    is_open = bool(session.project)
    model = project_bar.model_of(place)
    form = dict(zip(page.form, bind.values(session.config, folder), strict=True))
    return {
        page.session: session,
        page.seen: "",
        page.seen_rate: "-",
        page.styles: "",
        page.relevance: relevance.style(session.config),
        page.welcome: gr.update(visible=not is_open),
        page.steps: gr.update(visible=is_open),
        page.bar.project: project_bar.project_update(place, session),
        page.bar.name_row: gr.update(visible=not is_open),
        page.bar.name: "",
        page.bar.model: project_bar.model_html(model, session),
        page.bar.notice: findings.notice(messages),
        page.train.undo: gr.update(visible=session.undo is not None),
        page.train.start: gr.update(interactive=session.ready),
        page.train.planned: gr.update() if session.ready else train_tab.unplanned(),
        **form,
        **source_form.shown(page.dataset.folders, session.config, folder),
        **aimed(place, page, session),
        **scanned(place, page, session),
    }


def aimed(place: Place, page: Page, session: Session) -> Updates:
    """Return what the fields of the balance show."""
    aim = goals.load(project_of(place.projects, session)) if session.project else goals.Aim()
    return {page.dataset.table.numbers[name]: getattr(aim, name) for name in concept_table.NUMBERS}


def scanned(place: Place, page: Page, session: Session) -> Updates:
    """Return what the Dataset step shows of the project's latest scan."""
    known, data = place.scans.known(session.project), page.dataset
    if known is None or not session.config.data.sources:
        return {
            page.seen_scan: "",
            data.summary: "",
            data.problems: "",
            data.table.table: "",
            **dataset_tab.unscanned(data.gallery, session.project),
        }
    scan, project = known.scan, project_of(place.projects, session)
    aim = goals.load(project)
    shared = shared_triggers(scan, known.triggers)
    return {
        page.seen_scan: known.mark,
        data.summary: dataset_tab.summary(scan),
        data.problems: dataset_tab.problem_list(scan.problems),
        data.table.table: concept_table.table_html(scan, aim, shared, place.scans.monochrome(scan)),
        data.gallery.mark: gallery.mark_html(session.project, known.mark),
        data.gallery.empty: "",
        **gallery_history.shown(data.gallery, project, session.config),
    }


def with_sources(place: Place, page: Page, session: Session, config: RunConfig, key: str) -> Updates:
    """Save settings in which only the folders' own have changed, and return the updates; a subset of `page.saving`.

    Nothing else of the form is drawn anew, so that what is being typed in it stays. key: of the folder in the form.
    """
    if config == session.config:
        return {}
    saved, form = _committed(place, session, config), page.dataset.folders
    folder = bind.folder_of(config, key or "")
    updates = source_form.listed(form, config)
    shown_there = dict(zip(form.cells, bind.source_values(config, folder)[1:], strict=True))
    for name, cell in form.cells.items():
        before, after = (_setting(which, folder, name) for which in (session.config, config))
        if before != after:
            updates[cell] = shown_there[name]
    return {**updates, page.session: saved, page.train.start: gr.update(interactive=saved.ready)}


def _setting(config: RunConfig, folder: int, name: str) -> Any:
    return getattr(config.data.sources[folder], name) if folder < len(config.data.sources) else None


def read_form(place: Place, session: Session, entered: Sequence[Any]) -> Session:
    """Return the session with the form's values saved. Raises ProblemsFound when they cannot be, and saves nothing.

    Where another browser's changes came in, the form does not show them yet: the session then counts as stale, and the
    page draws itself anew as soon as nobody is typing.
    """
    config = bind.configuration(session.config, entered, place.host.samplers(), session.saved_as)
    if config == session.config:
        return session
    return _committed(place, replace(session, saved_as=bind.folder_entered(entered)), config)


def _committed(place: Place, session: Session, config: RunConfig) -> Session:
    committed = commit(place.projects, session, config)
    if not committed.reload:
        return committed.session
    return replace(session, config=config, version="", told=committed.messages)
