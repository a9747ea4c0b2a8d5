"""What happens on: looking at pictures, and on choosing what is to be done with the selected ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any, Literal

import gradio as gr

from lib_lora_trainer.app import dataset_tools
from lib_lora_trainer.app.dataset_tools import Draft, Request
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError, DataError, TrainerError
from lib_lora_trainer.dataset.entries import absolute, printable
from lib_lora_trainer.dataset.tools.options import FileOptions
from lib_lora_trainer.ui import findings, gallery_answers, gallery_history
from lib_lora_trainer.ui import page as pages
from lib_lora_trainer.ui.gallery import ACTIONS
from lib_lora_trainer.ui.gallery_history import Direction, notes
from lib_lora_trainer.ui.page import QUIET, WORKING, Page, Updates, told
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.session import Session, project_of

Action = Literal["exclude", "include", "move", "copy", "remove", "restore"]

_SENTENCES: dict[str, str] = {
    "exclude": "{} into the hidden folder .excluded, where scans pass them over; they can be taken in again.",
    "include": "{} back to where they were before they were excluded.",
    "move": "{} into the folder {}.",
    "copy": "{} as copies into the folder {}.",
    "remove": "{} into the holding, from where they can be restored.",
    "restore": "{} back from the holding to where they were.",
}


_DONE: dict[str, str] = {
    "exclude": "Excluded", "include": "Taken in again", "move": "Moved", "copy": "Copied", "remove": "Removed",
    "restore": "Restored",
}  # fmt: skip


def wire(place: Place, page: Page) -> None:
    """Connect the script's questions: pictures, and the whole step once another browser has changed what is known."""
    gallery = page.dataset.gallery
    asked = gallery.ask.click(
        lambda session, question: gallery_answers.answer(place, session, question or ""),
        [page.session, gallery.question],
        [gallery.answer],
        _js="() => [null, loraTrainerGallery.question()]",
        **QUIET,
    )
    asked.then(None, [gallery.answer], None, _js="(text) => { loraTrainerGallery.answered(text); }", api_name=False)

    def follow(session: Session, seen: str) -> Updates:
        if not session.project or place.scans.mark(session.project) == seen:
            return {page.seen_scan: seen}
        return pages.scanned(place, page, session)

    page.refresh.click(
        told(page, follow),
        [page.session, page.seen_scan],
        {page.seen_scan, *page.dataset.shown, page.bar.notice, page.styles},
        **QUIET,
    )


def wire_actions(place: Place, page: Page, refresh: Callable[[Any], None]) -> None:
    """Connect the buttons; refresh: called with an event, to follow it by a scan."""
    gallery = page.dataset.gallery
    told_too = {page.bar.notice, page.styles}

    def proposer(action: Action) -> Callable[..., Updates]:
        def propose(session: Session, selection: str, to: str) -> Updates:
            place.gate()
            drafts = drafted(place, session, action, selection, to or "")
            return {
                gallery.proposal: proposal_html(action, drafts, to or ""),
                gallery.pending: drafts,
                gallery.confirm_row: gr.update(visible=True),
                page.bar.notice: "",
            }

        return told(page, propose)

    def confirm(drafts: Sequence[Draft]) -> Updates:
        place.gate()
        if not drafts:
            raise DataError("Nothing is waiting for a confirmation. Select pictures, then choose what to do.")
        said = [text for draft in drafts for text in notes(dataset_tools.apply(draft, Control()))]
        return {**nothing_pending(page), page.bar.notice: findings.notice(said, "warning")}

    for name in ACTIONS:
        gallery.actions[name].click(
            proposer(name),  # type: ignore[arg-type]  # the keys are the actions
            [page.session, gallery.selection, gallery.to],
            gallery.deciding | told_too,
            _js="(session, selection, to) => [null, loraTrainerGallery.selected(), to]",
            **WORKING,
        )
    gallery.refuse.click(lambda: nothing_pending(page), None, gallery.deciding, **QUIET)
    done = gallery.confirm.click(told(page, confirm), [gallery.pending], gallery.deciding | told_too, **WORKING)
    refresh(done)


