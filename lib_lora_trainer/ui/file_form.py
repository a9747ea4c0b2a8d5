"""Settings as a file: export, and import of our own and of other trainers' files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from lib_lora_trainer.ui import findings
from lib_lora_trainer.ui.components import button, fold, plain


@dataclass(frozen=True)
class FileForm:
    """The components. name: of the file whose text the box holds, as far as known; path: of a file to read here."""

    text: Any
    name: Any
    path: Any
    export: Any
    take: Any
    take_path: Any
    result: Any


def layout() -> FileForm:
    """Make the components."""
    with fold("Export and import of settings", "file"):
        text = plain(
            gr.Textbox(
                label="Settings file", lines=10, max_lines=24, elem_id="lora_trainer_toml", show_copy_button=True,
                info="Export writes the TOML that the command line reads. Import also reads settings files of "
                "sd-scripts, kohya_ss and LoRA_Easy_Training_Scripts.",
            )
        )  # fmt: skip
        with gr.Row(elem_classes="lora-trainer-actions"):
            export = button("Export", "export", size="sm", min_width=80)
            download = button("Download", "download", size="sm", min_width=80)
            choose = button("Open file", "open_file", size="sm", min_width=80)
            take = button("Import", "import", size="sm", min_width=80)
        with gr.Row(elem_classes="lora-trainer-path"):
            path = plain(
                gr.Textbox(
                    label="File on the machine that trains", elem_id="lora_trainer_import_path", max_lines=1, scale=4,
                    info="For a file that names other files, such as a dataset_config.",
                )
            )  # fmt: skip
            take_path = button("Import from there", "import_from_path", size="sm", scale=0, min_width=120)
        result = gr.HTML(elem_id="lora_trainer_imported")
        with gr.Row(elem_classes="lora-trainer-hidden"):
            name = plain(gr.Textbox(show_label=False, elem_id="lora_trainer_file_name"))
        # Both stay in the browser: the page reads and writes the text itself, no path reaches the server.
        download.click(None, None, None, _js="() => { loraTrainer.download(); }", api_name=False)
        choose.click(None, None, None, _js="() => { loraTrainer.open(); }", api_name=False)
    return FileForm(text, name, path, export, take, take_path, result)


@dataclass(frozen=True)
class Result:
    """What became of another trainer's file.

    taken: (key there, our setting, its value). left: (key there, its value, why it was not taken over). assumed: (our
    setting, its value) that follow that trainer's defaults. silent: keys that say what is usual there.
    """

    taken: Sequence[tuple[str, str, str]]
    left: Sequence[tuple[str, str, str]]
    assumed: Sequence[tuple[str, str]]
    silent: Sequence[str]


def result_html(source: str, result: Result) -> str:
    """Return what an import did: first what was not taken over, with the reason, then what was."""
    text = f"<h4>Imported: settings of {escape(source)}</h4>"
    if result.left:
        items = "".join(
            f'<li class="lora-trainer-warning"><i aria-label="warning">!</i><div><b>{escape(key)}</b> '
            f'{escape(value)} <span class="lora-trainer-fix">{escape(why)}</span></div></li>'
            for key, value, why in result.left
        )
        text += f"<p><b>{len(result.left)} not taken over</b></p><ul class='lora-trainer-problems'>{items}</ul>"
    else:
        text += "<p>Everything in the file was taken over.</p>"
    parts = (
        (f"{len(result.taken)} taken over", ("There", "Here", "Value"), result.taken),
        (f"{len(result.assumed)} set to that trainer's defaults", ("Here", "Value"), result.assumed),
        (f"{len(result.silent)} say what is usual there", ("There",), [(key,) for key in result.silent]),
    )
    for title, heads, rows in parts:
        if rows:
            table = findings.table(heads, rows)
            text += f"<details><summary>{escape(title)}</summary>{table}</details>"
    return f'<div class="lora-trainer-imported">{text}</div>'
