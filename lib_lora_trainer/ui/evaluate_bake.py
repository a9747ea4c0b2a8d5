"""A vector, a weight or a rebase made part of a new file: the components."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from lib_lora_trainer.ui import evaluate_bake_actions, findings
from lib_lora_trainer.ui.components import button, fold, plain
from lib_lora_trainer.ui.evaluate_work import Evaluator
from lib_lora_trainer.ui.page import Page, Updates
from lib_lora_trainer.ui.session import Session


@dataclass(frozen=True)
class BakePanel:
    """The panel's components.

    file: one of the run's, by its name; own: another one in its place. preset: fills in `blocks`. presets: the file that
    holds the user's own; keep, keep_name: adds `blocks` to it. drafted: what baking would do, or did. made: the path of
    the file that was written.
    """

    file: Any
    own: Any
    preset: Any
    blocks: Any
    elements: Any
    unet: Any
    text: Any
    rebase: Any
    seed: Any
    x: Any
    presets: Any
    keep_name: Any
    keep: Any
    name: Any
    preview: Any
    begin: Any
    drafted: Any
    test: Any
    made: Any

    @property
    def starting(self) -> tuple[Any, ...]:
        """The buttons that start work."""
        return (self.begin, self.preview)

    @property
    def shown(self) -> set[Any]:
        """What choosing a run may update."""
        return {self.file, self.preset, self.drafted, self.test, self.made}

    @property
    def entered(self) -> list[Any]:
        """What work reads, in the order of `evaluate_bake_actions.Wish`."""
        return [
            self.file, self.own, self.blocks, self.elements, self.unet, self.text, self.rebase, self.seed, self.x,
            self.presets, self.name,
        ]  # fmt: skip


def layout() -> BakePanel:
    """Make the panel's components."""
    with gr.Row(elem_classes="lora-trainer-columns"):
        with gr.Column(scale=2, min_width=320, elem_classes="lora-trainer-decide"):
            entered = _form()
        with gr.Column(scale=3, min_width=320, elem_classes="lora-trainer-see"):
            drafted = gr.HTML(value=nothing(), elem_id="lora_trainer_bake_drafted")
            test = button("Test in txt2img", "bake_test", variant="primary", visible=False)
            with gr.Row(elem_classes="lora-trainer-hidden"):
                made = plain(gr.Textbox(show_label=False, elem_id="lora_trainer_bake_made"))
    return BakePanel(**entered, drafted=drafted, test=test, made=made)


def nothing() -> str:
    """Return what the place of the preview shows before there is one."""
    return findings.empty(
        "A file that needs no extension",
        "Baking writes a new file with block weights, a weight or a rebase in it. “Preview” says what it would do; the "
        "old file is never changed.",
    )


def _form() -> dict[str, Any]:
    made: dict[str, Any] = {}
    made["file"] = gr.Dropdown(
        label="File", choices=[], value=None, elem_id="lora_trainer_bake_file", info="Saved files of the run."
    )
    made["own"] = gr.Textbox(
        label="Another file", placeholder="/path/to/adapter.safetensors", max_lines=1, elem_id="lora_trainer_bake_own",
        info="Any adapter of SD 1, SD 2 or SDXL, in place of the one above.",
    )  # fmt: skip
    made["preset"] = gr.Dropdown(
        label="Preset", choices=[], value=None, elem_id="lora_trainer_bake_preset", info="Fills in the block weights."
    )
    made["blocks"] = gr.Textbox(
        label="Block weights", placeholder="MIDD, NOT INALL, IN04-07,MID or 1,0,0.5,…", max_lines=3,
        elem_id="lora_trainer_bake_blocks",
        info="A preset, a vector, blocks, or lbw= with its text as in a prompt. Empty: all blocks at 1.",
    )  # fmt: skip
    with gr.Group(elem_classes="lora-trainer-form"):
        made["unet"] = _number("UNet", 1.0, "unet", "Weight of the UNet’s layers, on top.")
        made["text"] = _number("Text encoder", 1.0, "te", "Weight of the text encoders’ layers, on top.")
        made["rebase"] = _number(
            "Rebase",
            1.0,
            "rebase",
            "The weight that becomes 1. With 0.5 the new file does at 1 what the old one does at half.",
        )
    made["name"] = gr.Textbox(
        label="Name of the new file", placeholder="mikori-baked", max_lines=1, elem_id="lora_trainer_bake_name",
        info="Without .safetensors. It is written beside the other adapters; a file that exists is never replaced.",
    )  # fmt: skip
    with fold("More baking options", "bake_more"):
        made["elements"] = gr.Textbox(
            label="Elements", placeholder="IN05-OUT05:attn:0", max_lines=3, elem_id="lora_trainer_bake_elements",
            info="Kinds of layers within blocks, in the place of their block’s weight: blocks, parts of names, weight.",
        )  # fmt: skip
        with gr.Group(elem_classes="lora-trainer-form"):
            made["seed"] = _number(
                "Seed of R and U", 0, "seed", "For the letters in a vector that stand for random weights."
            )
            made["x"] = _number("X", 1.0, "x", "What X in a vector stands for.")
        made["presets"] = gr.Textbox(
            label="Presets file", placeholder="/path/to/lbwpresets.txt", max_lines=1, elem_id="lora_trainer_bake_presets",
            info="Your own presets, in the format of LoRA Block Weight. Empty: the files that lbw= in txt2img reads, too.",
        )  # fmt: skip
        with gr.Row(elem_classes="lora-trainer-actions"):
            made["keep_name"] = gr.Textbox(
                label="Name of the preset", placeholder="MINE", max_lines=1, elem_id="lora_trainer_bake_keep_name"
            )
            made["keep"] = button("Keep as preset", "bake_keep")
    with gr.Row(elem_classes="lora-trainer-actions"):
        made["begin"] = button("Bake", "bake_begin", variant="primary")
        made["preview"] = button("Preview", "bake_preview")
    return {name: plain(each) for name, each in made.items()}


def _number(label: str, value: float, name: str, about: str) -> Any:
    return gr.Number(
        label=label, value=value, info=about, elem_id=f"lora_trainer_bake_{name}", elem_classes=["lora-trainer-setting"]
    )


def chosen(evaluator: Evaluator, panel: BakePanel, session: Session, run: str) -> Updates:
    """Return what the panel shows of a run; a subset of `panel.shown`. run: "" for none."""
    files = [Path(path).stem for path in evaluator.files(session, run)] if run else []
    return {
        panel.file: gr.update(choices=files, value=files[-1] if files else None),
        panel.preset: gr.update(choices=evaluate_bake_actions.names(evaluator.place, ""), value=None),
        panel.drafted: nothing(),
        panel.test: gr.update(visible=False),
        panel.made: "",
    }


def wire(evaluator: Evaluator, page: Page, panel: BakePanel) -> None:
    """Connect the events."""
    evaluate_bake_actions.wire(evaluator, page, panel)
