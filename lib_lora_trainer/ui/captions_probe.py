"""The probe of words as the page offers it: what a word draws on the loaded model before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from lib_lora_trainer.app.probe_jobs import Probed
from lib_lora_trainer.evaluate.probe import ProbeOptions, Pushed, Reading
from lib_lora_trainer.ui import captions_options, findings
from lib_lora_trainer.ui.components import button, fold, plain

FIELDS = captions_options.fields_of("probe", ProbeOptions, without=("sampler",))
_VERDICTS = {
    "free": "Free: the model does not know it.", "boosting": "Boosting: it draws what it is to stand for.",
    "contaminated": "Contaminated: it draws something else.",
}  # fmt: skip
_LISTED = 12


@dataclass(frozen=True)
class ProbeForm:
    """The components. wanted: tags that the words are to stand for."""

    words: Any
    wanted: Any
    sampler: Any
    options: list[Any]
    begin: Any

    @property
    def starting(self) -> tuple[Any, ...]:
        """The buttons that start work."""
        return (self.begin,)


def layout() -> ProbeForm:
    """Make the components."""
    with fold("Probe words", "captions_probe"):
        gr.HTML(
            "<p>The loaded model draws the bare word over several seeds, next to an empty prompt and words without "
            "meaning. The first tagger chosen above says what is in the pictures.</p>"
        )
        words = gr.Textbox(
            label="Words", placeholder="with commas between", max_lines=1, elem_id="lora_trainer_probe_words",
            info="The words that are to be triggers.",
        )  # fmt: skip
        wanted = gr.Textbox(
            label="Stand for", placeholder="with commas between", max_lines=1, elem_id="lora_trainer_probe_wanted",
            info="Tags that they may draw already, since they are to stand for them.",
        )  # fmt: skip
        with gr.Group(elem_classes="lora-trainer-form"):
            sampler = gr.Dropdown(
                label="Sampler", choices=[ProbeOptions().sampler], value=ProbeOptions().sampler,
                elem_id="lora_trainer_probe_sampler", elem_classes=["lora-trainer-setting"],
            )  # fmt: skip
            options = captions_options.laid_out(FIELDS)
        begin = button("Probe", "probe_begin", variant="primary")
    return ProbeForm(plain(words), plain(wanted), plain(sampler), options, begin)


def chosen(sampler: str, entered: Sequence[Any]) -> ProbeOptions:
    """Return the options as they were entered. Raises ConfigError naming the field."""
    options: ProbeOptions = captions_options.chosen(FIELDS, ProbeOptions, entered, sampler=sampler or "")
    return options


def probed_html(made: Probed, addresses: Mapping[str, str]) -> str:
    """Return what the probe found, the words first. addresses: path of a picture to where the page finds it."""
    pictures = {each.word: each.paths for each in made.pictures}
    read = {reading.word for reading in made.readings}
    words = "".join(_word(reading, pictures.get(reading.word, ()), addresses) for reading in made.readings)
    others = "".join(
        f"<section><h4>{escape(each.word) or 'Empty prompt'}</h4>{_strip(each.paths, addresses)}</section>"
        for each in made.pictures
        if each.word not in read
    )
    folded = f"<details><summary>For comparison: {len(pictures) - len(read)} prompts</summary>{others}</details>"
    return f'<div class="lora-trainer-probed lora-trainer-samples">{words}{folded}</div>'


def _word(reading: Reading, paths: Sequence[str], addresses: Mapping[str, str]) -> str:
    figures = (
        (f"{reading.consistency:.2f}", f"alike across seeds, usual {reading.usual_consistency:.2f}"),
        (f"{reading.drift:.1f}×", "as far as a word without meaning"),
    )
    return (
        f'<section data-verdict="{reading.verdict}"><h4>{escape(reading.word)} '
        f'<span class="lora-trainer-badge">{_VERDICTS[reading.verdict]}</span></h4><p>{escape(reading.text)}</p>'
        f"{_strip(paths, addresses)}{findings.figures(figures)}{_pushed('Draws', reading.pushed)}"
        f"{_pushed('Keeps away', reading.suppressed)}</section>"
    )


def _pushed(title: str, tags: Sequence[Pushed]) -> str:
    if not tags:
        return ""
    rows = [[each.tag, f"{each.rate:.0%}", f"{each.usual:.0%}"] for each in tags[:_LISTED]]
    return findings.table((title, "With it", "Without"), rows)


def _strip(paths: Sequence[str], addresses: Mapping[str, str]) -> str:
    images = "".join(
        f'<figure><img src="{addresses[path]}" alt="seed {number}" loading="lazy"></figure>'
        for number, path in enumerate(paths, start=1)
        if path in addresses
    )
    return f'<div class="lora-trainer-strip">{images}</div>'
