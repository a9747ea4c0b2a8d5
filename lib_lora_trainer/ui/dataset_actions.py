"""What happens on: scanning the folders, leafing through the pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from lib_lora_trainer.ui import page as pages
from lib_lora_trainer.ui import watch
from lib_lora_trainer.ui.page import QUIET, Page, Updates, told
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.session import Session, project_of


def wire(place: Place, page: Page, save: Callable[..., Updates]) -> Callable[[Any], None]:
    """Connect the events; return a function that follows an event by a scan, where the pictures are not known yet.

    save: the event function that saves the form.
    """
    data = page.dataset

    def begin(session: Session) -> Updates:
        if session.project:
            place.scans.begin(session.project)
        return {data.cancel: gr.update(visible=True), **watch.reading(place, page, session)}

    def scan(session: Session) -> Updates:
        try:
            place.gate()
            project_of(place.projects, session)
            place.scans.scan(session.project, session.config)
        finally:
            place.scans.end(session.project)
        return {page.bar.notice: ""}

    def missing(session: Session) -> Updates:
        if not session.config.data.sources or place.scans.current(session.project, session.config):
            return {}
        return scan(session)

    def show(session: Session) -> Updates:
        return {
            data.cancel: gr.update(visible=False),
            **pages.scanned(place, page, session),
            **watch.reading(place, page, session),
        }

    def turn(change: int) -> Any:
        def turned(session: Session, kind: str, number: int) -> Updates:
            return pages.turned(place, page, session, kind, number + change)

        return turned

    told_too = {page.bar.notice, page.styles}
    leaf = {page.number, data.gallery, data.pager, data.page, *told_too}
    working = {"show_progress": "hidden", "api_name": False}  # in the queue, because it may take minutes
    under_way = {data.cancel, data.progress, page.status, *told_too}
    done = {page.number, *data.shown, *under_way}
    saved = data.scan.click(save, [page.session, *page.form], page.saving, **QUIET)
    begun = saved.then(told(page, begin), [page.session], under_way, **QUIET)
    ended = begun.then(told(page, scan), [page.session], told_too, **working)
    ended.then(told(page, show), [page.session], done, **QUIET)
    data.cancel.click(lambda session: place.scans.cancel(session.project), [page.session], None, **QUIET)
    data.previous.click(told(page, turn(-1)), [page.session, data.kind, page.number], leaf, **QUIET)
    data.next.click(told(page, turn(1)), [page.session, data.kind, page.number], leaf, **QUIET)
    data.kind.input(
        told(page, lambda session, kind: pages.turned(place, page, session, kind, 0)),
        [page.session, data.kind],
        leaf,
        **QUIET,
    )

    def follow(event: Any) -> None:
        ended = event.then(told(page, missing), [page.session], told_too, **working)
        ended.then(told(page, show), [page.session], done, **QUIET)

    return follow
