"""The panel of dataset tools at work: what each event does, and what it then shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from lib_lora_trainer.app import dataset_tools, masking
from lib_lora_trainer.app.dataset_tools import Draft
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import Problem, ProblemsFound, TrainerError
from lib_lora_trainer.dataset.duplicates import Found
from lib_lora_trainer.dataset.journal import history
from lib_lora_trainer.dataset.tools.entries import Entry
from lib_lora_trainer.ui import findings, tools_catalog, tools_form, tools_jobs
from lib_lora_trainer.ui.page import Updates, shielded
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.session import Session, project_of
from lib_lora_trainer.ui.tools_catalog import OWN_LANCZOS
from lib_lora_trainer.ui.tools_form import Previewed, ToolsTab
from lib_lora_trainer.ui.tools_jobs import Leaf, Wish
from lib_lora_trainer.ui.tools_work import Work, Works

TELLS = 0.25  # seconds between two reports of progress
_HISTORY = 30


class Panel:
    """The functions behind the events. They hold nothing but where they are: what a browser sees is in its own state."""

    def __init__(self, place: Place, tools: ToolsTab, works: Works) -> None:
        self.place, self.tools, self.works = place, tools, works

    def guarded(self, work: Callable[..., Updates]) -> Callable[..., Updates]:
        """Return `work` with the user's mistakes shown in the panel instead of raised."""
        return shielded(work, lambda error: {self.tools.said: findings.notice([str(error)], "error")})

    def steps(self, work: Callable[..., Iterator[Updates]]) -> Callable[..., Iterator[Updates]]:
        """Return `work`, which yields updates, with the user's mistakes shown in the panel instead of raised."""

        def told(*entered: Any) -> Iterator[Updates]:
            try:
                yield from work(*entered)
            except TrainerError as error:
                yield self.failed(error)

        return told

    def choose(self, title: str) -> Updates:
        """Show a tool's options and forget the preview of another one."""
        tools, tool = self.tools, tools_catalog.titled(title)
        columns = {column: gr.update(visible=name == tool) for name, column in tools.columns.items()}
        return {
            tools.about: tools_form.about_html(tool),
            **columns,
            **self.cleared(),
            tools.said: "",
            tools.progress: "",
        }

    def cleared(self) -> Updates:
        """Return the updates that take a preview away."""
        tools = self.tools
        return {
            tools.shown: "", tools.pager: gr.update(visible=False), tools.page: "", tools.adjusted: "", tools.beside: "",
            tools.held: Previewed(), tools.apply: gr.update(visible=False), tools.confirm: gr.update(visible=False),
        }  # fmt: skip

    def preview(self, session: Session, *entered: Any) -> Iterator[Updates]:
        """Look what the chosen tool would do."""
        self.place.gate()
        project_of(self.place.projects, session)
        title, folder, on, selection, upscaler, *options = entered
        wish = Wish(tools_catalog.titled(title), folder, on, selection, upscaler, tuple(options))
        work = self.start(session, "Preview", lambda control: tools_jobs.preview(self.place, session, wish, control))
        yield {**self.busy(work), **self.cleared()}
        yield from self.watched(work)
        if work.error is not None:
            yield {**self.failed(work.error, wish.tool), **self.at_rest()}
        else:
            yield {**self.at_rest(), **self.told(work), **self.leafed(work)}

    def turn(self, change: int, session: Session, held: Previewed) -> Iterator[Updates]:
        """Show another page of the preview; what was adjusted on this one is kept by the script."""
        self.place.gate()
        if held.found is None or held.project != session.project:
            yield self.cleared()
            return
        turned = Previewed(held.project, held.tool, held.root, held.request, held.found, held.page + change)
        work = self.start(session, "Preview", lambda _: tools_jobs.leaf(turned))
        yield from self.watched(work)
        yield self.failed(work.error) if work.error else {**self.at_rest(), **self.leafed(work)}

    def apply(self, session: Session, held: Previewed, adjusted: str) -> Iterator[Updates]:
        """Do what the preview shows."""
        self.place.gate()
        work = self.start(
            session, "Apply", lambda control: tools_jobs.apply(self.place, session, held, adjusted or "", control)
        )
        yield self.busy(work)
        yield from self.watched(work)
        if work.error is not None:
            yield {**self.failed(work.error), **self.at_rest()}
        elif work.stopped:
            yield {**self.at_rest(), **self.told(work)}
        else:
            yield {**self.at_rest(), **self.told(work), **self.cleared()}

    def back(self, direction: Callable[[Path], Iterator[Any]], session: Session, folder: Any) -> Iterator[Updates]:
        """Undo or redo; it is not called off halfway."""
        self.place.gate()
        root = tools_jobs.root_of(session, folder)
        yield from self.through(session, "Undo or redo", lambda _: direction(root))

    def empty(self, session: Session, folder: Any) -> Iterator[Updates]:
        """Delete what is in the holding for good."""
        self.place.gate()
        root = tools_jobs.root_of(session, folder)
        yield from self.through(session, "Empty holding", lambda _: dataset_tools.empty_holding(root))

    def install(self, session: Session, model: str) -> Iterator[Updates]:
        """Install what makes masks."""
        self.place.gate()
        yield from self.through(session, "Install", lambda control: masking.install(model, control))

    def through(self, session: Session, title: str, job: Callable[[Control], Iterator[Any]]) -> Iterator[Updates]:
        """Do something that is not called off, show its progress and its end, and take the preview away."""
        work = self.works.start(session.project, title, job, can_stop=False)
        yield {**self.busy(work), **self.cleared()}
        yield from self.watched(work)
        ended = self.told(work)
        if work.error:
            ended[self.tools.said] = self.failed(work.error)[self.tools.said] + ended[self.tools.said]
        yield {**ended, **self.at_rest(), self.tools.apply: gr.update(visible=False)}

    def start(self, session: Session, title: str, job: Callable[[Control], Iterator[Any]]) -> Work:
        """Begin a job that can be called off."""
        return self.works.start(session.project, title, job)

    def watched(self, work: Work) -> Iterator[Updates]:
        """Return how far a job is, until it ends."""
        return ({self.tools.progress: html} for html in tellings(work))

    def busy(self, work: Work) -> Updates:
        """Return the updates for the time that a job takes."""
        tools = self.tools
        return {
            tools.preview: gr.update(interactive=False), tools.apply: gr.update(interactive=False),
            tools.cancel: gr.update(visible=work.can_stop), tools.said: "", tools.beside: "",
            tools.progress: progress_html(work),
        }  # fmt: skip

    def at_rest(self) -> Updates:
        """Return the updates for when a job has ended."""
        tools = self.tools
        return {
            tools.preview: gr.update(interactive=True), tools.apply: gr.update(interactive=True),
            tools.cancel: gr.update(visible=False), tools.progress: "",
        }  # fmt: skip

    def told(self, work: Work) -> Updates:
        """Return what a job said."""
        return {self.tools.said: said_html(work, "Cancelled. No file was changed.")}

    def failed(self, error: Exception, tool: str = "") -> Updates:
        """Return what went wrong, beside the options it is about where it names them."""
        tools = self.tools
        if isinstance(error, ProblemsFound):
            return {
                tools.said: findings.listed(error.problems),
                tools.beside: findings.beside_options(tools_catalog.option_fields(tool), error.problems),
            }
        return {tools.said: error_html(error)}

    def leafed(self, work: Work) -> Updates:
        """Return the updates that show one page of a preview; none when it was called off."""
        made, tools = work.value, self.tools
        if not isinstance(made, Leaf):
            return {}
        found = made.held.found
        applicable = bool(found.clusters) if isinstance(found, Found) else isinstance(found, Draft)
        if isinstance(found, Draft) and made.held.tool != "crop":  # where boxes can be added to what has none
            applicable = bool(found.operations)
        return {
            tools.held: made.held,
            tools.shown: made.html,
            tools.apply: gr.update(visible=applicable, interactive=True),
            tools.pager: gr.update(visible=made.pages > 1),
            tools.page: f'<span class="lora-trainer-page">{made.held.page + 1} of {made.pages}</span>',
        }

    def ask(self, session: Session, folder: Any) -> Updates:
        """Ask whether the holding is really to be emptied, and say how much it holds."""
        self.place.gate()
        size = dataset_tools.holding_size(tools_jobs.root_of(session, folder))
        text = (
            f"<p>The holding has {megabytes(size)} of originals. Without them nothing done until now can be undone.</p>"
        )
        return {self.tools.confirm: gr.update(visible=True), self.tools.question: text}

    def look(self, session: Session, folder: Any, model: str) -> Updates:
        """Return the folders, what their journals could take back, and what is installed."""
        tools, sources = self.tools, session.config.data.sources
        known = tools_jobs.folders(session)
        chosen = folder if folder in known else (known[0] if known else None)
        upscalers = [OWN_LANCZOS, *(each.name for each in self.place.host.upscalers())]
        absent = masking.missing(model)
        updates: Updates = {
            tools.folder: gr.update(choices=known, value=chosen),
            tools.upscaler: gr.update(choices=upscalers),
            tools.needed: f"<p>Needs {escape(absent)}.</p>" if absent else "<p>Installed.</p>",
            tools.install: gr.update(visible=bool(absent)),
            tools.confirm: gr.update(visible=False),
        }
        if chosen is None or not sources[tools_jobs.index_of(session, chosen)].path.strip():
            quiet = {button: gr.update(interactive=False) for button in (tools.undo, tools.redo, tools.empty)}
            return {**updates, **quiet, tools.history: ""}
        self.place.gate()
        root = tools_jobs.root_of(session, chosen)
        undo, redo = dataset_tools.next_to("undo", root), dataset_tools.next_to("redo", root)
        size = dataset_tools.holding_size(root)
        return {
            **updates,
            tools.undo: gr.update(value=f"Undo: {undo.text}" if undo else "Undo", interactive=undo is not None),
            tools.redo: gr.update(value=f"Redo: {redo.text}" if redo else "Redo", interactive=redo is not None),
            tools.empty: gr.update(
                value=f"Empty holding ({megabytes(size)})" if size else "Empty holding", interactive=size > 0
            ),
            tools.history: history_html(history(root)),
        }


