"""A tab that only says something. Imports nothing but gradio, so that it can say what is missing."""

from __future__ import annotations

from html import escape

import gradio as gr


def sentence(text: str) -> gr.Blocks:
    """Return Blocks with one message: what is missing and what to do."""
    with gr.Blocks(analytics_enabled=False) as blocks, gr.Column(elem_id="lora_trainer_root"):
        gr.HTML(f'<div class="lora-trainer-notice lora-trainer-error" role="alert"><p>{escape(text)}</p></div>')
    return blocks
