"""The Reg images step: what the loaded model makes of the captions without the triggers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from lib_lora_trainer.app.reg_draft import Draft
from lib_lora_trainer.app.reg_project import Kept
from lib_lora_trainer.config.regularization import RegularizationConfig
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.ui import reg_list
from lib_lora_trainer.ui.components import button, component, fold, plain
from lib_lora_trainer.ui.entry import to_form
from lib_lora_trainer.ui.fields import Field, element
from lib_lora_trainer.ui.reg_options import FIELDS, FOLDED, MEANT, SOURCES, folders, marks_of, name_of


@dataclass(frozen=True)
class Held:
    """What one browser's form shows: the settings of which project, as they were saved last."""

    project: str = ""
    kept: Kept = field(default_factory=Kept)


@dataclass(frozen=True)
class Listed:
    """What one browser's list shows. which: a key of `reg_list.SHOWN`; seconds: that making the rest takes, if known."""

    project: str = ""
    draft: Draft | None = None
    options: RegularizationConfig = field(default_factory=RegularizationConfig)
    which: str = reg_list.ALL
    page: int = 0
    seconds: float | None = None


@dataclass(frozen=True)
class RegTab:
    """The step's components.

    settings: by the name of the setting; of, marks: what one folder leaves out besides. question, remake, rest, leave:
    whether images made from other settings are to be made anew. seen: what this browser was shown of work under way.
    """

    settings: Mapping[str, Any]
    of: Any
    marks: Any
    by_folder: Any
    list: Any
    make: Any
    stop: Any
    progress: Any
    said: Any
    beside: Any
    asking: Any
    question: Any
    remake: Any
    rest: Any
    leave: Any
    about: Any
    add: Any
    views: Any
    stale: Any
    head: Any
    which: Any
    rows: Any
    pager: Any
    previous: Any
    page: Any
    next: Any
    reroll: Any
    remove: Any
    undo: Any
    redo: Any
    gallery: Any
    images_pager: Any
    images_previous: Any
    images_page: Any
    images_next: Any
    history: Any
    selection: Any
    held: Any = field(default_factory=lambda: gr.State(Held()))
    listed: Any = field(default_factory=lambda: gr.State(Listed()))
    leafed: Any = field(default_factory=lambda: gr.State(0))
    seen: Any = field(default_factory=lambda: gr.State(""))

    @property
    def entered(self) -> list[Any]:
        """What the form sends, in the order that `entered` reads: each of FIELDS, then the folder and its marks."""
        return [*(self.settings[name_of(each)] for each in FIELDS), self.of, self.marks]

    @property
    def starting(self) -> tuple[Any, ...]:
        """The buttons that start work."""
        return (self.list, self.make, self.remake, self.rest, self.reroll, self.remove)

    @property
    def form(self) -> set[Any]:
        """What showing other settings may update."""
        return {*self.entered, self.by_folder, self.held}

    @property
    def listing(self) -> set[Any]:
        """What showing a list may update."""
        return {self.listed, self.stale, self.head, self.which, self.rows, self.pager, self.page, self.views}

    @property
    def images(self) -> set[Any]:
        """What a look at the folder may update."""
        return {
            self.gallery, self.images_pager, self.images_page, self.leafed, self.history, self.undo, self.redo,
            self.about, self.add,
        }  # fmt: skip

    @property
    def working(self) -> set[Any]:
        """What work under way may update."""
        return {self.progress, self.stop, self.said, self.beside, self.asking, self.question, *self.starting}


def layout(samplers: tuple[str, ...]) -> RegTab:
    """Make the step's components. samplers: what the host calls them."""
    with gr.Row(elem_classes="lora-trainer-columns"):
        with gr.Column(scale=2, min_width=320, elem_classes="lora-trainer-decide"):
            form = _form(samplers)
            work = _work()
        with gr.Column(scale=3, min_width=320, elem_classes="lora-trainer-see"):
            about = gr.HTML(elem_id="lora_trainer_reg_about")
            add = button("Add as reg folder to the project", "reg_add", variant="primary", visible=False)
            with plain(gr.Tabs(elem_id="lora_trainer_reg_views")) as views:
                with gr.Tab("List", id="list", elem_id="lora_trainer_reg_view_list"):
                    listing = _listing()
                with gr.Tab("Images", id="images", elem_id="lora_trainer_reg_view_images"):
                    images = _images()
    return RegTab(**form, **work, about=about, add=add, views=views, **listing, **images)


def _form(samplers: tuple[str, ...]) -> dict[str, Any]:
    gr.HTML(
        "<p>The loaded model, without any adapter, draws what is to stay as it is. Trained along with your pictures, "
        "these images keep the trigger from taking over what it is not meant to name.</p>"
    )
    settings: dict[str, Any] = {}
    with gr.Group(elem_classes="lora-trainer-form"):
        for each in FIELDS:
            if name_of(each) not in FOLDED:
                settings[name_of(each)] = _component(each, samplers)
    with fold("More about regularization images", "reg_more"):
        with gr.Group(elem_classes="lora-trainer-form"):
            for each in FIELDS:
                if name_of(each) in FOLDED:
                    settings[name_of(each)] = _component(each, samplers)
        with gr.Group(elem_classes="lora-trainer-form") as by_folder:
            of = gr.Dropdown(
                label="One folder's captions", choices=[], value=None, elem_id="lora_trainer_reg_of",
                elem_classes=["lora-trainer-setting"], info="What its captions alone leave out.",
            )  # fmt: skip
            marks = gr.Textbox(
                label="Leave out of these", value="", lines=2, max_lines=8, placeholder="one a line",
                elem_id="lora_trainer_reg_sources", elem_classes=["lora-trainer-setting"],
                info="Besides what is left out of all captions.",
            )  # fmt: skip
    return {"settings": settings, "of": plain(of), "marks": plain(marks), "by_folder": by_folder}


