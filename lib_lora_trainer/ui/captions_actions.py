"""What happens on: looking at and editing captions, tagging, editing many, pruning, and on what follows from each."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from lib_lora_trainer.app import tag_jobs
from lib_lora_trainer.captions.edits import EDITS
from lib_lora_trainer.config.paths import put
from lib_lora_trainer.dataset.entries import absolute
from lib_lora_trainer.dataset.journal import history
from lib_lora_trainer.dataset.tools.operations import shown
from lib_lora_trainer.ui import (
    captions_answers,
    captions_cleaning,
    captions_edits,
    captions_jobs,
    captions_probing,
    captions_prune_form,
    captions_tagging,
    tools_jobs,
    tools_work,
    whole_actions,
)
from lib_lora_trainer.ui.captions_bench import Previewed
from lib_lora_trainer.ui.captions_form import CaptionsTab
from lib_lora_trainer.ui.captions_words import Vocabulary
from lib_lora_trainer.ui.captions_work import Workbench
from lib_lora_trainer.ui.page import QUIET, WORKING, Page, Updates, told
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.session import Session
from lib_lora_trainer.ui.tools_panel import history_html
from lib_lora_trainer.ui.tools_work import Works


def wire(
    place: Place,
    page: Page,
    captions: CaptionsTab,
    selection: Any,
    refresh: Callable[[Any], Any],
    works: Works | None = None,
) -> None:
    """Connect the step's events.

    selection: a Textbox with the selected pictures as a JSON list of absolute paths. refresh: follows an event by a new
    scan. works: the jobs under way; the process's own if absent.
    """
    home = place.taggers or tag_jobs.Place(cache())
    bench = Workbench(place, captions, works or tools_work.shared())
    vocabulary = Vocabulary(home)
    _wire_editor(place, page, captions, vocabulary, refresh)
    look = _wire_look(page, captions, bench, home)
    _wire_tagging(page, captions, bench, home, (selection, look))
    _wire_edits(page, captions, bench, selection)
    _wire_cleaning(page, captions, bench, selection, vocabulary)
    _wire_prune(page, captions, bench, selection)
    captions_probing.wire(page, captions, bench, home)
    _wire_bench(page, bench, (refresh, look))


def cache() -> Path:
    """Return where taggers are kept when nobody says otherwise: the folder that the command line uses."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sd-webui-lora-trainer" / "taggers"


def _wire_editor(
    place: Place, page: Page, captions: CaptionsTab, vocabulary: Vocabulary, refresh: Callable[[Any], Any]
) -> None:
    asked = captions.ask.click(
        lambda session, question: captions_answers.answer(place, session, vocabulary, question or ""),
        [page.session, captions.question], [captions.answer],
        _js="() => [null, loraTrainerCaptions.question()]", **QUIET,
    )  # fmt: skip
    asked.then(None, [captions.answer], None, _js="(text) => { loraTrainerCaptions.answered(text); }", api_name=False)
    refresh(captions.later.click(lambda: None, None, None, **QUIET))


def _wire_look(page: Page, captions: CaptionsTab, bench: Workbench, home: tag_jobs.Place) -> Callable[[Any], Any]:
    """Connect what a look at the folders shows; return what lets it follow another event."""
    tagging, prune = captions.tagging, captions.prune

    def look(session: Session, folder: str | None, names: list[str] | None, own: str | None) -> Updates:
        known = tools_jobs.folders(session)
        chosen = folder if folder in known else (known[0] if known else None)
        updates: Updates = {captions.folder: gr.update(choices=known, value=chosen), bench.bench.history: ""}
        updates[captions.probe.sampler] = gr.update(choices=list(bench.place.host.samplers()))
        updates |= captions_tagging.looked(tagging, captions_tagging.wanted(names, own), home)
        if chosen is None or not session.config.data.sources[known.index(chosen)].path.strip():
            return {**updates, prune.folders: captions_prune_form.folders_html({}, ())}
        bench.place.gate()
        root = tools_jobs.root_of(session, chosen)
        updates[bench.bench.history] = history_html(history(root))
        return {**updates, prune.folders: _folders(bench.place, session, known.index(chosen))}

    event: dict[str, Any] = {
        "fn": bench.guarded(look),
        "inputs": [page.session, captions.folder, tagging.taggers, tagging.own],
        "outputs": {
            captions.folder,
            bench.bench.history,
            bench.bench.said,
            bench.bench.beside,
            prune.folders,
            captions.probe.sampler,
            *tagging.known,
        },
        **QUIET,
    }
    captions.look.click(**event)
    captions.folder.input(**event)

    def taggers(names: list[str] | None, own: str | None) -> Updates:
        return captions_tagging.looked(tagging, captions_tagging.wanted(names, own), home)

    chosen = [tagging.taggers, tagging.own]
    outputs = {tagging.needed, tagging.download, bench.bench.said, bench.bench.beside}
    tagging.taggers.change(bench.guarded(taggers), chosen, outputs, **QUIET)
    tagging.own.blur(bench.guarded(taggers), chosen, outputs, **QUIET)
    return lambda follows: follows.then(**event)


def _folders(place: Place, session: Session, index: int) -> str:
    known = place.scans.known(session.project)
    if known is None or index >= len(known.data.sources):
        return captions_prune_form.folders_html({}, ())
    root = absolute(known.data.sources[index].path)
    counts = Counter(
        shown(picture.path.parent, root)
        for picture in known.pictures.values()
        if picture.source == index and picture.state == "used"
    )
    return captions_prune_form.folders_html(dict(sorted(counts.items())), session.config.triggers)


