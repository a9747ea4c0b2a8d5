"""The settings of the Train step: the ones that matter in sight, all others in folds with a search over them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr

from lib_lora_trainer.ui import fields
from lib_lora_trainer.ui.components import component, fold, plain
from lib_lora_trainer.ui.fields import Field
from lib_lora_trainer.ui.relevance import group_element
from lib_lora_trainer.ui.synonyms import SYNONYMS


def layout(samplers: Sequence[str]) -> dict[str, Any]:
    """Make the components; return them by the dotted path of their setting."""
    made = {}
    with gr.Group(elem_classes="lora-trainer-form"):
        for field in fields.visible_fields():
            made[field.path] = component(field, samplers)
    with fold("More settings", "more"):
        plain(
            gr.Textbox(
                label="Search", placeholder="e.g. warm-up, min_snr, keep tokens", elem_id="lora_trainer_search",
                info="Finds settings by their name, their help and by what other trainers call them.", max_lines=1,
            )
        )  # fmt: skip
        gr.HTML(index_html(), elem_id="lora_trainer_found")
        with gr.Column(elem_id="lora_trainer_groups"):
            for group, title in fields.GROUPS.items():
                members = [field for field in fields.folded_fields() if field.group == group]
                if members:
                    made.update(_group(title, group, members, samplers))
    return made


def _group(title: str, group: str, members: Sequence[Field], samplers: Sequence[str]) -> dict[str, Any]:
    with fold(title, group_element(group)), gr.Group(elem_classes="lora-trainer-form"):
        return {field.path: component(field, samplers) for field in members}


def index_html() -> str:
    """Return what the page's script searches: for each field its words and its names in other trainers.

    In the page and not asked from the server, so that typing answers at once; in English beside the translated page.
    """
    entries = {
        fields.element(field.path): {
            "label": field.label,
            "words": f"{field.path.removeprefix(fields.SOURCE)} {field.label} {field.help}".lower(),
            "names": SYNONYMS.get(field.path, ()),
            "group": fields.GROUPS.get(field.group, ""),
        }
        for field in (*fields.all_fields(), *fields.source_fields())
    }
    content = escape(json.dumps(entries, ensure_ascii=False))
    return f'<div id="lora_trainer_hits"></div><span id="lora_trainer_index" data-index="{content}"></span>'
