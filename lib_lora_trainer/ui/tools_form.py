"""The panel of dataset tools: which one, on which pictures, its options, the preview, and the journal."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from lib_lora_trainer.app.dataset_tools import Draft, Request
from lib_lora_trainer.dataset.duplicates import Found
from lib_lora_trainer.dataset.tools.bucket_report import BucketReport
from lib_lora_trainer.ui import tools_catalog, tools_masks_form
from lib_lora_trainer.ui.components import button, fold, plain
from lib_lora_trainer.ui.tools_catalog import OFFERS, OWN_LANCZOS
from lib_lora_trainer.ui.tools_masks_form import MasksForm

ALL, SELECTED = "All pictures of the folder", "Selected pictures"


@dataclass(frozen=True)
class Previewed:
    """What one browser's preview shows: of which project and tool, and what was found; page: the one that is shown."""

    project: str = ""
    tool: str = ""
    root: Path | None = None
    request: Request | None = None
    found: Draft | Found | BucketReport | None = None
    page: int = 0


@dataclass(frozen=True)
class ToolsTab:
    """The panel's components. held: a Previewed; adjusted: what was changed in the preview, as the script writes it."""

    tool: Any
    folder: Any
    on: Any
    about: Any
    columns: dict[str, Any]
    options: dict[str, list[Any]]
    upscaler: Any
    needed: Any
    install: Any
    preview: Any
    apply: Any
    cancel: Any
    progress: Any
    said: Any
    beside: Any
    shown: Any
    pager: Any
    previous: Any
    page: Any
    next: Any
    adjusted: Any
    look: Any
    undo: Any
    redo: Any
    history: Any
    empty: Any
    confirm: Any
    question: Any
    really: Any
    never: Any
    masks: MasksForm
    held: Any = field(default_factory=lambda: gr.State(Previewed()))

    @property
    def entered(self) -> list[Any]:
        """Every option's component, tool by tool in the order of OFFERS."""
        return [component for offer in OFFERS for component in self.options.get(offer.name, ())]

    @property
    def model(self) -> Any:
        """The component that names what makes masks."""
        return self.options["mask-generate"][0]

    @property
    def working(self) -> set[Any]:
        """What work under way may update."""
        return {
            self.preview, self.apply, self.cancel, self.progress, self.said, self.beside, self.shown, self.pager, self.page,
            self.adjusted, self.held, self.confirm, self.needed, self.install,
        }  # fmt: skip

    @property
    def known(self) -> set[Any]:
        """What a look at the project's folders may update."""
        return {
            self.folder,
            self.upscaler,
            self.needed,
            self.install,
            self.undo,
            self.redo,
            self.history,
            self.empty,
            self.confirm,
        }


def layout() -> ToolsTab:
    """Make the panel's components."""
    with fold("Dataset tools", "tools"):
        gr.HTML(
            "<p>Look first, then apply. No original is lost: every change can be undone, and what is replaced or removed "
            "goes to a holding folder.</p>"
        )
        choice = _choice()
        options = _options()
        work = _work()
        journal = _journal()
    with fold("Draw masks", "masks"):
        masks = tools_masks_form.layout()
    return ToolsTab(**choice, **options, **work, **journal, masks=masks)


def _choice() -> dict[str, Any]:
    with gr.Row(elem_classes="lora-trainer-tools-choice"):
        tool = gr.Dropdown(
            label="Tool", choices=[each.title for each in OFFERS], value=OFFERS[0].title,
            elem_id="lora_trainer_tools_tool",
        )  # fmt: skip
        folder = gr.Dropdown(label="Folder", choices=[], value=None, elem_id="lora_trainer_tools_folder")
        on = gr.Radio(label="On", choices=[ALL, SELECTED], value=ALL, elem_id="lora_trainer_tools_on")
    about = gr.HTML(about_html(OFFERS[0].name), elem_id="lora_trainer_tools_about")
    return {"tool": plain(tool), "folder": plain(folder), "on": plain(on), "about": about}


def about_html(name: str) -> str:
    """Return what a tool does, in a paragraph."""
    return f"<p>{escape(tools_catalog.offer(name).about)}</p>"


def _options() -> dict[str, Any]:
    columns, options = {}, {}
    for offer in OFFERS:
        fields = tools_catalog.option_fields(offer.name)
        if not fields and offer.name != "upscale":
            continue
        with gr.Column(visible=offer.name == OFFERS[0].name) as column, gr.Group(elem_classes="lora-trainer-form"):
            options[offer.name] = [tools_catalog.option(each) for each in fields]
            if offer.name == "upscale":
                upscaler = gr.Dropdown(
                    label="Upscaler", choices=[OWN_LANCZOS], value=OWN_LANCZOS,
                    info="Lanczos enlarges without adding detail. In the WebUI, all of its upscalers can be chosen.",
                    elem_id="lora_trainer_tools_upscaler", elem_classes=["lora-trainer-setting"],
                )  # fmt: skip
            if offer.name == "mask-generate":
                needed = gr.HTML(elem_id="lora_trainer_tools_needed")
                install = button("Install", "tools_install", visible=False)
        columns[offer.name] = column
    return {
        "columns": columns, "options": options, "upscaler": plain(upscaler), "needed": needed, "install": install,
    }  # fmt: skip


def _work() -> dict[str, Any]:
    with gr.Row(elem_classes="lora-trainer-actions"):
        preview = button("Preview", "tools_preview", variant="primary")
        apply = button("Apply", "tools_apply", visible=False)
        cancel = button("Cancel", "tools_cancel", visible=False, min_width=80, scale=0)
    made = {
        "preview": preview,
        "apply": apply,
        "cancel": cancel,
        "progress": gr.HTML(elem_id="lora_trainer_tools_progress"),
        "said": gr.HTML(elem_id="lora_trainer_tools_said"),
        "beside": gr.HTML(elem_id="lora_trainer_tools_beside", elem_classes="lora-trainer-hidden"),
        "shown": gr.HTML(elem_id="lora_trainer_tools_shown"),
    }
    with gr.Row(visible=False, elem_classes="lora-trainer-actions", elem_id="lora_trainer_tools_pager") as pager:
        previous = button("Previous", "tools_previous", size="sm", min_width=80)
        page = gr.HTML(elem_id="lora_trainer_tools_page")
        following = button("Next", "tools_next", size="sm", min_width=80)
    with gr.Row(elem_classes="lora-trainer-hidden"):
        adjusted = plain(gr.Textbox(show_label=False, elem_id="lora_trainer_tools_adjusted"))
        look = button("Look at the folders", "tools_look")
    return {
        **made,
        "pager": pager,
        "previous": previous,
        "page": page,
        "next": following,
        "adjusted": adjusted,
        "look": look,
    }


def _journal() -> dict[str, Any]:
    with gr.Row(elem_classes="lora-trainer-actions", elem_id="lora_trainer_tools_journal"):
        undo = button("Undo", "tools_undo", interactive=False, size="sm")
        redo = button("Redo", "tools_redo", interactive=False, size="sm")
        empty = button("Empty holding", "tools_empty", interactive=False, size="sm")
    with gr.Column(visible=False, elem_id="lora_trainer_tools_confirm") as confirm:
        question = gr.HTML()
        with gr.Row(elem_classes="lora-trainer-actions"):
            really = button("Delete for good", "tools_really", variant="stop", size="sm")
            never = button("Keep them", "tools_never", size="sm")
    history = gr.HTML(elem_id="lora_trainer_tools_history")
    return {
        "undo": undo, "redo": redo, "empty": empty, "confirm": confirm, "question": question, "really": really,
        "never": never, "history": history,
    }  # fmt: skip
