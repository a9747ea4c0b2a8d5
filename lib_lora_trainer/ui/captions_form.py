"""The Captions step: pictures with their captions, and what can be done to many captions at once."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from lib_lora_trainer.dataset.items import Scan
from lib_lora_trainer.ui import (
    captions_bench,
    captions_cleaning,
    captions_edits,
    captions_probe,
    captions_prune_form,
    captions_tagging,
    findings,
)
from lib_lora_trainer.ui.captions_bench import Bench
from lib_lora_trainer.ui.captions_cleaning import CleaningForm
from lib_lora_trainer.ui.captions_edits import EditsForm
from lib_lora_trainer.ui.captions_probe import ProbeForm
from lib_lora_trainer.ui.captions_prune_form import PruneForm
from lib_lora_trainer.ui.captions_tagging import TaggingForm
from lib_lora_trainer.ui.components import button, plain

ALL, SELECTED = "All pictures of the folder", "Selected pictures"


@dataclass(frozen=True)
class CaptionsTab:
    """The step's components.

    ask, question, answer: between the page's script and the server. look: pressed by the script when the step is opened;
    later: pressed by it when captions have been edited one by one and nobody is typing any more.
    """

    ask: Any
    question: Any
    answer: Any
    look: Any
    later: Any
    folder: Any
    on: Any
    tagging: TaggingForm
    edits: EditsForm
    cleaning: CleaningForm
    prune: PruneForm
    probe: ProbeForm
    bench: Bench

    @property
    def starting(self) -> tuple[Any, ...]:
        """The buttons that start work."""
        return (
            *self.tagging.starting,
            *self.edits.starting,
            *self.cleaning.starting,
            *self.prune.starting,
            *self.probe.starting,
        )


def layout() -> CaptionsTab:
    """Make the step's components."""
    gr.HTML(pictures_html(), elem_id="lora_trainer_captions_pictures")
    with gr.Row(elem_classes="lora-trainer-columns"):
        with gr.Column(scale=2, min_width=320, elem_classes="lora-trainer-decide"):
            with gr.Row(elem_id="lora_trainer_captions_scope"):
                folder = gr.Dropdown(label="Folder", choices=[], value=None, elem_id="lora_trainer_captions_folder")
                on = gr.Radio(label="On", choices=[ALL, SELECTED], value=ALL, elem_id="lora_trainer_captions_on")
            tagging = captions_tagging.layout()
            edits = captions_edits.layout()
            cleaning = captions_cleaning.layout()
            prune = captions_prune_form.layout()
            probe = captions_probe.layout()
        with gr.Column(scale=3, min_width=320, elem_classes="lora-trainer-see", elem_id="lora_trainer_captions_bench"):
            bench = captions_bench.layout()
    with gr.Row(elem_classes="lora-trainer-hidden"):
        ask = button("Ask", "captions_ask")
        question = plain(gr.Textbox(show_label=False, elem_id="lora_trainer_captions_question"))
        answer = plain(gr.Textbox(show_label=False, elem_id="lora_trainer_captions_answer"))
        look = button("Look at the folders", "captions_look")
        later = button("Scan again", "captions_later")
    return CaptionsTab(
        ask, question, answer, look, later, plain(folder), plain(on), tagging, edits, cleaning, prune, probe, bench
    )


