"""Clean-up of captions as the page offers it: a switch for each rule, and the proposals with a switch for each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any

import gradio as gr

from lib_lora_trainer.app.caption_jobs import Loaded, Selection
from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.captions.cleaning.propose import RULES
from lib_lora_trainer.captions.cleaning.values import CleanOptions, CleanProposal
from lib_lora_trainer.ui import captions_options, findings
from lib_lora_trainer.ui.components import button, fold, plain

FIELDS = captions_options.fields_of("clean", CleanOptions)
_SHOWN = 400


@dataclass(frozen=True)
class Cleaning:
    """What one browser's clean-up proposes, and of which captions."""

    project: str
    loaded: Loaded
    selection: Selection
    proposals: tuple[CleanProposal, ...]


@dataclass(frozen=True)
class CleaningForm:
    """The components. switches: JSON that the page's script writes; proposed: a Cleaning."""

    options: list[Any]
    propose: Any
    proposals: Any
    preview: Any
    switches: Any
    proposed: Any = field(default_factory=lambda: gr.State(None))

    @property
    def starting(self) -> tuple[Any, ...]:
        """The buttons that start work."""
        return (self.propose, self.preview)

    @property
    def answered(self) -> set[Any]:
        """What proposals update."""
        return {self.proposals, self.preview, self.proposed}


def layout() -> CleaningForm:
    """Make the components."""
    with fold("Clean up", "captions_clean"):
        with gr.Group(elem_classes="lora-trainer-form"):
            options = captions_options.laid_out(FIELDS)
        propose = button("Propose", "clean_propose", variant="primary")
        proposals = gr.HTML(elem_id="lora_trainer_clean_proposals")
        preview = button("Preview", "clean_preview", variant="primary", visible=False)
        with gr.Row(elem_classes="lora-trainer-hidden"):
            switches = plain(gr.Textbox("{}", show_label=False, elem_id="lora_trainer_clean_switches"))
    return CleaningForm(options, propose, proposals, preview, switches)


def chosen(entered: Sequence[Any]) -> CleanOptions:
    """Return the options as they were entered. Raises ConfigError naming the field."""
    options: CleanOptions = captions_options.chosen(FIELDS, CleanOptions, entered)
    return options


def switched(proposals: Sequence[CleanProposal], switches: str) -> tuple[CleanProposal, ...]:
    """Return the proposals with the user's switches: JSON of number to whether it is done. Raises ConfigError."""
    try:
        touched = {int(number): bool(on) for number, on in json.loads(switches or "{}").items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise ConfigError("switches: what the page sent is no list of switches. Press Propose again.") from error
    if not set(touched) <= set(range(len(proposals))):
        raise ConfigError("switches: are those of other proposals. Press Propose again.")
    return tuple(replace(each, on=touched.get(number, each.on)) for number, each in enumerate(proposals))


def proposals_html(found: Cleaning) -> str:
    """Return the proposals by rule, with the reason and a switch for each."""
    if not found.proposals:
        return findings.empty("Nothing to clean up", "No rule that is on has anything to say.")
    sections = ""
    for rule, title in RULES.items():
        own = [(number, each) for number, each in enumerate(found.proposals) if each.rule == rule]
        rows = "".join(_proposal(number, each) for number, each in own[:_SHOWN])
        rest = f"<li>… and {len(own) - _SHOWN} more, which are done as well</li>" if len(own) > _SHOWN else ""
        if own:
            sections += f"<h4>{escape(title)} <small>{len(own)}</small></h4><ul>{rows}{rest}</ul>"
    return f'<section class="lora-trainer-proposals">{sections}</section>'


def _proposal(number: int, proposal: CleanProposal) -> str:
    checked = " checked" if proposal.on else ""
    count = len(proposal.files)
    return (
        f'<li><label><input type="checkbox" data-clean="{number}"{checked}><span><b>{escape(proposal.what)}</b> '
        f"<small>{count} caption{'' if count == 1 else 's'}</small><small>{escape(proposal.why)}</small></span></label></li>"
    )
