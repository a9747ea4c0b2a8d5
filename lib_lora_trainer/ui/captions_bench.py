"""Where work on many captions shows: how far it is, what it would change, and the buttons that do it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from lib_lora_trainer.app.dataset_tools import Draft
from lib_lora_trainer.ui.components import button


@dataclass(frozen=True)
class Previewed:
    """What one browser's preview shows. page: of the draft; settings: by path, that follow when the draft is applied."""

    project: str = ""
    draft: Draft | None = None
    page: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """The components. held: a Previewed."""

    cancel: Any
    progress: Any
    said: Any
    beside: Any
    apply: Any
    leave: Any
    shown: Any
    pager: Any
    previous: Any
    page: Any
    next: Any
    history: Any
    held: Any = field(default_factory=lambda: gr.State(Previewed()))

    @property
    def working(self) -> set[Any]:
        """What work under way may update."""
        return {
            self.cancel, self.progress, self.said, self.beside, self.apply, self.leave, self.shown, self.pager, self.page,
            self.held,
        }  # fmt: skip


def layout() -> Bench:
    """Make the components."""
    progress = gr.HTML(elem_id="lora_trainer_captions_progress")
    cancel = button("Cancel", "captions_cancel", visible=False, min_width=80, scale=0)
    said = gr.HTML(elem_id="lora_trainer_captions_said")
    beside = gr.HTML(elem_id="lora_trainer_captions_beside", elem_classes="lora-trainer-hidden")
    with gr.Row(elem_classes="lora-trainer-actions"):
        apply = button("Apply", "captions_apply", variant="primary", visible=False)
        leave = button("Leave it", "captions_leave", visible=False)
    shown = gr.HTML(elem_id="lora_trainer_captions_shown")
    with gr.Row(visible=False, elem_classes="lora-trainer-actions", elem_id="lora_trainer_captions_pager") as pager:
        previous = button("Previous", "captions_previous", size="sm", min_width=80)
        page = gr.HTML(elem_id="lora_trainer_captions_page")
        following = button("Next", "captions_next", size="sm", min_width=80)
    history = gr.HTML(elem_id="lora_trainer_captions_history")
    return Bench(cancel, progress, said, beside, apply, leave, shown, pager, previous, page, following, history)
