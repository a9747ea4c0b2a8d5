"""Work of the Evaluate step: started by a button, watched, called off, shown by the panel that began it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_lora_trainer.app import runs
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError, ProblemsFound, RunConflict, TrainerError
from lib_lora_trainer.ui import findings
from lib_lora_trainer.ui.fields import Field
from lib_lora_trainer.ui.page import Updates, shielded
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.session import Session, project_of
from lib_lora_trainer.ui.tools_panel import error_html, progress_html, said_html, tellings
from lib_lora_trainer.ui.tools_work import Work, Works

if TYPE_CHECKING:
    from lib_lora_trainer.ui.evaluate_form import EvaluateTab


@dataclass(frozen=True)
class Made:
    """What work ended with; the panel that began it shows it."""

    value: Any


Maker = Callable[[Session, Sequence[Any], Control], Iterator[Any]]
"""Yields events, and at last Made, or Finished when stopped."""


class Evaluator:
    """The functions behind the events. They hold nothing but where they are: what a browser sees is in its own state."""

    def __init__(self, place: Place, tab: EvaluateTab, works: Works) -> None:
        self.place, self.tab, self.works = place, tab, works

    @property
    def outputs(self) -> set[Any]:
        """What work under way may update."""
        tab = self.tab
        return {tab.progress, tab.cancel, tab.said, tab.beside, tab.watching, *tab.starting}

    def files(self, session: Session, run: str | None) -> tuple[str, ...]:
        """Return the adapter files of a run that still exist, newest last. Raises ConfigError when none is chosen."""
        if not run:
            raise ConfigError("run: none is chosen. Choose one in the list, or train first.")
        return runs.adapters(project_of(self.place.projects, session), run)

    def refuse_when_training(self) -> None:
        """Raise RunConflict while a training uses the model."""
        status = self.place.runner.status()
        if self.place.searches.busy() or (status is not None and status.busy):
            raise RunConflict("A training uses the model. Wait until it has ended, or pause or stop it first.")

    def guarded(self, work: Callable[..., Updates]) -> Callable[..., Updates]:
        """Return `work` with the user's mistakes shown instead of raised; its outputs include `self.outputs`."""

        @functools.wraps(work)
        def cleared(*entered: Any) -> Updates:
            return {self.tab.said: "", self.tab.beside: "", **work(*entered)}

        return shielded(cleared, lambda error: self.failed(error, ()))

    def sending(self, work: Callable[..., Updates]) -> Callable[..., Updates]:
        """Return `work`, guarded, with nothing left to be sent to txt2img unless it says what."""
        told = self.guarded(work)

        @functools.wraps(work)
        def sent(*entered: Any) -> Updates:
            return {self.tab.to_txt2img: "", **told(*entered)}

        return sent

    def starter(
        self,
        make: Maker,
        title: str,
        fields: Sequence[Field] = (),
        then: Callable[[Any], Updates] | None = None,
        *,
        model: bool = True,
    ) -> Callable[..., Iterator[Updates]]:
        """Return the event function that does some work and shows what it made.

        fields: beside which its mistakes are shown; then: returns what is shown of `Made.value`, also when the work was
        stopped after it was made; model: whether it needs the model, which a training may be using.
        """

        def started(session: Session, *entered: Any) -> Iterator[Updates]:
            try:
                self.place.gate()
                project_of(self.place.projects, session)
                if model:
                    self.refuse_when_training()
                work = self.works.start(session.project, title, lambda control: make(session, entered, control))
            except TrainerError as error:
                yield self.failed(error, fields)
                return
            yield self.busy(work)
            for html in tellings(work):
                yield {self.tab.progress: html}
            yield {**self.at_rest(), **self.ended(work, fields, then)}

        return started

    def rejoined(self, show: Callable[[Session, str | None], Updates]) -> Callable[..., Iterator[Updates]]:
        """Return the event function that shows work which another page began, or this one before it was loaded anew.

        show: returns what is shown of a run when the work has ended.
        """

        def followed(session: Session, run: str | None, watching: str) -> Iterator[Updates]:
            work = self.works.running(session.project) if session.project else None
            if work is None:
                yield self.at_rest()
                return
            if watching == mark_of(work):  # the event that began it tells of it
                yield {self.tab.watching: watching}
                return
            yield self.busy(work)
            for html in tellings(work):
                yield {self.tab.progress: html}
            told = self.failed(work.error, ()) if work.error is not None else {}
            yield {**self.at_rest(), **show(session, run), **told}

        return followed

    def ended(self, work: Work, fields: Sequence[Field], then: Callable[[Any], Updates] | None) -> Updates:
        """Return what is shown when work has ended."""
        if work.error is not None:
            return self.failed(work.error, fields)
        said = {self.tab.said: said_html(work, "Stopped. Start again to go on where it was.")}
        if then is not None and isinstance(work.value, Made):
            return {**said, **then(work.value.value)}
        return said

    def busy(self, work: Work) -> Updates:
        """Return the updates for the time that a job takes."""
        tab = self.tab
        return {
            **{each: gr.update(interactive=False) for each in tab.starting},
            tab.cancel: gr.update(visible=work.can_stop), tab.said: "", tab.beside: "", tab.progress: progress_html(work),
            tab.watching: mark_of(work),
        }  # fmt: skip

    def at_rest(self) -> Updates:
        """Return the updates for when a job has ended."""
        tab = self.tab
        return {
            **{each: gr.update(interactive=True) for each in tab.starting},
            tab.cancel: gr.update(visible=False), tab.progress: "", tab.watching: "",
        }  # fmt: skip

    def failed(self, error: Exception, fields: Sequence[Field]) -> Updates:
        """Return what went wrong, beside the options it is about where it names them."""
        if isinstance(error, ProblemsFound):
            return {
                self.tab.said: findings.listed(error.problems),
                self.tab.beside: findings.beside_options(fields, error.problems),
            }
        return {self.tab.said: error_html(error)}


def mark_of(work: Work) -> str:
    """Return what tells one work of this process from another."""
    return str(id(work))