def tellings(work: Work) -> Iterator[str]:
    """Yield how far a job is whenever that changes, until it ends."""
    shown = ""
    while not work.ended.wait(TELLS):
        now = progress_html(work)
        if now != shown:
            shown = now
            yield now


def said_html(work: Work, cancelled: str) -> str:
    """Return what a job said, behind `cancelled` where it was called off."""
    text = findings.listed([Problem(note.severity, "", note.text) for note in work.notes])
    return findings.notice([cancelled]) + text if work.stopped else text


def error_html(error: Exception) -> str:
    """Return what went wrong, with its kind where it was not the user's mistake."""
    text = str(error) if isinstance(error, TrainerError) else f"{type(error).__name__}: {error}"
    return findings.notice([text], "error")


def progress_html(work: Work) -> str:
    """Return how far a job is."""
    phase = work.phase
    words = f"{phase.name} {phase.done} of {phase.total}" if phase and phase.total else f"{work.title} …"
    share = phase.done / phase.total * 100 if phase and phase.total else 0.0
    return (
        f'<div class="lora-trainer-progress" role="progressbar" aria-valuenow="{share:.0f}" aria-valuemin="0" '
        f'aria-valuemax="100"><div style="width:{share:.0f}%"></div></div>'
        f'<div class="lora-trainer-words"><span>{escape(words)}</span></div>'
    )


def history_html(entries: tuple[Entry, ...]) -> str:
    """Return the latest changes of a folder, the last one first."""
    if not entries:
        return ""
    rows = [[entry.time.replace("T", " "), entry.text, str(entry.files), entry.state] for entry in reversed(entries)]
    table = findings.table(("When", "What", "Files", "State"), rows[:_HISTORY])
    return f"<details><summary>History: {len(entries)}</summary>{table}</details>"


def megabytes(size: int) -> str:
    """Return a number of bytes as people read it."""
    return f"{size / 1e6:.1f} MB"
