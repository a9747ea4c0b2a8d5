"""What happens on: scanning the folders, leafing through the pictures."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lib_lora_trainer.ui import page as pages
from lib_lora_trainer.ui.page import QUIET, Page, Updates, told
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.session import Session


def wire(place: Place, page: Page) -> Any:
    """Connect the events; return a function that follows an event by a scan, where the pictures are not known yet."""
    data = page.dataset

    def scan(session: Session, progress: Any) -> Updates:
        place.gate()
        place.scans.scan(
            session.project, session.config, lambda done, whole: progress((done, whole), desc="Reading pictures")
        )
        return pages.scanned(place, page, session)

    def asked(session: Session, progress: Any = gr.Progress(), *entered: Any) -> Updates:  # noqa: B008, B026
        committed = pages.read_form(place, session, entered)
        updates: Updates = {page.styles: "", page.bar.notice: "", page.session: committed.session}
        if committed.reload:
            updates = pages.shown(place, page, committed.session, committed.messages)
        return {**updates, **scan(committed.session, progress)}

    def missing(session: Session, progress: Any = gr.Progress()) -> Updates:  # noqa: B008
        if not session.config.data.sources or place.scans.current(session.project, session.config):
            return {}
        return scan(session, progress)

    def turn(change: int) -> Any:
        def turned(session: Session, kind: str, number: int) -> Updates:
            return pages.turned(place, page, session, kind, number + change)

        return turned

    leaf = {page.number, data.gallery, data.pager, data.page, page.bar.notice, page.styles}
    started = data.scan.click(lambda: gr.update(visible=True), None, [data.cancel], **QUIET)
    ended = started.then(told(page, asked), [page.session, *page.form], page.everything, api_name=False)
    ended.then(lambda: gr.update(visible=False), None, [data.cancel], **QUIET)
    data.cancel.click(lambda session: place.scans.cancel(session.project), [page.session], None, **QUIET)
    data.previous.click(told(page, turn(-1)), [page.session, data.kind, page.number], leaf, **QUIET)
    data.next.click(told(page, turn(1)), [page.session, data.kind, page.number], leaf, **QUIET)
    data.kind.input(
        told(page, lambda session, kind: pages.turned(place, page, session, kind, 0)), [page.session, data.kind], leaf, **QUIET
    )

    def follow(event: Any) -> None:
        event.then(told(page, missing), [page.session], page.everything, api_name=False)

    return follow
