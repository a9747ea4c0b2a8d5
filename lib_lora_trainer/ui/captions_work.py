"""Work on many captions: started by a button, watched, shown as a diff, applied or left."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gradio as gr

from lib_lora_trainer.app import dataset_tools
from lib_lora_trainer.app.dataset_tools import Draft
from lib_lora_trainer.app.relay import relay
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError, ProblemsFound, TrainerError
from lib_lora_trainer.base.events import Finished, Note
from lib_lora_trainer.ui import captions_files, captions_show, findings
from lib_lora_trainer.ui.captions_bench import Previewed
from lib_lora_trainer.ui.captions_form import CaptionsTab
from lib_lora_trainer.ui.fields import Field
from lib_lora_trainer.ui.page import Updates, shielded
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.session import Session, project_of
from lib_lora_trainer.ui.tools_panel import error_html, progress_html, said_html, tellings
from lib_lora_trainer.ui.tools_work import Work, Works


@dataclass(frozen=True)
class Made:
    """What work ended with: a draft to be looked at with the settings that go with it, or whatever a part shows itself."""

    draft: Draft | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    other: Any = None


@dataclass(frozen=True)
class Leaf:
    """One page of a preview, ready to be shown. pages: how many there are."""

    held: Previewed
    html: str
    pages: int


Maker = Callable[[Session, Sequence[Any], Control], Iterator[Any]]
"""Yields events, and at last Made, or Finished when stopped."""


class Workbench:
    """The functions behind the events. They hold nothing but where they are: what a browser sees is in its own state."""

    def __init__(self, place: Place, tab: CaptionsTab, works: Works) -> None:
        self.place, self.tab, self.bench, self.works = place, tab, tab.bench, works

    @property
    def outputs(self) -> set[Any]:
        """What work under way may update."""
        return self.bench.working | set(self.tab.starting)

    def guarded(self, work: Callable[..., Updates]) -> Callable[..., Updates]:
        """Return `work` with the user's mistakes shown instead of raised."""
        return shielded(work, lambda error: self.failed(error, ()))

    def starter(
        self,
        make: Maker,
        title: str,
        fields: Sequence[Field] = (),
        then: Callable[[Any], Updates] | None = None,
    ) -> Callable[..., Iterator[Updates]]:
        """Return the event function that does some work and shows what it made.

        fields: beside which its mistakes are shown; then: returns what is shown of `Made.other`.
        """

        def started(session: Session, *entered: Any) -> Iterator[Updates]:
            try:
                self.place.gate()
                project_of(self.place.projects, session)
                job = functools.partial(self._made, make, session, entered)
                work = self.works.start(session.project, title, job)
            except TrainerError as error:
                yield self.failed(error, fields)
                return
            yield {**self.cleared(), **self.busy(work)}
            yield from self.watched(work)
            yield {**self.at_rest(), **self.ended(work, fields, then)}

        return started

    def _made(self, make: Maker, session: Session, entered: Sequence[Any], control: Control) -> Iterator[Any]:
        for event in make(session, entered, control):
            if isinstance(event, Made) and event.draft is not None:
                held = Previewed(session.project, captions_files.guarded(event.draft), 0, event.settings)
                yield from leaf(held, self.place.projects / session.project)
            else:
                yield event

    def ended(self, work: Work, fields: Sequence[Field], then: Callable[[Any], Updates] | None = None) -> Updates:
        """Return what is shown when work has ended."""
        if work.error is not None:
            return self.failed(work.error, fields)
        if isinstance(work.value, Leaf):
            return {**self.told(work), **self.leafed(work.value)}
        if isinstance(work.value, Made) and then is not None and not work.stopped:
            return {**self.told(work), **then(work.value.other)}
        return self.told(work)

    def turn(self, change: int, session: Session, held: Previewed) -> Iterator[Updates]:
        """Show another page of the preview."""
        if held.draft is None or held.project != session.project:
            yield self.cleared()
            return
        turned = replace(held, page=held.page + change)
        try:
            self.place.gate()
            project = self.place.projects / session.project
            work = self.works.start(session.project, "Preview", lambda _: leaf(turned, project))
        except TrainerError as error:
            yield self.failed(error, ())
            return
        yield from self.watched(work)
        yield {**self.at_rest(), **self.ended(work, ())}

    def apply(self, session: Session, held: Previewed) -> Iterator[Updates]:
        """Write what the preview shows."""
        try:
            self.place.gate()
            draft = held.draft
            if draft is None or held.project != session.project:
                raise ConfigError("preview: there is none. Press Preview first, then apply it.")
            work = self.works.start(session.project, "Apply", lambda control: _applied(draft, control))
        except TrainerError as error:
            yield self.failed(error, ())
            return
        yield self.busy(work)
        yield from self.watched(work)
        if work.error is not None or work.stopped:
            yield {**self.at_rest(), **self.ended(work, ())}
            return
        # The settings that follow are taken by the event after this one, and are then forgotten.
        yield {
            **self.at_rest(),
            **self.told(work),
            **self.cleared(),
            self.bench.held: Previewed(settings=held.settings),
        }

    def watched(self, work: Work) -> Iterator[Updates]:
        """Return how far a job is, until it ends."""
        return ({self.bench.progress: html} for html in tellings(work))

    def cleared(self) -> Updates:
        """Return the updates that take a preview away."""
        bench, gone = self.bench, gr.update(visible=False)
        return {
            bench.shown: "", bench.pager: gone, bench.page: "", bench.beside: "", bench.held: Previewed(),
            bench.apply: gone, bench.leave: gone,
        }  # fmt: skip

    def busy(self, work: Work) -> Updates:
        """Return the updates for the time that a job takes."""
        bench = self.bench
        return {
            **{button: gr.update(interactive=False) for button in (*self.tab.starting, bench.apply)},
            bench.cancel: gr.update(visible=work.can_stop), bench.said: "", bench.beside: "",
            bench.progress: progress_html(work),
        }  # fmt: skip

    def at_rest(self) -> Updates:
        """Return the updates for when a job has ended."""
        bench = self.bench
        return {
            **{button: gr.update(interactive=True) for button in (*self.tab.starting, bench.apply)},
            bench.cancel: gr.update(visible=False), bench.progress: "",
        }  # fmt: skip

    def told(self, work: Work) -> Updates:
        """Return what a job said."""
        return {self.bench.said: said_html(work, "Cancelled. No caption was changed.")}

    def failed(self, error: Exception, fields: Sequence[Field]) -> Updates:
        """Return what went wrong, beside the options it is about where it names them."""
        bench = self.bench
        if isinstance(error, ProblemsFound):
            return {
                bench.said: findings.listed(error.problems),
                bench.beside: findings.beside_options(fields, error.problems),
            }
        return {bench.said: error_html(error)}

    def leafed(self, made: Leaf) -> Updates:
        """Return the updates that show one page of a preview."""
        bench = self.bench
        assert made.held.draft is not None
        some = bool(made.held.draft.operations)
        return {
            bench.shown: made.html,
            bench.held: made.held,
            bench.pager: gr.update(visible=made.pages > 1),
            bench.page: f"<p>{made.held.page + 1} / {made.pages}</p>",
            bench.apply: gr.update(
                visible=some,
                interactive=True,
                value=f"Apply to {len(captions_show.relevant(made.held.draft))} captions",
            ),
            bench.leave: gr.update(visible=True),
        }


def leaf(held: Previewed, project: Path) -> Iterator[Any]:
    """Make the page that a preview is on; the last value is the Leaf."""
    assert held.draft is not None
    pages = max(1, -(-len(captions_show.relevant(held.draft)) // captions_show.PAGE))
    number = min(max(held.page, 0), pages - 1)
    html = yield from relay(captions_show.page(held.draft, number, project), str)
    nothing = findings.empty("Nothing to change", "Every caption is like that already.")
    yield Leaf(replace(held, page=number), captions_show.head(held.draft) + (html or nothing), pages)


def _applied(draft: Draft, control: Control) -> Iterator[Any]:
    written = 0
    for event in dataset_tools.apply(draft, control):
        written = event.step if isinstance(event, Finished) else written
        yield event
    if written and control.wish == "go":
        yield Note("note", f"{draft.text}. Undo takes it back.")
