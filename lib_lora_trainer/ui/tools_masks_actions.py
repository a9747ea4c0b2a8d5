"""What happens on: opening pictures in the mask editor, leafing through them, saving what was drawn."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from html import escape
from typing import Any

import gradio as gr

from lib_lora_trainer.app import dataset_tools, masking
from lib_lora_trainer.app.dataset_tools import Request
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError, TrainerError
from lib_lora_trainer.dataset.tools.members import gather
from lib_lora_trainer.dataset.tools.operations import shown
from lib_lora_trainer.ui import findings, tools_jobs, tools_masks_form
from lib_lora_trainer.ui.page import QUIET, Page, Updates
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.session import Session, project_of
from lib_lora_trainer.ui.tools_form import ToolsTab
from lib_lora_trainer.ui.tools_masks_form import MasksForm, Opened

_DRAWN = (
    "(session, opened, drawn) => [session, opened, window.loraTrainerTools ? window.loraTrainerTools.drawn() : drawn]"
)


def wire(
    place: Place,
    page: Page,
    tools: ToolsTab,
    selection: Any,
    followed: tuple[Callable[[Any], Any], Callable[[Any], Any]],
) -> None:
    """Connect the editor's events. followed: what follows a saved mask, a new scan and a look at the journal."""
    masks, session = tools.masks, page.session
    editor = Editor(place, masks)
    opening = [session, tools.folder, selection]
    masks.open.click(editor.guarded(editor.open), opening, masks.shown, **QUIET)
    for button, change in ((masks.previous, -1), (masks.next, 1)):
        leaf = functools.partial(editor.leaf, change)
        button.click(editor.guarded(leaf), [session, masks.opened], masks.shown, **QUIET)
    saving = [session, masks.opened, masks.drawn]
    saved = masks.save.click(editor.guarded(editor.save), saving, {masks.said, masks.drawn}, _js=_DRAWN, **QUIET)
    for follow in followed:
        follow(saved)


class Editor:
    """The functions behind the editor's events."""

    def __init__(self, place: Place, masks: MasksForm) -> None:
        self.place, self.masks = place, masks

    def guarded(self, work: Callable[..., Updates]) -> Callable[..., Updates]:
        """Return `work` with the user's mistakes shown in the editor instead of raised."""

        def told(*entered: Any) -> Updates:
            try:
                return work(*entered)
            except TrainerError as error:
                return {self.masks.said: findings.notice([str(error)], "error")}

        return told

    def open(self, session: Session, folder: Any, selection: str) -> Updates:
        """Open the selected pictures, all of the folder's where none of it is selected."""
        self.place.gate()
        project_of(self.place.projects, session)
        request = Request(session.config.data, None, tools_jobs.index_of(session, folder))
        if not request.data.sources[request.index].masks.strip():
            raise ConfigError("masks: the folder has no folder for masks. Choose one in the folder's settings above.")
        paths = [member.path for member in dataset_tools.gathered(request).members]
        wanted = set(tools_jobs.selected(selection)) if (selection or "").strip() not in ("", "[]") else set()
        chosen = tuple(path for path in paths if path in wanted) or tuple(paths)
        return self.shown(Opened(session.project, request, chosen))

    def leaf(self, change: int, session: Session, opened: Opened) -> Updates:
        """Open the next picture or the one before; what was drawn and not saved is lost."""
        self.place.gate()
        if opened.path is None or opened.project != session.project:
            raise ConfigError("picture: none is open. Press “Open pictures” first.")
        place = min(max(opened.place + change, 0), len(opened.paths) - 1)
        return self.shown(replace(opened, place=place))

    def shown(self, opened: Opened) -> Updates:
        """Return the updates that show the editor with the picture that is open."""
        masks, path, request = self.masks, opened.path, opened.request
        assert path is not None and request is not None
        dataset = gather(request.data, request.index)
        member = dataset.member(path)
        if member is None:
            raise ConfigError(f"{path.name}: is no longer there. Press “Open pictures” again.")
        which = f"{opened.place + 1} of {len(opened.paths)}: {shown(path, dataset.root)}"
        which += "" if member.mask else " (no mask yet: all of it is learned)"
        return {
            masks.opened: opened,
            masks.which: f"<p>{escape(which)}</p>",
            masks.editor: tools_masks_form.editor(path, member.mask),
            masks.said: "",
            masks.drawn: "",
            masks.save: gr.update(visible=True),
            masks.previous: gr.update(interactive=opened.place > 0),
            masks.next: gr.update(interactive=opened.place + 1 < len(opened.paths)),
        }

    def save(self, session: Session, opened: Opened, drawn: str) -> Updates:
        """Save what was drawn as the picture's mask, through the journal, and say what it is like."""
        self.place.gate()
        if opened.path is None or opened.request is None or opened.project != session.project:
            raise ConfigError("picture: none is open. Press “Open pictures” first.")
        grey = tools_masks_form.decoded(drawn or "")
        made = masking.draft_drawn(opened.request, opened.path, grey)
        *_, _ = dataset_tools.apply(made, Control())
        return {self.masks.said: tools_masks_form.verdict(masking.verdict(grey)), self.masks.drawn: ""}