def _wire_tagging(
    page: Page, captions: CaptionsTab, bench: Workbench, home: tag_jobs.Place, around: tuple[Any, Callable[[Any], Any]]
) -> None:
    tagging, (selection, look) = captions.tagging, around
    wish = [captions.folder, captions.on, selection, tagging.taggers, tagging.own]
    work = bench.starter(captions_jobs.tagging(home), "Tagging", captions_tagging.fields())
    tagging.preview.click(work, [page.session, *wish, *tagging.options], bench.outputs, **WORKING)
    work = bench.starter(captions_jobs.downloading(home), "Download")
    looked = tagging.download.click(work, [page.session, tagging.taggers, tagging.own], bench.outputs, **WORKING)
    look(looked)


def _wire_edits(page: Page, captions: CaptionsTab, bench: Workbench, selection: Any) -> None:
    edits = captions.edits

    def choose(title: str) -> Updates:
        name = captions_edits.titled(title)
        return {column: gr.update(visible=each == name) for each, column in edits.columns.items()}

    edits.kind.input(choose, [edits.kind], set(edits.columns.values()), **QUIET)
    fields = [field for name in EDITS for field in captions_edits.fields_of(name)]
    work = bench.starter(captions_jobs.editing, "Preview", fields)
    wish = [page.session, captions.folder, captions.on, selection, edits.kind, *edits.entered]
    edits.preview.click(work, wish, bench.outputs, **WORKING)


def _wire_cleaning(page: Page, captions: CaptionsTab, bench: Workbench, selection: Any, vocabulary: Vocabulary) -> None:
    cleaning = captions.cleaning

    def proposed(found: captions_cleaning.Cleaning) -> Updates:
        return {
            cleaning.proposals: captions_cleaning.proposals_html(found), cleaning.proposed: found,
            cleaning.preview: gr.update(visible=bool(found.proposals), interactive=True),
        }  # fmt: skip

    outputs = bench.outputs | cleaning.answered
    work = bench.starter(captions_jobs.cleaning(vocabulary), "Clean up", captions_cleaning.FIELDS, proposed)
    wish = [page.session, captions.folder, captions.on, selection, cleaning.switches, *cleaning.options]
    cleaning.propose.click(work, wish, outputs, **WORKING)
    work = bench.starter(captions_jobs.cleaned, "Preview")
    inputs = [page.session, cleaning.proposed, cleaning.switches]
    sent = "(session, proposed, _) => [null, null, loraTrainerCaptions.cleaning()]"
    cleaning.preview.click(work, inputs, bench.outputs, _js=sent, **WORKING)


def _wire_prune(page: Page, captions: CaptionsTab, bench: Workbench, selection: Any) -> None:
    prune = captions.prune
    where = [page.session, captions.folder, captions.on, selection]

    def proposed(found: captions_jobs.Shown) -> Updates:
        return {
            prune.proposals: found.html, prune.proposed: found.proposed,
            prune.preview: gr.update(visible=found.proposed is not None, interactive=True),
        }  # fmt: skip

    outputs = bench.outputs | prune.answered
    propose = bench.starter(captions_jobs.proposing(bench.place), "Reading captions", then=proposed)
    check = bench.starter(captions_jobs.checking, "Reading captions", then=proposed)
    for button, work in ((prune.propose, propose), (prune.venn, check)):
        inputs = [*where, prune.scores, prune.wishes, prune.switches]
        button.click(work, inputs, outputs, _js=_sent(inputs), **WORKING)
    inputs = [*where, prune.scores, prune.wishes, prune.switches]
    work = bench.starter(captions_jobs.triggering, "Preview")
    prune.insert.click(work, inputs, bench.outputs, _js=_sent(inputs), **WORKING)
    work = bench.starter(captions_jobs.pruning, "Preview")
    inputs = [page.session, prune.proposed, prune.wishes, prune.switches]
    prune.preview.click(work, inputs, bench.outputs, _js=_sent(inputs), **WORKING)


def _sent(inputs: list[Any]) -> str:
    """Return what has the script say what it holds, in place of the last two inputs: folders' wishes, and switches.

    Gradio calls it with the values of all inputs and, behind them, of all outputs.
    """
    return f"(...entered) => [...entered.slice(0, {len(inputs) - 2}), ...loraTrainerCaptions.pruning()]"


def _wire_bench(page: Page, bench: Workbench, after: tuple[Callable[[Any], Any], Callable[[Any], Any]]) -> None:
    parts, (refresh, look) = bench.bench, after
    parts.cancel.click(lambda now: bench.works.cancel(now.project), [page.session], None, **QUIET)
    parts.leave.click(bench.cleared, None, bench.outputs, **QUIET)
    for button, change in ((parts.previous, -1), (parts.next, 1)):
        button.click(functools.partial(bench.turn, change), [page.session, parts.held], bench.outputs, **WORKING)
    applied = parts.apply.click(bench.apply, [page.session, parts.held], bench.outputs, **WORKING)
    take_over = _settings(bench.place, page)
    followed = applied.then(told(page, take_over), [page.session, parts.held], page.everything, **QUIET)
    look(followed)
    refresh(followed)


def _settings(place: Place, page: Page) -> Callable[[Session, Previewed], Updates]:
    """Return the event function that puts the settings which go with what was applied into the project."""

    def take_over(session: Session, held: Previewed) -> Updates:
        if held.draft is not None or not held.settings or not session.project:
            return {}
        config = session.config
        for path, value in held.settings.items():
            config = put(config, path, value)
        return (
            whole_actions.put(place, page, session, config, "Settings for the captions:")
            if config != session.config
            else {}
        )

    return take_over
