"""What happens on: scanning the folders, and on whatever is followed by a scan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from lib_lora_trainer.ui import concept_table_actions, findings, gallery_actions, watch
from lib_lora_trainer.ui import page as pages
from lib_lora_trainer.ui.gallery_history import roots_of
from lib_lora_trainer.ui.page import QUIET, WORKING, Page, Updates, told
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.session import Session, project_of


@dataclass(frozen=True)
class Scanning:
    """Functions that are called with an event and let a scan follow it.

    if_unknown: only where the folders have not been scanned with these settings. again: always, as after every change
    to the folders; a message that the event left in the notice stays.
    """

    if_unknown: Callable[[Any], None]
    again: Callable[[Any], None]


def wire(place: Place, page: Page, save: Callable[..., Updates]) -> Scanning:
    """Connect the events and return how others are followed by a scan. save: the event function that saves the form."""
    data = page.dataset

    def begin(session: Session) -> Updates:
        if session.project:
            place.scans.begin(session.project)
        return {data.cancel: gr.update(visible=True), **watch.reading(place, page, session)}

    def again(session: Session) -> Updates:
        try:
            place.gate()
            project_of(place.projects, session)
            said = gallery_actions.recovered(roots_of(session.config))
            place.scans.scan(session.project, session.config)
        finally:
            place.scans.end(session.project)
        return {page.bar.notice: findings.notice(said, "warning")} if said else {}

    def scan(session: Session) -> Updates:
        return again(session) or {page.bar.notice: ""}

    def missing(session: Session) -> Updates:
        if not session.config.data.sources:
            return {}
        if not place.scans.current(session.project, session.config):
            return again(session)
        place.gate()
        said = gallery_actions.recovered(roots_of(session.config))
        return again(session) | {page.bar.notice: findings.notice(said, "warning")} if said else {}

    def show(session: Session) -> Updates:
        return {
            data.cancel: gr.update(visible=False),
            **pages.scanned(place, page, session),
            **watch.reading(place, page, session),
        }

    told_too = {page.bar.notice, page.styles}
    under_way = {data.cancel, data.progress, page.status, *told_too}
    done = {page.seen_scan, *data.shown, *under_way}

    def follow(event: Any, work: Callable[[Session], Updates]) -> None:
        ended = event.then(told(page, work), [page.session], told_too, **WORKING)
        ended.then(told(page, show), [page.session], done, **QUIET)

    def begun(event: Any) -> Any:
        return event.then(told(page, begin), [page.session], under_way, **QUIET)

    follow(begun(data.scan.click(save, [page.session, *page.form], page.saving, **QUIET)), scan)
    data.cancel.click(lambda session: place.scans.cancel(session.project), [page.session], None, **QUIET)
    concept_table_actions.wire_monochrome(place, page, begin, show)
    return Scanning(lambda event: follow(event, missing), lambda event: follow(begun(event), again))
