"""Crops as boxes over their picture, which the page's script lets people drag; and what comes back from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from lib_lora_trainer.app.dataset_tools import Draft
from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.dataset.tools.operations import Proposal, shown
from lib_lora_trainer.dataset.tools.options import FRAMINGS, Box
from lib_lora_trainer.ui import tools_pictures

SIDE = 640  # pixels of the picture under the boxes


def cropper(number: int, proposal: Proposal, root: Path, resolution: int) -> str:
    """Return a picture with its crops for the page's script, which draws the boxes; number: of the proposal."""
    image = tools_pictures.before(proposal.about)
    size = (proposal.before["width"], proposal.before["height"])
    boxes = {crop["framing"]: crop["box"] for crop in proposal.after.get("crops", ())}
    said = "".join(f"<p>{escape(problem.message)} {escape(problem.fix)}</p>" for problem in proposal.problems)
    address = tools_pictures.data_address(image, SIDE) if image else ""
    name = escape(shown(proposal.about, root))
    return (
        f'<figure class="lora-trainer-cropper" data-number="{number}" data-width="{size[0]}" data-height="{size[1]}" '
        f'data-least="{resolution**2}" data-framings="{escape(json.dumps(list(FRAMINGS)))}" '
        f'data-boxes="{escape(json.dumps(boxes))}"><div class="lora-trainer-cropped"><img src="{address}" alt="{name}" '
        f'draggable="false"></div><figcaption><b title="{name}">{name}</b><small>{size[0]}×{size[1]}</small>'
        f'<div class="lora-trainer-framings"></div>{said}</figcaption></figure>'
    )


def adjusted(text: str, draft: Draft) -> dict[Path, dict[str, Box]]:
    """Return the boxes that were moved, added or removed in the page, by picture. Raises ConfigError for nonsense.

    text: JSON of {proposal's number: {framing: [left, top, right, bottom]}}; "" for none. Only pictures of the draft
    can be named, by their numbers.
    """
    try:
        content = json.loads(text) if text.strip() else {}
        return {_path(number, draft): _boxes(boxes) for number, boxes in content.items()}
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise ConfigError("boxes: what the page sent is no list of boxes. Press Preview again.") from error


def _path(number: Any, draft: Draft) -> Path:
    place = int(number)
    if place < 0:
        raise IndexError(place)
    return draft.proposals[place].about


def _boxes(boxes: Mapping[str, Any]) -> dict[str, Box]:
    found: dict[str, Box] = {}
    for framing, numbers in boxes.items():
        if framing not in FRAMINGS:
            raise ValueError(framing)
        left, top, right, bottom = (round(number) for number in numbers)
        found[framing] = (left, top, right, bottom)
    return found
