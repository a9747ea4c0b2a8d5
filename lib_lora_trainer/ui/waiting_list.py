"""The queue as it is seen: the runs that wait, to be chosen, removed or begun."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from lib_lora_trainer.app import projects, runs
from lib_lora_trainer.app.projects import Project
from lib_lora_trainer.app.queue import Runner, Waiting
from lib_lora_trainer.base.errors import UserError
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.ui import fields
from lib_lora_trainer.ui.components import button, plain

_TOLD = 4  # settings of a waiting run that its line names


@dataclass(frozen=True)
class WaitingList:
    """The components."""

    part: Any
    chosen: Any
    others: Any
    begin: Any
    remove: Any
    clear: Any

    @property
    def watched(self) -> set[Any]:
        """What a look at the queue may update."""
        return {self.part, self.chosen, self.others, self.begin, self.remove}


def layout() -> WaitingList:
    """Make the components."""
    with gr.Column(visible=False, elem_id="lora_trainer_waiting") as part:
        chosen = plain(
            gr.CheckboxGroup(
                label="Waiting runs", choices=[], elem_id="lora_trainer_waiting_chosen",
                info="They begin one after the other, also after one that fails.",
            )
        )  # fmt: skip
        others = gr.HTML(elem_id="lora_trainer_waiting_others")
        with gr.Row(elem_classes="lora-trainer-actions"):
            begin = button("Start the waiting runs", "waiting_begin", variant="primary", visible=False, min_width=150)
            remove = button("Remove chosen", "waiting_remove", min_width=110)
            clear = button("Remove all", "waiting_clear", min_width=90)
    return WaitingList(part, chosen, others, begin, remove, clear)


def mark(runner: Runner, project: Project) -> str:
    """Return a text that differs when the list does."""
    held = any(not entry.queued for entry in runner.waiting(project))
    others = len(runner.waiting())
    return f"{' '.join(entry.waiting for entry in runner.waiting(project))} {held} {others}"


def shown(form: WaitingList, runner: Runner, project: Project, config: RunConfig) -> dict[Any, Any]:
    """Return the updates that show what waits. config: the settings now; a line says what its run has differently."""
    waiting = runner.waiting(project)
    elsewhere = [entry for entry in runner.waiting() if entry.project != project]
    choices = [(_line(number, entry, config), entry.waiting) for number, entry in enumerate(waiting, 1)]
    return {
        form.part: gr.update(visible=bool(waiting or elsewhere)),
        form.chosen: gr.update(choices=choices, value=[], visible=bool(waiting)),
        form.others: _others(elsewhere),
        form.begin: gr.update(visible=may_begin(runner, waiting)),
        form.remove: gr.update(visible=bool(waiting)),
    }


def may_begin(runner: Runner, waiting: Sequence[Waiting]) -> bool:
    """Return whether runs wait that begin only when somebody says so: after a restart, or behind a paused run."""
    status = runner.status()
    return bool(waiting) and not (status and status.busy)


def _line(number: int, entry: Waiting, config: RunConfig) -> str:
    try:
        changes = projects.differences(config, runs.enlisted_configuration(entry.project, entry.waiting))
    except UserError as error:
        return f"{number}. {entry.name} · {error}"
    told = [change for change in changes if change.path not in ("name", "base_model")]
    words = [f"{fields.label_of(change.path)} {fields.shown(change.second)}" for change in told[:_TOLD]]
    words += [f"{len(told) - _TOLD} more differences"] if len(told) > _TOLD else []
    left = [] if entry.queued else ["left from before"]
    return " · ".join((f"{number}. {entry.name}", *words, *left))


def _others(waiting: Sequence[Waiting]) -> str:
    if not waiting:
        return ""
    names = ", ".join(dict.fromkeys(entry.project.name for entry in waiting))
    return f"<p>{len(waiting)} of other projects: {escape(names)}</p>"
