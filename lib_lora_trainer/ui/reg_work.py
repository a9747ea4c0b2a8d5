"""Work of the Reg images step: started by a button, watched from any browser, stopped, shown."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from lib_lora_trainer.app import reg_folder, reg_project
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError, DataError, ProblemsFound, RunConflict, TrainerError
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.thumbnails import thumbnail
from lib_lora_trainer.dataset.tools.entries import Entry
from lib_lora_trainer.plan.describe import duration
from lib_lora_trainer.ui import findings, reg_form, reg_gallery, reg_list, reg_making, reg_options, reg_state
from lib_lora_trainer.ui.page import Updates, shielded
from lib_lora_trainer.ui.pictures import address
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.reg_form import Held, Listed, RegTab
from lib_lora_trainer.ui.reg_making import Asked, Leaf, Making, Wish
from lib_lora_trainer.ui.session import Session, project_of
from lib_lora_trainer.ui.tools_panel import TELLS, error_html, progress_html, said_html
from lib_lora_trainer.ui.tools_work import Work, Works

Maker = Callable[[Wish, Control], Iterator[Any]]
_STOPPED = {
    reg_state.MAKING: "Stopped. What is made stays; Generate goes on with what is missing.",
    reg_state.REROLLING: "Stopped. What was not re-rolled yet is still selected.",
}
_STALE = "The settings or files have changed since this list. Press “List captions” for a new one."


class Bench:
    """The functions behind the events. They hold nothing but where they are: what a browser sees is in its own state."""

    def __init__(self, place: Place, tab: RegTab, works: Works) -> None:
        self.place, self.tab, self.works = place, tab, works

    @property
    def outputs(self) -> set[Any]:
        """What work under way may update."""
        return self.tab.working | self.tab.listing | self.tab.images

    def guarded(self, work: Callable[..., Updates]) -> Callable[..., Updates]:
        """Return `work` with the user's mistakes shown instead of raised."""
        return shielded(work, self.failed)

    def wish(self, session: Session, held: Held, entered: Sequence[Any]) -> Wish:
        """Return what a browser asks for. Raises ConfigError while its form shows another project's settings."""
        self.place.gate()
        project_of(self.place.projects, session)
        if held.project != session.project:
            raise ConfigError("settings: the form is still that of another project. Open this step again, then retry.")
        return Wish(self.place, session, reg_options.entered(entered, held.kept.options, session.config))

    def refuse_when_training(self) -> None:
        """Raise RunConflict while a training uses the model."""
        status = self.place.runner.status()
        if self.place.searches.busy() or (status is not None and status.busy):
            raise RunConflict("A training uses the model. Wait until it has ended, or pause or stop it first.")

    def started(
        self, title: str, make: Maker, session: Session, held: Held, number: int, entered: Sequence[Any]
    ) -> Iterator[Updates]:
        """Do some work with what the form says and show what it made. number: the page that the gallery is on."""
        try:
            wish = self.wish(session, held, entered)
            if title in (reg_state.MAKING, reg_state.REROLLING):
                self.refuse_when_training()
            work = self.works.start(session.project, title, functools.partial(make, wish))
        except TrainerError as error:
            yield self.failed(error)
            return
        yield from self.followed(session, work, number)

    def stepped(self, direction: Callable[[Path], Iterator[Any]], session: Session, number: int) -> Iterator[Updates]:
        """Undo or redo; it is not called off halfway."""
        try:
            self.place.gate()
            folder = reg_project.folder(project_of(self.place.projects, session))
            work = self.works.start(session.project, reg_state.STEPPING, lambda _: direction(folder), can_stop=False)
        except TrainerError as error:
            yield self.failed(error)
            return
        yield from self.followed(session, work, number)

    def followed(self, session: Session, work: Work, number: int) -> Iterator[Updates]:
        """Return what is shown of a job until it has ended, and then."""
        yield {**self.busy(work, session), self.tab.said: "", self.tab.beside: "", **self.unasked()}
        shown = ""
        while not work.ended.wait(TELLS):
            now = self.telling(work, session)
            if now != shown:
                shown = now
                yield {self.tab.progress: now}
        yield {**self.at_rest(), **self.ended(work, session, number)}

    def ended(self, work: Work, session: Session, number: int) -> Updates:
        """Return what is shown when a job has ended."""
        updates = self.images(session, number)
        if work.error is not None:
            return {**updates, **self.failed(work.error)}
        updates[self.tab.said] = said_html(work, _STOPPED.get(work.title, "Stopped. Nothing was changed."))
        if isinstance(work.value, Asked):
            updates |= {
                self.tab.asking: gr.update(visible=True), self.tab.question: work.value.html,
                self.tab.rest: gr.update(visible=work.value.some),
            }  # fmt: skip
        elif isinstance(work.value, Leaf):
            view = "list" if work.title == reg_state.LISTING else "images"
            updates |= {**self.leafed(work.value), self.tab.views: gr.Tabs.update(selected=view)}
        elif work.title != reg_state.LISTING:
            updates[self.tab.stale] = findings.notice([_STALE])
        return updates

    def unasked(self) -> Updates:
        """Return the updates that take a question away."""
        return {self.tab.asking: gr.update(visible=False)}

    def busy(self, work: Work, session: Session) -> Updates:
        """Return the updates for the time that a job takes."""
        tab = self.tab
        return {
            **{each: gr.update(interactive=False) for each in (*tab.starting, tab.undo, tab.redo)},
            tab.stop: gr.update(visible=work.can_stop), tab.progress: self.telling(work, session),
        }  # fmt: skip

    def at_rest(self) -> Updates:
        """Return the updates for when a job has ended."""
        tab = self.tab
        return {
            **{each: gr.update(interactive=True) for each in tab.starting},
            tab.stop: gr.update(visible=False), tab.progress: "",
        }  # fmt: skip

    def telling(self, work: Work, session: Session) -> str:
        """Return how far a job is, with the image made last."""
        made = work.value
        if not isinstance(made, Making):
            return progress_html(work)
        project = project_of(self.place.projects, session)
        try:
            source = address(
                thumbnail(made.path, project.folder / "cache" / "thumbnails", reg_gallery.SIDE), project.folder
            )
            picture = f'<img src="{source}" alt="">'
        except DataError:  # taken away meanwhile
            picture = ""
        left = f"<span>{duration(made.seconds)}</span> <span>left</span>" if made.seconds is not None else ""
        share = made.done / made.total * 100
        return (
            f'<div class="lora-trainer-progress" role="progressbar" aria-valuenow="{share:.0f}" aria-valuemin="0" '
            f'aria-valuemax="100"><div style="width:{share:.0f}%"></div></div>'
            f'<div class="lora-trainer-words"><span>{made.done} / {made.total}</span><span>{left}</span></div>'
            f'<figure class="lora-trainer-reg-latest">{picture}<figcaption>{escape(printable(made.caption))}</figcaption>'
            "</figure>"
        )

    def failed(self, error: Exception) -> Updates:
        """Return what went wrong, beside the settings it is about where it names them."""
        if isinstance(error, ProblemsFound):
            return {
                self.tab.said: reg_options.listed(error.problems),
                self.tab.beside: findings.beside_options(reg_options.FIELDS, reg_options.own(error.problems)),
            }
        return {self.tab.said: error_html(error)}

    def leafed(self, made: Leaf) -> Updates:
        """Return the updates that show one page of a list."""
        tab, listed = self.tab, made.listed
        assert listed.draft is not None
        kinds = reg_list.choices(listed.draft)
        return {
            tab.listed: listed, tab.stale: "", tab.rows: made.html,
            tab.head: reg_list.head(listed.draft, listed.options, listed.seconds),
            tab.which: gr.update(choices=kinds, value=listed.which, visible=len(kinds) > 2),
            tab.pager: gr.update(visible=made.pages > 1), tab.page: _page(listed.page, made.pages),
        }  # fmt: skip

    def turned(self, session: Session, listed: Listed) -> Updates:
        """Show the page or the kind that a list is to be on."""
        self.place.gate()
        project = project_of(self.place.projects, session)
        if listed.draft is None or listed.project != session.project:
            return self.unlisted()
        *_, made = reg_making.leaf(listed, project.folder)
        return self.leafed(made)

    def unlisted(self) -> Updates:
        """Return the updates that take a list away."""
        tab, gone = self.tab, gr.update(visible=False)
        return {
            tab.listed: Listed(), tab.stale: "", tab.head: reg_list.nothing(), tab.which: gone, tab.rows: "",
            tab.pager: gone, tab.page: "",
        }  # fmt: skip

    def stale(self, session: Session, listed: Listed, options: Any) -> Updates:
        """Return what tells whether a list is still that of the settings."""
        current = listed.draft is None or listed.project != session.project or listed.options == options
        return {self.tab.stale: "" if current else findings.notice([_STALE])}

    def images(self, session: Session, number: int) -> Updates:
        """Return the gallery on a page and what can be undone in its folder."""
        tab, project = self.tab, project_of(self.place.projects, session)
        folder = reg_project.folder(project)
        made = reg_gallery.leaf(folder, number, project.folder, session.config.data.caption.extensions)
        journal, used = reg_gallery.changes(folder), reg_project.is_source(project, session.config)
        idle = reg_state.running(self.works, session) is None
        return {
            tab.gallery: made.html, tab.leafed: made.number,
            tab.images_pager: gr.update(visible=made.pages > 1), tab.images_page: _page(made.number, made.pages),
            tab.undo: _step("Undo", journal.undo, idle), tab.redo: _step("Redo", journal.redo, idle),
            tab.history: journal.html,
            tab.about: _about(made.count, used), tab.add: gr.update(visible=bool(made.count) and not used and idle),
        }  # fmt: skip

    def look(self, session: Session, held: Held, listed: Listed, number: int) -> Updates:
        """Return all that the step shows of a project, but a form and a list that are its own already."""
        if not session.project:
            return {self.tab.seen: ""}
        project = project_of(self.place.projects, session)
        kept = reg_project.load(project)
        updates: Updates = {} if listed.project == project.name else self.unlisted()
        if (held.project, held.kept.version) != (project.name, kept.version):
            updates |= reg_form.shown(self.tab, Held(project.name, kept), session.config, self.place.host.samplers())
        if held.project != project.name:
            number = 0
            view = "images" if reg_folder.holds_any(reg_project.folder(project)) else "list"
            updates[self.tab.views] = gr.Tabs.update(selected=view)
        work = reg_state.running(self.works, session)
        at_work = self.at_rest() if work is None else self.busy(work, session)
        return {**updates, **self.images(session, number), **at_work, self.tab.seen: self.mark(session)}

    def follow(self, session: Session, held: Held, listed: Listed, number: int, seen: str) -> Updates:
        """Return what is new since this browser was shown the step last; the form stays as it is being filled in."""
        if not session.project or held.project != session.project:
            return self.look(session, held, listed, number)
        work, mark = reg_state.running(self.works, session), self.mark(session)
        telling: Updates = {} if work is None else {self.tab.progress: self.telling(work, session)}
        if mark == seen:
            return {**telling, self.tab.seen: mark}
        at_work = self.at_rest() if work is None else self.busy(work, session)
        return {**self.images(session, number), **at_work, self.tab.seen: mark}

    def mark(self, session: Session) -> str:
        """Return what differs when there is something new to show."""
        work = reg_state.running(self.works, session)
        done = work.value.done if work is not None and isinstance(work.value, Making) else 0
        folder = reg_project.folder(project_of(self.place.projects, session))
        return f"{session.project} {work.title if work else ''} {done} {reg_gallery.mark(folder)}"


def _page(number: int, pages: int) -> str:
    return f'<span class="lora-trainer-page">{number + 1} / {pages}</span>'


def _step(word: str, entry: Entry | None, idle: bool) -> Any:
    return gr.update(value=f"{word}: {entry.text}" if entry else word, interactive=entry is not None and idle)


def _about(count: int, used: bool) -> str:
    if not count:
        return ""
    told = "The project trains on them." if used else "The project does not train on them yet."
    return f"{findings.figures([(str(count), 'images made')])}<p>{told}</p>"
