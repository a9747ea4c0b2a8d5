"""The mask editor's components: which picture, the canvas that the page's script draws, and what was drawn."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from lib_lora_trainer.app.dataset_tools import Request
from lib_lora_trainer.base.errors import ConfigError, DataError
from lib_lora_trainer.dataset.pixels import open_grey
from lib_lora_trainer.dataset.tools.mask_check import MEANING, Judged
from lib_lora_trainer.dataset.tools.pictures import whole
from lib_lora_trainer.ui import findings, tools_pictures
from lib_lora_trainer.ui.components import button, plain

SIDE = 1024  # pixels of the canvas: eight for each pixel of the latents that masks are brought down to
LONGEST = 16_000_000  # characters of a drawn mask's address
_START = "data:image/png;base64,"


@dataclass(frozen=True)
class Opened:
    """Which pictures one browser can leaf through in the editor, and where it is."""

    project: str = ""
    request: Request | None = None
    paths: tuple[Path, ...] = ()
    place: int = 0

    @property
    def path(self) -> Path | None:
        """The picture that is open."""
        return self.paths[self.place] if self.paths else None


@dataclass(frozen=True)
class MasksForm:
    """The components. opened: an Opened; drawn: the mask as the script writes it, a PNG's `data:` address."""

    open: Any
    previous: Any
    next: Any
    which: Any
    editor: Any
    save: Any
    drawn: Any
    said: Any
    opened: Any = field(default_factory=lambda: gr.State(Opened()))

    @property
    def shown(self) -> set[Any]:
        """What opening another picture updates."""
        return {self.which, self.editor, self.said, self.opened, self.previous, self.next, self.save, self.drawn}


def layout() -> MasksForm:
    """Make the components."""
    gr.HTML(
        "<p>What is white in a mask is learned; what lies under the colour is not. The folder needs a folder for masks, "
        "in its settings. Saving can be undone like every tool.</p>"
    )
    with gr.Row(elem_classes="lora-trainer-actions"):
        opening = button("Open pictures", "masks_open")
        previous = button("Previous picture", "masks_previous", interactive=False, size="sm")
        following = button("Next picture", "masks_next", interactive=False, size="sm")
    which = gr.HTML(elem_id="lora_trainer_masks_which")
    editor = gr.HTML(elem_id="lora_trainer_masks_editor")
    said = gr.HTML(elem_id="lora_trainer_masks_said")
    save = button("Save mask", "masks_save", variant="primary", visible=False)
    with gr.Row(elem_classes="lora-trainer-hidden"):
        drawn = plain(gr.Textbox(show_label=False, elem_id="lora_trainer_masks_drawn", max_lines=1))
    return MasksForm(opening, previous, following, which, editor, save, drawn, said)


def editor(path: Path, mask: Path | None) -> str:
    """Return what the script makes an editor of: the picture and its mask. Raises DataError for one that is unreadable."""
    image = whole(path).convert("RGB")
    size = fitted(image.size)
    grey = open_grey(mask).resize(size, Image.Resampling.BILINEAR) if mask else None
    under = tools_pictures.data_address(image, SIDE)
    over = tools_pictures.data_address(grey, SIDE) if grey else ""
    return (
        f'<div class="lora-trainer-masker" data-image="{under}" data-mask="{over}" data-width="{size[0]}" '
        f'data-height="{size[1]}" data-name="{escape(path.name)}"></div>'
    )


def fitted(size: tuple[int, int]) -> tuple[int, int]:
    """Return the canvas's size for a picture's: of its shape, at most SIDE pixels long."""
    scale = min(1.0, SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def decoded(address: str) -> Image.Image:
    """Return what was drawn, 8-bit grey. Raises ConfigError for what is no PNG of at most SIDE pixels."""
    wrong = ConfigError("mask: what the page sent is no drawing. Open the picture again.")
    if not address.startswith(_START) or len(address) > LONGEST:
        raise wrong
    try:
        content = base64.b64decode(address.removeprefix(_START), validate=True)
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            if max(image.size) > SIDE:
                raise wrong
            return image.convert("L")
    except (OSError, ValueError, SyntaxError, DataError) as error:
        raise wrong from error


def verdict(judged: Judged) -> str:
    """Return what a mask is like, as a notice."""
    if judged.verdict == "good":
        return findings.notice([f"Saved. {judged.learned:.0%} of the picture is learned."])
    text, fix = MEANING[judged.verdict]
    share = f" {judged.holes:.1%} of it." if judged.verdict == "holes" else ""
    return findings.notice([f"Saved, but the mask {text}{share} {fix}"], "warning")