def wire_history(place: Place, page: Page, save: Callable[..., Updates], refresh: Callable[[Any], None]) -> None:
    """Connect undo and redo. save: the event function that saves the form, so that nothing typed in it is lost."""

    def stepper(direction: Direction) -> Callable[..., Updates]:
        def stepped(session: Session, key: str) -> Updates:
            place.gate()
            project = project_of(place.projects, session)
            said, config = gallery_history.step(direction, project, session.config)
            updates = pages.with_sources(place, page, session, config, key)
            return {**updates, page.bar.notice: findings.notice(said), **nothing_pending(page)}

        return told(page, stepped)

    gallery = page.dataset.gallery
    outputs = page.saving | gallery.deciding
    for direction, button in (("undo", gallery.undo), ("redo", gallery.redo)):
        saved = button.click(save, [page.session, *page.form], page.saving, **QUIET)
        work = stepper(direction)  # type: ignore[arg-type]  # one of the two
        done = saved.then(work, [page.session, page.dataset.folders.key], outputs, **WORKING)
        refresh(done)


def nothing_pending(page: Page) -> Updates:
    """Return the updates that take a proposal away."""
    gallery = page.dataset.gallery
    return {gallery.proposal: "", gallery.pending: (), gallery.confirm_row: gr.update(visible=False)}


def drafted(place: Place, session: Session, action: Action, selection: str, to: str) -> tuple[Draft, ...]:
    """Return what would be done with the selected pictures, a draft for each source. Raises UserError."""
    project_of(place.projects, session)
    paths = selected(selection)
    if not paths:
        raise DataError("No picture is selected. Click pictures, or press Ctrl+A in the gallery, first.")
    if action in ("move", "copy") and not to.strip():
        raise ConfigError("folder: is empty. Name the folder, such as 3_outfit, inside the pictures' own.")
    known = place.scans.known(session.project)
    pictures = known.pictures if known else {}
    by_source: dict[int, list[str]] = {}
    for path in paths:
        if path not in pictures:
            raise DataError(f"{printable(path)}: is not among the pictures of the last scan. Scan again.")
        by_source.setdefault(pictures[path].source, []).append(str(path))
    if known is None or known.data.sources != session.config.data.sources:
        raise DataError("The folders have changed since the scan. Press “Scan folders”, then choose again.")
    drafts = []
    for index, files in sorted(by_source.items()):
        options = FileOptions(action, tuple(files), to.strip())
        *_, last = dataset_tools.draft("files", Request(session.config.data, options, index), Control())
        if isinstance(last, Draft):
            count = sum(bool(proposal.operations) for proposal in last.proposals)
            drafts.append(replace(last, text=f"{_DONE[action]}: {_plural(count, 'picture')}"))
    return tuple(drafts)


def selected(selection: str) -> tuple[Path, ...]:
    """Return the paths in the selection's text box. Raises ConfigError when the page sent something else."""
    try:
        values = json.loads(selection or "[]")
    except ValueError as error:
        raise ConfigError(f"selection: {selection[:80]!r} is no JSON. Reload the page.") from error
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ConfigError("selection: a list of paths is wanted. Reload the page.")
    return tuple(dict.fromkeys(absolute(value) for value in values))


def proposal_html(action: Action, drafts: Sequence[Draft], to: str) -> str:
    """Return in one line what will happen, and what has to be known before."""
    pictures = sum(bool(proposal.operations) for draft in drafts for proposal in draft.proposals)
    files = sum(operation.kind != "drop" for draft in drafts for operation in draft.operations)
    if not files:
        return findings.notice(["Nothing has to be changed: the pictures are there already."])
    with_them = f" with {_plural(files - pictures, 'caption or mask file')}" if files > pictures else ""
    subject = f"{_plural(pictures, 'picture')}{with_them} will go"
    sentence = _SENTENCES[action].format(subject, printable(to.strip()))
    folders = "".join(f"<li>{escape(printable(draft.root))}</li>" for draft in drafts) if len(drafts) > 1 else ""
    problems = tuple(dict.fromkeys(problem for draft in drafts for problem in draft.problems))
    inside = f"<p>{escape(sentence)}</p>{f'<ul>{folders}</ul>' if folders else ''}{findings.listed(problems)}"
    return f'<div class="lora-trainer-notice" role="alert">{inside}</div>'


def _plural(count: int, thing: str) -> str:
    return f"1 {thing}" if count == 1 else f"{count} {thing}s"


def recovered(roots: Sequence[Path]) -> tuple[str, ...]:
    """Settle what an interrupted tool left in the folders, and return what that was."""
    said = []
    for root in roots:
        try:
            said += [note.text for note in dataset_tools.recover(root)]
        except TrainerError as error:  # said, and no reason against looking at the pictures
            said.append(str(error))
    return tuple(said)
