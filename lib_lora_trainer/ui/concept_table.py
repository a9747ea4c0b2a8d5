"""The table of concepts: what an epoch shows of each folder; and what balancing would make of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.base.setting import describe
from lib_lora_trainer.dataset.balance import Balance, Row
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.items import Concept, Scan, whole
from lib_lora_trainer.dataset.tools.options import GRADES, Goal
from lib_lora_trainer.ui import findings
from lib_lora_trainer.ui.components import button, plain
from lib_lora_trainer.ui.concept_table_goal import Aim, Repeats, key_of

NUMBERS = ("exposures", "part", "budget")
"""The goal's numbers in the page; its epochs are those of the training."""
_GRADE = "Quality: the share of its exposures that the folder gets when balanced. A is large and clean, E small or bad."


@dataclass(frozen=True)
class ConceptTable:
    """The components. numbers: of the goal, by name. chosen: (folder, grade) as JSON, from the page's script.

    pending: the balance that waits for the confirmation.
    """

    table: Any
    numbers: dict[str, Any]
    balance: Any
    monochrome: Any
    proposal: Any
    pending: Any
    confirm_row: Any
    confirm: Any
    refuse: Any
    grade: Any
    chosen: Any

    @property
    def deciding(self) -> set[Any]:
        """What shows a proposal that waits for its confirmation."""
        return {self.proposal, self.pending, self.confirm_row}


def layout() -> ConceptTable:
    """Make the components."""
    table = gr.HTML(elem_id="lora_trainer_concepts")
    with gr.Column(elem_id="lora_trainer_balancing"):
        with gr.Group(elem_classes="lora-trainer-form"):
            numbers = {}
            for name in NUMBERS:
                about = describe(Goal, name)
                made = gr.Number(
                    value=getattr(Aim(), name), label=about.label, info=about.help, precision=0,
                    elem_id=f"lora_trainer_goal_{name}",
                )  # fmt: skip
                numbers[name] = plain(made)
        with gr.Row(elem_classes="lora-trainer-actions"):
            balance = button("Balance", "balance")
            monochrome = button("Count monochrome", "monochrome")
        proposal = gr.HTML(elem_id="lora_trainer_balance_proposal")
        with gr.Row(visible=False, elem_classes="lora-trainer-actions") as confirm_row:
            confirm = button("Apply", "balance_apply", variant="primary", size="sm")
            refuse = button("Leave it", "balance_refuse", size="sm")
    with gr.Row(elem_classes="lora-trainer-hidden"):
        grade = button("Grade", "grade")
        chosen = plain(gr.Textbox(show_label=False, elem_id="lora_trainer_grade_chosen"))
    return ConceptTable(
        table, numbers, balance, monochrome, proposal, gr.State(None), confirm_row, confirm, refuse, grade, chosen
    )


def table_html(scan: Scan, aim: Aim, shared: Mapping[str, str], monochrome: Mapping[str, float]) -> str:
    """Return the concepts with images × repeats = exposures, each one's share of an epoch, and its grade.

    shared: the trigger of each concept that shares one; monochrome: shares of those that were looked at.
    """
    if not scan.concepts:
        return ""
    in_all = sum(concept.exposures for concept in scan.concepts) or 1
    rows = "".join(_row(concept, in_all, aim, monochrome) for concept in scan.concepts)
    last = "<th>Monochrome</th>" if monochrome else ""
    return (
        '<table class="lora-trainer-table lora-trainer-concepts lora-trainer-stacked"><thead><tr><th>Concept</th>'
        f"<th>Pictures</th><th>Repeats</th><th>Per epoch</th><th>Share</th><th>Grade</th>{last}</tr></thead>"
        f"<tbody>{rows}</tbody></table>{_shared(scan.concepts, shared)}"
    )


def _row(concept: Concept, in_all: float, aim: Aim, monochrome: Mapping[str, float]) -> str:
    share = concept.exposures / in_all * 100
    mark = "<small>regularization</small>" if concept.regularization else ""
    grade = "" if concept.regularization else _grades(concept, aim)
    grey = f"{monochrome[concept.name]:.0%}" if concept.name in monochrome else ""
    last = f'<td data-label="Monochrome">{grey}</td>' if monochrome else ""
    return (
        f'<tr><th title="{_text(str(concept.folder))}">{_text(concept.name)}{mark}</th>'
        f'<td data-label="Pictures">{concept.images}</td><td data-label="Repeats">× {concept.repeats}</td>'
        f'<td data-label="Per epoch">{concept.exposures}</td><td data-label="Share"><div class="lora-trainer-share">'
        f'<div style="width:{share:.1f}%"></div></div>{share:.0f} %</td><td data-label="Grade">{grade}</td>{last}</tr>'
    )


def _grades(concept: Concept, aim: Aim) -> str:
    key = key_of(concept.name)
    chosen = aim.grades.get(key, "A")
    options = "".join(
        f'<option value="{grade}"{" selected" if grade == chosen else ""}>{grade} · {share:.0%}</option>'
        for grade, share in GRADES.items()
    )
    return f'<select data-grade="{_text(key)}" aria-label="Grade of {_text(concept.name)}" title="{_GRADE}">{options}</select>'


def _shared(concepts: Sequence[Concept], shared: Mapping[str, str]) -> str:
    totals: dict[str, list[Concept]] = {}
    for concept in concepts:
        if concept.name in shared:
            totals.setdefault(shared[concept.name], []).append(concept)
    rows = [
        (trigger, str(len(parts)), str(sum(part.images for part in parts)), f"{whole(sum(p.exposures for p in parts))}")
        for trigger, parts in totals.items()
    ]
    return findings.table(("Shared trigger", "Folders", "Pictures", "Per epoch"), rows) if rows else ""


def proposal_html(
    balance: Balance, renames: Sequence[tuple[str, str]], repeats: Sequence[Repeats], problems: Sequence[Problem]
) -> str:
    """Return the proposal as before → after, what will be done for it, and what stands against it.

    renames: folders' old and new names; repeats: settings that change; problems: of both.
    """
    rows = [
        (
            printable(row.concept),
            f"{_once(row)} × {row.number} = {row.exposures:g}",
            f"{_once(row)} × {row.wanted} = {row.proposed:g}",
            _why(row),
        )
        for row in balance.rows
    ]
    table = findings.table(("Concept", "Now", "Then", "Because"), rows)
    will = [f"The folder {old} is renamed to {new}." for old, new in renames]
    will += [
        f"The repeats of {each.path} are set to {each.after} (now {each.before or 'by name'})." for each in repeats
    ]
    done = "".join(f"<li>{_text(text)}</li>" for text in will) or "<li>Nothing has to be changed.</li>"
    return f'<div class="lora-trainer-balance"><h4>Proposal</h4>{table}<ul>{done}</ul>{findings.listed(problems)}</div>'


def _once(row: Row) -> str:
    return f"{row.images}" if row.factor == 1 else f"{row.images} × {row.factor:g}"


def _why(row: Row) -> str:
    reasons = [f"aims at {row.target:g}"]
    reasons += [f"grade {row.grade}"] if row.grade != "A" else []
    reasons += [f"part of {row.group}"] if row.group else []
    return ", ".join(reasons)


def _text(text: str) -> str:
    return escape(printable(text))