def pictures_html() -> str:
    """Return the place that the page's script moves the gallery to, and the caption beside it."""
    nothing = findings.empty(
        "No pictures yet", "Choose the folder with your pictures in the Dataset step and scan it; then edit here."
    )
    return (
        f'<div id="lora_trainer_captions_none">{nothing}</div>'
        '<div id="lora_trainer_captions_part"><div class="lora-trainer-query" role="search">'
        '<label><span>Filter captions</span><input type="search" data-caption="query" spellcheck="false" '
        'placeholder="long_hair -hat count&gt;5" autocapitalize="off"></label>'
        '<label class="lora-trainer-within"><input type="checkbox" data-caption="within"> '
        '<span>Only in the selection</span></label><button type="button" data-caption-do="clear">Clear filter</button>'
        '<p data-caption="wrong" role="alert"></p></div>'
        f"{_language()}"
        '<div id="lora_trainer_captions_gallery"></div>'
        '<div id="lora_trainer_caption" data-state="none">'
        '<div class="lora-trainer-caption-picture"><img alt="" hidden><span data-caption="broken"></span></div>'
        '<div class="lora-trainer-caption-words">'
        '<p class="lora-trainer-caption-name"><b data-caption="name"></b> <small data-caption="folder"></small></p>'
        '<div class="lora-trainer-caption-entry"><textarea data-caption="text" rows="4" spellcheck="false" '
        'aria-label="Caption of the picture" '
        'aria-autocomplete="list" aria-controls="lora_trainer_caption_offers"></textarea>'
        '<ul id="lora_trainer_caption_offers" role="listbox" aria-label="Tags that fit" hidden></ul></div>'
        '<p class="lora-trainer-caption-count"><span data-caption="tokens"></span> <span data-caption="state"></span></p>'
        '<ul class="lora-trainer-tags" data-caption="tags" aria-label="Tags"></ul>'
        '<div class="lora-trainer-caption-buttons"><button type="button" data-caption-do="save">Save</button>'
        '<button type="button" data-caption-do="next">Save and next</button>'
        '<button type="button" data-caption-do="back">Discard</button></div>'
        '<div class="lora-trainer-notice lora-trainer-warning" data-caption="conflict" role="alert" hidden>'
        '<p>The caption was changed meanwhile. It now reads:</p><p data-caption="theirs"></p>'
        '<button type="button" data-caption-do="theirs">Take that one</button> '
        '<button type="button" data-caption-do="mine">Keep mine</button></div>'
        '<p class="lora-trainer-caption-keys"><small>Enter edits, Ctrl+Enter saves and goes on, Escape goes back to the '
        "pictures. Drag a tag to move it, click its × to remove it.</small></p>"
        "</div></div>"
        '<details id="lora_trainer_caption_table"><summary>Tags and how often they occur</summary>'
        '<div class="lora-trainer-filters"><label><span>Find a tag</span><input type="search" data-caption="find"></label>'
        '<label><span>In folder</span><select data-caption="where"><option value="">All</option></select></label></div>'
        '<ol class="lora-trainer-frequency" data-caption="frequency"></ol></details></div>'
    )


_TERMS = (
    ("smile", "has the tag; spaces, underscores and capitals do not matter"),
    ("*_hair ?girl", "* is anything, ? one character"),
    ("/^holding /", "a regular expression, found in any tag"),
    ("caption:umbrella", "the text has the word"),
    ("name:img_1 folder:hats", "part of the file's name, or of its folder"),
    ("count>5 tokens>75 chars<20", "how many tags, tokens, letters"),
    ("score:smile>=0.8", "the tagger's score of a tag"),
    ("kind:prose has:caption has:scores", "what sort of caption; whether there is one, or scores"),
    ("a b   a OR b   -a   (a OR b) c", "and, or, not, brackets"),
)


def _language() -> str:
    """Return what filters can say; the examples are no texts, so that no translation changes them."""
    rows = "".join(
        f'<tr><th><code data-term="{escape(term)}"></code></th><td>{escape(about)}</td></tr>' for term, about in _TERMS
    )
    return f'<details class="lora-trainer-language"><summary>What can be written here</summary><table>{rows}</table></details>'


def state_of(scan: Scan | None) -> str:
    """Return the step's state: todo, look (some pictures have no caption) or done."""
    own = [item for item in scan.items if not item.regularization] if scan is not None else []
    if not any(item.caption_file is not None for item in own):
        return "todo"
    return "look" if any(item.caption_file is None for item in own) else "done"
