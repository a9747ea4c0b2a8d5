"""The gallery's components: what the page's script fills with pictures, and the buttons for those that are selected.

The script asks through a hidden button and gets its answers in a hidden text box, by the page's own events: so whoever
may use the page sees the pictures, and nobody else. `selection` always holds a JSON list of the selected pictures' paths.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from lib_lora_trainer.ui import findings
from lib_lora_trainer.ui.components import button, plain

ACTIONS = {
    "exclude": ("Exclude", "Put the selected pictures aside, into the hidden folder .excluded (Delete)"),
    "include": ("Take in again", "Put the selected pictures back to where they were"),
    "restore": ("Restore", "Bring the selected pictures back from the holding"),
    "remove": ("Remove", "Put the selected pictures into the holding, from where they can be restored"),
    "move": ("Move", "Move the selected pictures into the folder named beside"),
    "copy": ("Copy", "Copy the selected pictures into the folder named beside"),
}
"""Buttons by the action of `FileOptions`: text, what it does."""

_CHOICES = (("folder", "Folder"), ("bucket", "Bucket"), ("caption", "Caption"))


@dataclass(frozen=True)
class Gallery:
    """The components.

    ask, question, answer: between the page's script and the server. mark: which scan is shown; read by the script.
    selection: JSON list of the selected pictures' absolute paths, written by the script. actions: buttons by name.
    to: the folder to move or copy to. pending: drafts that wait for the confirmation.
    """

    ask: Any
    question: Any
    answer: Any
    mark: Any
    selection: Any
    empty: Any
    actions: dict[str, Any]
    to: Any
    proposal: Any
    pending: Any
    confirm_row: Any
    confirm: Any
    refuse: Any
    undo: Any
    redo: Any
    last: Any

    @property
    def changing(self) -> set[Any]:
        """What says what can be undone."""
        return {self.undo, self.redo, self.last}

    @property
    def deciding(self) -> set[Any]:
        """What shows a proposal that waits for its confirmation."""
        return {self.proposal, self.pending, self.confirm_row}

    @property
    def shown(self) -> set[Any]:
        """What a scan's result updates."""
        return {self.mark, self.empty, *self.changing}


def layout() -> Gallery:
    """Make the components."""
    empty = gr.HTML(value=nothing(), elem_id="lora_trainer_pictures_none")
    with gr.Column(elem_id="lora_trainer_gallery_part"):
        gr.HTML(value=filters_html(), elem_id="lora_trainer_filters")
        with gr.Row(elem_id="lora_trainer_gallery_actions", elem_classes="lora-trainer-actions"):
            actions = {name: button(text, f"picture_{name}", size="sm") for name, (text, _) in ACTIONS.items()}
            to = plain(
                gr.Textbox(
                    label="Into folder", placeholder="such as 3_outfit", elem_id="lora_trainer_picture_to", max_lines=1,
                    min_width=120,
                )
            )  # fmt: skip
        proposal = gr.HTML(elem_id="lora_trainer_picture_proposal")
        with gr.Row(visible=False, elem_classes="lora-trainer-actions") as confirm_row:
            confirm = button("Do it", "picture_confirm", variant="primary", size="sm")
            refuse = button("Leave it", "picture_refuse", size="sm")
        with gr.Row(elem_id="lora_trainer_picture_history", elem_classes="lora-trainer-actions"):
            undo = button("Undo", "picture_undo", size="sm", interactive=False)
            redo = button("Redo", "picture_redo", size="sm", interactive=False)
            last = gr.HTML(elem_id="lora_trainer_picture_last")
        gr.HTML(value=field_html(), elem_id="lora_trainer_pictures")
    with gr.Row(elem_classes="lora-trainer-hidden"):
        ask = button("Ask", "gallery_ask")
        question = plain(gr.Textbox(show_label=False, elem_id="lora_trainer_gallery_question"))
        answer = plain(gr.Textbox(show_label=False, elem_id="lora_trainer_gallery_answer"))
        selection = plain(gr.Textbox(value="[]", show_label=False, elem_id="lora_trainer_selection"))
    mark = gr.HTML(value=mark_html("", ""), elem_id="lora_trainer_gallery_mark", elem_classes="lora-trainer-hidden")
    return Gallery(
        ask, question, answer, mark, selection, empty, actions, to, proposal, gr.State(()), confirm_row, confirm, refuse,
        undo, redo, last,
    )  # fmt: skip


def mark_html(project: str, mark: str) -> str:
    """Return what tells the page's script which project and which scan of it is shown; `mark` is "" without a scan."""
    return f'<span data-project="{escape(project)}" data-mark="{escape(mark)}"></span>'


def nothing() -> str:
    """Return what the picture side shows before the first scan."""
    return findings.empty(
        "No pictures yet",
        "Enter the folder with your pictures and their caption files, then press “Scan folders”. "
        "Nothing in the folder is changed.",
    )


def filters_html() -> str:
    """Return the filters, which the page's script fills with choices and counts."""
    selects = "".join(
        f'<label><span>{label}</span><select data-filter="{name}"><option value="">All</option></select></label>'
        for name, label in _CHOICES
    )
    return (
        '<div class="lora-trainer-chips" data-part="state" role="group" aria-label="Which pictures"></div>'
        '<div class="lora-trainer-chips" data-part="flags" role="group" aria-label="Problems"></div>'
        '<div class="lora-trainer-filters" role="search">'
        '<label><span>Search</span><input type="search" data-filter="text" placeholder="Name or caption"></label>'
        f"{selects}"
        '<label><span>Shorter side from</span><input type="number" min="0" data-filter="least" placeholder="px"></label>'
        '<label><span>Shorter side to</span><input type="number" min="0" data-filter="most" placeholder="px"></label>'
        "</div>"
        '<div class="lora-trainer-counts"><span role="status"><span>Pictures</span> <b data-part="total"></b></span>'
        '<span role="status"><span>Selected</span> <b data-part="chosen"></b></span>'
        '<button type="button" data-do="all">Select all</button><button type="button" data-do="none">Select none</button>'
        '<button type="button" data-do="clear">Clear filters</button></div>'
    )


def field_html() -> str:
    """Return the field that the page's script fills with pictures, and the place for what is said of one of them."""
    titles = "".join(
        f'<i data-button="lora_trainer_picture_{name}" title="{escape(title)}"></i>'
        for name, (_, title) in ACTIONS.items()
    )
    return (
        '<div class="lora-trainer-view" data-part="view" role="listbox" aria-multiselectable="true" tabindex="0" '
        'aria-label="Pictures" data-broken="cannot be read" data-gone="gone since the scan">'
        '<p data-part="nothing" hidden>No picture is like that.</p>'
        '<div data-part="field" role="presentation"></div></div>'
        '<div class="lora-trainer-detail" data-part="detail" aria-live="polite"></div>'
        f'<div class="lora-trainer-hidden" data-part="titles">{titles}</div>'
    )
