"""From the Evaluate step to txt2img: a picture with everything that it was made with, or a file in a prompt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image

from lib_lora_trainer.dataset.formats import DECODER_ERRORS

_AFTER_PROMPT = ("Negative prompt:", "Steps:")


def button_html(infotext: str) -> str:
    """Return a button that has txt2img read an image's parameters; the page's script hears it. "" without any."""
    if not infotext:
        return ""
    return f'<button type="button" class="lora-trainer-button" data-to-txt2img="{escape(infotext)}">To txt2img</button>'


def infotext_of(path: Path, adapter: str = "", weight: float = 1.0) -> str:
    """Return the parameters in a PNG file, "" where it has none or cannot be read.

    adapter: the name of one that was attached to the model and is therefore not in the prompt; it is put there.
    """
    try:
        with Image.open(path) as image:
            text = str(image.info.get("parameters", ""))
    except DECODER_ERRORS:
        return ""
    return with_adapter(text, adapter, weight) if text and adapter else text


def with_adapter(infotext: str, adapter: str, weight: float) -> str:
    """Return parameters with an adapter before their prompt, which may be empty."""
    text = infotext.lstrip("\n")
    gap = "\n" if text.startswith(_AFTER_PROMPT) else " "
    return f"<lora:{adapter}:{weight:g}>{gap}{text}"


def prompt_json(adapter: str, weight: float, triggers: Sequence[str]) -> str:
    """Return what the page's script `toTxt2img` reads: an adapter at a weight and its triggers."""
    return json.dumps({"prompt": f"<lora:{adapter}:{weight:g}> {', '.join(triggers)}".strip()})
