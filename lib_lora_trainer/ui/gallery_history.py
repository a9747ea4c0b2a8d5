"""What can be undone and done again in a project's folders: the journals' entries, and settings changed with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any, Literal

import gradio as gr

from lib_lora_trainer.app import dataset_tools
from lib_lora_trainer.app.projects import Project
from lib_lora_trainer.base.errors import DataError, TrainerError
from lib_lora_trainer.base.events import Event, Note
from lib_lora_trainer.config.paths import put
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.dataset.entries import absolute
from lib_lora_trainer.dataset.tools.entries import Entry
from lib_lora_trainer.ui import concept_table_goal as goals
from lib_lora_trainer.ui.concept_table_goal import Balanced, Repeats
from lib_lora_trainer.ui.gallery import Gallery

Direction = Literal["undo", "redo"]


@dataclass(frozen=True)
class Change:
    """What is undone or done again next: entries of journals by their folder, and repeats that were set with them."""

    text: str
    time: str
    roots: tuple[Path, ...]
    balanced: Balanced | None = None


def roots_of(config: RunConfig) -> tuple[Path, ...]:
    """Return the folders of a configuration, each once."""
    return tuple(dict.fromkeys(absolute(source.path) for source in config.data.sources if source.path.strip()))


def next_change(direction: Direction, project: Project, config: RunConfig) -> Change | None:
    """Return the change of all folders that is undone, or done again, next; None when there is none.

    Undone is the latest one; done again the earliest of those undone. What a balancing renamed in several folders, and
    set in the settings, is one change.
    """
    known = {root: entry for root in roots_of(config) if (entry := dataset_tools.next_to(direction, root)) is not None}
    changes = [Change(entry.text, entry.time, (root,)) for root, entry in known.items()]
    balanced = goals.load(project).balanced
    if balanced is not None and balanced.undone == (direction == "redo"):
        own = tuple(root for root, entry in known.items() if _belongs(root, entry, balanced))
        if len(own) == len(balanced.entries):
            changes = [change for change in changes if change.roots[0] not in own]
            changes.append(Change(balanced.text, balanced.time, own, balanced))
    if not changes:
        return None
    ordered = sorted(changes, key=lambda change: change.time)
    return ordered[-1] if direction == "undo" else ordered[0]


def _belongs(root: Path, entry: Entry, balanced: Balanced) -> bool:
    return (str(root), entry.number) in balanced.entries


def step(direction: Direction, project: Project, config: RunConfig) -> tuple[tuple[str, ...], RunConfig]:
    """Undo or redo the next change; return what to say, and the settings with what belongs to it.

    Raises DataError when there is none, or naming a file that was changed meanwhile.
    """
    change = next_change(direction, project, config)
    if change is None:
        raise DataError(f"There is nothing to {direction} in the project's folders.")
    act = dataset_tools.undo if direction == "undo" else dataset_tools.redo
    told = [text for root in change.roots for text in notes(act(root))]
    if change.balanced is None:
        return tuple(told), config
    told = told or [f"{'Taken back' if direction == 'undo' else 'Done again'}: {change.text}."]
    goals.remember(project, replace(change.balanced, undone=direction == "undo"))
    return tuple(told), with_repeats(config, change.balanced.repeats, direction)


def with_repeats(config: RunConfig, changes: tuple[Repeats, ...], direction: Direction) -> RunConfig:
    """Return the settings with sources' repeats before (`undo`) or after (`redo`); what was set otherwise stays."""
    for change in changes:
        old, new = (change.after, change.before) if direction == "undo" else (change.before, change.after)
        sources = [
            replace(source, repeats=new) if source.path == change.path and source.repeats == old else source
            for source in config.data.sources
        ]
        config = put(config, "data.sources", tuple(sources))
    return config


def notes(events: Iterator[Event]) -> Iterator[str]:
    """Run a job to its end and yield what its notes say."""
    for event in events:
        if isinstance(event, Note):
            yield event.text


def shown(gallery: Gallery, project: Project, config: RunConfig) -> dict[Any, Any]:
    """Return the buttons and the line that say what can be undone."""
    try:
        undo, redo = (next_change(direction, project, config) for direction in ("undo", "redo"))
    except TrainerError as error:  # a journal that cannot be read
        unusable = gr.update(interactive=False)
        return {gallery.undo: unusable, gallery.redo: unusable, gallery.last: _line("", str(error))}
    parts = [_line("Undo", undo.text) if undo else "", _line("Redo", redo.text) if redo else ""]
    return {
        gallery.undo: gr.update(interactive=undo is not None),
        gallery.redo: gr.update(interactive=redo is not None),
        gallery.last: "".join(parts),
    }


def _line(word: str, text: str) -> str:
    return f'<p class="lora-trainer-last">{f"<b>{word}</b> " if word else ""}<span>{escape(text)}</span></p>'
