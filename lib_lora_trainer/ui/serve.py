"""The tab without a WebUI: the same Blocks, launched alone in a browser."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import gradio as gr

from lib_lora_trainer.app import jobs
from lib_lora_trainer.app.queue import Runner
from lib_lora_trainer.hosts.api import Host
from lib_lora_trainer.ui.tab import build

_ROOT = Path(__file__).parents[2]
_ALONE = """
footer { display: none !important; }
.gradio-container { overflow: clip !important; }  /* else the bar could not stay on top */
"""


def serve(host: Host, root: Path, port: int = 7870, *, block: bool = True) -> gr.Blocks:
    """Serve the tab on this machine only, at http://127.0.0.1:`port`, until interrupted.

    root: the folder with one folder per project. block: False returns at once with the running app; its `close()`
    ends it. Raises OSError when the port is taken.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # gradio asks at launch, too
    root.mkdir(parents=True, exist_ok=True)
    blocks = with_script(build(host, Runner(jobs.train), root.resolve(), _open, css=style(), theme=_theme()))
    blocks.queue(concurrency_count=16)
    blocks.launch(
        server_name="127.0.0.1",
        server_port=port,
        allowed_paths=[str(root.resolve())],
        show_api=False,
        quiet=True,
        _frontend=False,  # gradio would ask itself for the page and give up after three seconds on a busy machine
        prevent_thread_lock=True,
    )
    sys.stdout.write(f"LoRA Trainer: http://127.0.0.1:{port}   (Ctrl+C ends it)\n")
    sys.stdout.flush()
    if block:
        blocks.block_thread()
    return blocks


def style() -> str:
    """Return the style sheet that the WebUI would load by itself."""
    return (_ROOT / "style.css").read_text(encoding="utf-8") + _ALONE


def with_script(blocks: gr.Blocks) -> gr.Blocks:
    """Return the Blocks with every script of the page, which the WebUI would load by itself, in the order it does."""
    files = sorted((_ROOT / "javascript").glob("*.js"))
    scripts = json.dumps([file.read_text(encoding="utf-8") for file in files])
    with blocks:
        blocks.load(
            None, None, None,
            _js=f"() => {{ for (const script of {scripts}) {{ const tag = document.createElement('script'); "
            "tag.textContent = script; document.head.appendChild(tag); } }",
            api_name=False,
        )  # fmt: skip
    return blocks


def _open() -> None:
    """Let every folder be read: the page is served to this machine only."""


def _theme() -> gr.Theme:
    # The system's own fonts: nothing is fetched from the network.
    return gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
