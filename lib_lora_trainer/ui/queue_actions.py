"""What happens on: adding runs to the queue, one or a sweep; removing them; beginning what waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lib_lora_trainer.app import sweeps
from lib_lora_trainer.base.errors import ConfigError, TrainerError
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.ui import findings, sweep_form, train_actions, watch
from lib_lora_trainer.ui import page as pages
from lib_lora_trainer.ui.page import QUIET, Page, Updates, told
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.session import Session, project_of


def wire(place: Place, page: Page, save: Callable[..., Updates]) -> None:
    """Connect what adds to the queue. save: the event function that saves the form."""
    train, sweep = page.train, page.train.sweep

    def enqueue(session: Session, *entered: Any) -> Updates:
        return add(place, page, session, entered, None)

    def enqueue_all(session: Session, lines: str, *entered: Any) -> Updates:
        return add(place, page, session, entered, _lines(lines))

    def preview(session: Session, lines: str, *entered: Any) -> Updates:
        session = pages.read_form(place, session, entered)
        configs = expanded(session.config, _lines(lines))
        return {page.session: session, sweep.result: sweep_form.runs_html(session.config, configs)}

    form = [page.session, *page.form]
    swept = [page.session, sweep.lines, *page.form]
    planned = {page.session, page.styles, page.bar.notice, train.planned, train.start}
    events = (
        (train.enqueue, form, train_actions.reported(page, enqueue), planned),
        (sweep.add, swept, _reported(page, enqueue_all), planned | {sweep.result}),
    )
    for button, inputs, work, outputs in events:
        saved = button.click(save, form, page.saving, **QUIET)
        done = saved.then(work, inputs, outputs, api_name=False)
        done.then(watch.follower(place, page), [page.session, page.seen], watch.outputs(page), **QUIET)
    sweep.preview.click(_reported(page, preview), swept, planned | {sweep.result}, **QUIET)


def wire_waiting(place: Place, page: Page) -> None:
    """Connect the list of waiting runs."""
    waiting = page.runs.waiting

    def changed(work: Callable[[Session, Sequence[str]], None]) -> Callable[..., Updates]:
        def change(session: Session, chosen: Sequence[str] | None, seen: str) -> Updates:
            work(session, chosen or ())
            return watch.follow(place, page, session, seen)

        return told(page, change)

    def remove(session: Session, chosen: Sequence[str]) -> None:
        if not chosen:
            raise ConfigError("waiting runs: none is chosen. Tick the ones to remove.")
        project = project_of(place.projects, session)
        for name in chosen:
            if name in {entry.waiting for entry in place.runner.waiting(project)}:  # the page's word is no proof
                place.runner.remove(project, name)

    def clear(session: Session, _: Sequence[str]) -> None:
        place.runner.clear(project_of(place.projects, session))

    def begin(session: Session, _: Sequence[str]) -> None:
        place.gate()
        place.searches.refuse_when_busy()
        place.runner.go_on(place.host, project_of(place.projects, session))

    for button, work in ((waiting.remove, remove), (waiting.clear, clear), (waiting.begin, begin)):
        button.click(
            changed(work), [page.session, waiting.chosen, page.seen],
            watch.outputs(page) | {page.bar.notice, page.styles}, **QUIET,
        )  # fmt: skip


def add(place: Place, page: Page, session: Session, entered: Sequence[Any], lines: Sequence[str] | None) -> Updates:
    """Plan the settings as they are, and append them, or their sweep, to the queue if the plan has no errors.

    lines: of the sweep; None for a single run.
    """
    place.searches.refuse_when_busy()
    if lines is not None:
        expanded(pages.read_form(place, session, entered).config, lines)  # its mistakes come before the plan's minutes
    session, found, updates = train_actions.planned(place, page, session, entered)
    if found.errors:
        return updates
    place.searches.refuse_when_busy()  # once more: a plan takes its time
    # The plan noted the model, so the runs are made of the settings as they are now.
    configs = (session.config,) if lines is None else expanded(session.config, lines)
    place.runner.add(place.host, project_of(place.projects, session), configs)
    count = f"{len(configs)} runs were" if len(configs) > 1 else f"{configs[0].name} was"
    text = f"{count} added to the queue. The Runs step lists what waits."
    return {**updates, page.train.planned: findings.notice([text])}


def expanded(config: RunConfig, lines: Sequence[str]) -> tuple[RunConfig, ...]:
    """Return the runs of a sweep. Raises ProblemsFound or ConfigError with the mistakes in its lines."""
    sweep = sweeps.parse(lines)
    if not sweep:
        raise ConfigError("sweep: no setting is varied. Write a line such as adapter.rank: 8, 16.")
    return sweeps.expand(config, sweep)


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line for line in (text or "").splitlines() if line.strip())


def _reported(page: Page, work: Callable[..., Updates]) -> Callable[..., Updates]:
    """Return `work` with mistakes in the sweep's lines shown beside them, others as those of a plan."""

    def reported(*entered: Any) -> Updates:
        try:
            return work(*entered)
        except TrainerError as error:
            problems = findings.of_error(error)
            if all(problem.where.startswith("sweep") or not problem.where for problem in problems):
                return {page.train.sweep.result: findings.listed(problems)}
            return {**train_actions.refused(page, error), page.train.sweep.result: ""}

    return reported