def _component(about: Field, samplers: Sequence[str]) -> Any:
    name = name_of(about)
    look = {
        "label": about.label, "info": about.help, "elem_id": element(about.path), "elem_classes": ["lora-trainer-setting"],
    }  # fmt: skip
    if name == "prompts":
        return plain(gr.Radio(choices=list(SOURCES), value=about.default, **look))
    if name == "sampler":
        known = list(dict.fromkeys((*samplers, about.default)))
        return plain(gr.Dropdown(choices=known, value=about.default, **look))
    made = component(about)
    if name in MEANT["class"]:
        made.visible = False
    return made


def _work() -> dict[str, Any]:
    with gr.Row(elem_classes="lora-trainer-actions"):
        listing = button("List captions", "reg_list")
        make = button("Generate", "reg_make", variant="primary")
        stop = button("Stop", "reg_stop", variant="stop", visible=False, min_width=80, scale=0)
    progress = gr.HTML(elem_id="lora_trainer_reg_progress")
    said = gr.HTML(elem_id="lora_trainer_reg_said")
    beside = gr.HTML(elem_id="lora_trainer_reg_beside", elem_classes="lora-trainer-hidden")
    with gr.Column(visible=False, elem_id="lora_trainer_reg_asking") as asking:
        question = gr.HTML(elem_id="lora_trainer_reg_question")
        with gr.Row(elem_classes="lora-trainer-actions"):
            remake = button("Make them anew too", "reg_remake", size="sm")
            rest = button("Only what is missing", "reg_rest", size="sm")
            leave = button("Make nothing", "reg_leave", size="sm")
    return {
        "list": listing, "make": make, "stop": stop, "progress": progress, "said": said, "beside": beside,
        "asking": asking, "question": question, "remake": remake, "rest": rest, "leave": leave,
    }  # fmt: skip


def _listing() -> dict[str, Any]:
    stale = gr.HTML(elem_id="lora_trainer_reg_stale")
    head = gr.HTML(reg_list.nothing(), elem_id="lora_trainer_reg_head")
    which = gr.Radio(
        label="Show", choices=[reg_list.ALL], value=reg_list.ALL, visible=False, elem_id="lora_trainer_reg_which"
    )
    rows = gr.HTML(elem_id="lora_trainer_reg_rows")
    pager, previous, page, following = _pager("reg_list")
    return {
        "stale": stale, "head": head, "which": plain(which), "rows": rows, "pager": pager, "previous": previous,
        "page": page, "next": following,
    }  # fmt: skip


def _images() -> dict[str, Any]:
    with gr.Row(elem_classes="lora-trainer-actions", elem_id="lora_trainer_reg_actions"):
        reroll = button("Re-roll selected", "reg_reroll", size="sm")
        remove = button("Remove selected", "reg_remove", size="sm")
        undo = button("Undo", "reg_undo", size="sm", interactive=False)
        redo = button("Redo", "reg_redo", size="sm", interactive=False)
    gallery = gr.HTML(elem_id="lora_trainer_reg_gallery")
    pager, previous, page, following = _pager("reg_images")
    history = gr.HTML(elem_id="lora_trainer_reg_history")
    with gr.Row(elem_classes="lora-trainer-hidden"):
        selection = plain(gr.Textbox("[]", show_label=False, elem_id="lora_trainer_reg_selection"))
    return {
        "reroll": reroll, "remove": remove, "undo": undo, "redo": redo, "gallery": gallery, "images_pager": pager,
        "images_previous": previous, "images_page": page, "images_next": following, "history": history,
        "selection": selection,
    }  # fmt: skip


def _pager(name: str) -> tuple[Any, Any, Any, Any]:
    with gr.Row(
        visible=False,
        elem_classes=["lora-trainer-actions", "lora-trainer-reg-pager"],
        elem_id=f"lora_trainer_{name}_pager",
    ) as pager:
        previous = button("Previous", f"{name}_previous", size="sm", min_width=80)
        page = gr.HTML(elem_id=f"lora_trainer_{name}_page")
        following = button("Next", f"{name}_next", size="sm", min_width=80)
    return pager, previous, page, following


def shown(tab: RegTab, held: Held, config: RunConfig, samplers: Sequence[str]) -> dict[Any, Any]:
    """Return the updates that make the form show settings."""
    options, known = held.kept.options, folders(config)
    updates: dict[Any, Any] = {tab.held: held, **relevant(tab, options.prompts)}
    for each in FIELDS:
        name = name_of(each)
        more = {"choices": list(dict.fromkeys((*samplers, options.sampler)))} if name == "sampler" else {}
        value = to_form(each, getattr(options, name))
        updates[tab.settings[name]] = gr.update(**{**updates.get(tab.settings[name], {}), "value": value, **more})
    first = known[0] if known else None
    updates[tab.of] = gr.update(choices=known, value=first)
    updates[tab.marks] = marks_of(first, options, config)
    return updates


def relevant(tab: RegTab, prompts: str) -> dict[Any, Any]:
    """Return the updates that show the settings which mean something, by where the prompts come from."""
    meant = MEANT.get(prompts, ())
    every = {name for names in MEANT.values() for name in names}
    updates = {tab.settings[name]: gr.update(visible=name in meant) for name in sorted(every)}
    return {**updates, tab.by_folder: gr.update(visible=prompts == "captions")}
