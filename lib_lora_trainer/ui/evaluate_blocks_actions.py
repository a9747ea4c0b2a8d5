"""What happens on: analysing the blocks of a file, looking for the smallest set, and taking that along."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_lora_trainer.app import block_jobs, block_sets, runs
from lib_lora_trainer.app.block_jobs import Analysed, BlocksRequest, Draft
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError, TrainerError
from lib_lora_trainer.base.events import Finished
from lib_lora_trainer.captions.tags import split
from lib_lora_trainer.config.paths import put
from lib_lora_trainer.ui import evaluate_asking, findings, whole_actions
from lib_lora_trainer.ui import evaluate_blocks_options as options
from lib_lora_trainer.ui import evaluate_blocks_result as results
from lib_lora_trainer.ui.evaluate_grid_work import studio_of
from lib_lora_trainer.ui.evaluate_pick_options import TAGGER
from lib_lora_trainer.ui.evaluate_work import Evaluator, Made, Maker
from lib_lora_trainer.ui.page import QUIET, WORKING, Page, Updates
from lib_lora_trainer.ui.session import Session, project_of
from lib_lora_trainer.workshop import presets

if TYPE_CHECKING:
    from lib_lora_trainer.ui.evaluate_blocks import BlocksPanel

TO_TXT2IMG = "(text) => { loraTrainer.toTxt2img(text); }"
_FIRST = len(options.FIRST)


@dataclass(frozen=True)
class Shown:
    """Whose result is to be shown when work has ended."""

    session: Session
    run: str
    file: str


def chosen(evaluator: Evaluator, panel: BlocksPanel, session: Session, run: str) -> Updates:
    """Return what the panel shows of a run; a subset of `panel.shown`. run: "" for none."""
    files = [Path(path).stem for path in evaluator.files(session, run)] if run else []
    if not files:
        empty = results.shown(evaluator.place, panel, session, "", None)
        return {**empty, panel.drafted: "", panel.file: gr.update(choices=[], value=None), panel.count: ""}
    project = project_of(evaluator.place.projects, session)
    file = results.last_looked_at(project, run, files)
    config = runs.configuration(project, run)
    return {
        **results.shown(evaluator.place, panel, session, run, file),
        panel.drafted: "",
        panel.file: gr.update(choices=files, value=file),
        panel.clip_skip: config.training.clip_skip,
        **_entered(evaluator, panel, session, run, file),
    }


def wire(evaluator: Evaluator, page: Page, panel: BlocksPanel) -> None:
    """Connect the panel's events."""
    tab, wish = page.evaluate, [page.session, page.evaluate.run, *panel.entered]

    def shown(made: Shown) -> Updates:
        return results.shown(evaluator.place, panel, made.session, made.run, made.file)

    for button, work, title in (
        (panel.begin, block_jobs.analyse, "Blocks"), (panel.search, block_jobs.search, "Smallest set of blocks"),
    ):  # fmt: skip
        start = evaluator.starter(_working(evaluator, work), title, options.FIELDS, shown)
        button.click(start, wish, evaluator.outputs | panel.results, **WORKING)
    drafted = evaluator.starter(
        _drafting(evaluator), "Look at the dataset", options.FIELDS, lambda made: {panel.drafted: made}
    )
    panel.preview.click(drafted, wish, evaluator.outputs | {panel.drafted}, **WORKING)

    def look(session: Session, run: str | None, file: str | None) -> Updates:
        if not session.project or not run:
            return {}
        known = _entered(evaluator, panel, session, run, file or "")
        return {**results.shown(evaluator.place, panel, session, run, file), panel.drafted: "", **known}

    said = {tab.said, tab.beside}
    panel.file.input(evaluator.guarded(look), [page.session, tab.run, panel.file], {*panel.shown, *said}, **QUIET)
    counted = {"fn": evaluator.guarded(_counter(evaluator, panel)), "outputs": {panel.count, *said}}
    inputs = [page.session, tab.run, panel.file, *panel.first, *panel.more]
    for event in (panel.file.change, *(each.change for each in panel.first), panel.more[0].blur):
        event(inputs=inputs, **counted, **QUIET)
    evaluate_asking.wire(evaluator, page, panel.tagger)
    _wire_offers(evaluator, page, panel)


def _wire_offers(evaluator: Evaluator, page: Page, panel: BlocksPanel) -> None:
    place, tab, bake = evaluator.place, page.evaluate, page.evaluate.bake
    said, asked = {tab.said, tab.beside}, [page.session, tab.run, panel.file]

    def test(session: Session, run: str | None, file: str | None, weight: Any) -> Updates:
        preset = results.smallest(place, session, run, file)[0].preset
        path = _existing(evaluator, session, run, file)
        place.host.announce(str(path))
        triggers = runs.configuration(project_of(place.projects, session), run or "").triggers
        tag = f"<lora:{path.stem}:{_weight(weight)}:lbw={preset}>"
        return {tab.to_txt2img: json.dumps({"prompt": f"{tag} {', '.join(triggers)}".strip()})}

    def use(session: Session, run: str | None, file: str | None) -> Updates:
        preset = results.smallest(place, session, run, file)[0].preset
        path = _existing(evaluator, session, run, file)
        return {bake.file: path.stem, bake.own: "", bake.blocks: preset, bake.name: f"{path.stem}-smallest"}

    def train(session: Session, run: str | None, file: str | None) -> Updates:
        text = results.smallest(place, session, run, file)[0].training
        config = put(session.config, "adapter.blocks", text)
        return whole_actions.put(place, page, session, config, "Blocks for the next training:")

    def keep(session: Session, run: str | None, file: str | None, name: str | None) -> Updates:
        place.gate()
        (found, family), called = results.smallest(place, session, run, file), (name or "").strip()
        listed = place.own_presets
        vector = presets.choose(found.preset, family)
        presets.save(listed, presets.with_preset(presets.read(listed), called, vector))
        text = f"{called} is in {listed} now; lbw={called} in a prompt means it, too."
        return {tab.said: findings.notice([text])}

    weight = panel.more[[field.path.rpartition(".")[2] for field in options.MORE].index("weight")]
    tested = panel.test.click(evaluator.guarded(test), [*asked, weight], {tab.to_txt2img, *said}, **QUIET)
    tested.then(None, [tab.to_txt2img], None, _js=TO_TXT2IMG, api_name=False)
    taken = panel.bake.click(
        evaluator.guarded(use), asked, {bake.file, bake.own, bake.blocks, bake.name, *said}, **QUIET
    )
    taken.then(None, None, None, _js="() => { loraTrainer.evaluatePanel('bake'); }", api_name=False)
    panel.train.click(evaluator.guarded(train), asked, page.everything | said, **QUIET)
    panel.keep.click(evaluator.guarded(keep), [*asked, panel.name], said, **QUIET)


def request_of(evaluator: Evaluator, session: Session, entered: Sequence[Any]) -> BlocksRequest:
    """Return what was entered: the run, and the panel's `entered`. Raises ConfigError naming what is missing."""
    run, file, name, own, sampler, traits, before, *numbers = entered
    project = project_of(evaluator.place.projects, session)
    known = {Path(path).stem: Path(path) for path in evaluator.files(session, run)}
    if file not in known:
        raise ConfigError("file: none is chosen. Choose one of the run's files.")
    folder = (before or "").strip()
    return BlocksRequest(
        known[file],
        runs.configuration(project, run),
        evaluate_asking.chosen_tagger(evaluator, name, own),
        results.folder_of(project, run, file),
        split(traits or ""),
        Path(folder).expanduser() if folder else None,
        options.chosen(sampler, numbers[:_FIRST], numbers[_FIRST:]),
    )


def _working(evaluator: Evaluator, work: Callable[..., Iterator[Any]]) -> Maker:
    """Return the work that analyses, or searches as well, or goes on with it."""

    def make(session: Session, entered: Sequence[Any], control: Control) -> Iterator[Any]:
        asked = request_of(evaluator, session, entered)
        results.remember(asked.folder, entered[2:])
        ready = Made(Shown(session, entered[0], asked.file.stem))
        for event in evaluate_asking.timed(work(studio_of(evaluator.place), asked, control)):
            if isinstance(event, Analysed):
                yield ready
            elif isinstance(event, Finished):
                yield ready  # a search that was stopped has an analysis
                yield event
            else:
                yield event

    return make


def _drafting(evaluator: Evaluator) -> Maker:
    """Return the work that looks at the dataset and says what would be made."""

    def make(session: Session, entered: Sequence[Any], control: Control) -> Iterator[Any]:
        asked = request_of(evaluator, session, entered)
        for event in block_jobs.draft(studio_of(evaluator.place), asked, control):
            yield Made(_draft_html(event)) if isinstance(event, Draft) else event

    return make


def _draft_html(made: Draft) -> str:
    prompts = dict.fromkeys(shot.prompt for shot in made.shots.all)
    lines = "".join(f"<li>{escape(line)}</li>" for line in (*made.lines(), f"prompts: {' | '.join(prompts)}"))
    return f'<div class="lora-trainer-notice"><ul>{lines}</ul></div>{findings.listed(made.surveyed.problems)}'


def _counter(evaluator: Evaluator, panel: BlocksPanel) -> Callable[..., Updates]:
    def count(session: Session, run: str | None, file: str | None, *numbers: Any) -> Updates:
        if not session.project or not run or not file:
            return {panel.count: ""}
        try:
            asked = options.chosen("", numbers[:_FIRST], numbers[_FIRST:])
            path = _existing(evaluator, session, run, file)
            inside = block_sets.of_file(path, studio_of(evaluator.place).family())
        except TrainerError:  # told when the work is to begin
            return {panel.count: ""}
        triggers = runs.configuration(project_of(evaluator.place.projects, session), run).triggers
        number = options.images(asked, len(inside.names), len(triggers))
        return {
            panel.count: f"<p><b>Up to {number} images</b> <small>{len(inside.names)} blocks, each off and alone. Images that "
            "were made before are not made again. The search makes some more.</small></p>"
        }

    return count


def _existing(evaluator: Evaluator, session: Session, run: str | None, file: str | None) -> Path:
    for path in map(Path, evaluator.files(session, run)):
        if path.stem == file:
            return path
    raise ConfigError(f"file: {file!r} does not exist any more. Choose another one.")


def _weight(value: Any) -> str:
    return f"{float(value):g}" if isinstance(value, (int, float)) else "1"


def _entered(evaluator: Evaluator, panel: BlocksPanel, session: Session, run: str, file: str | None) -> Updates:
    """Return what was entered for a file when work about it began, and what getting the tagger takes."""
    project = project_of(evaluator.place.projects, session)
    found = results.remembered(results.folder_of(project, run, file), len(panel.entered) - 1) if file else None
    if found is None:
        return evaluate_asking.known(evaluator, panel.tagger, TAGGER, "")
    known = dict(zip(panel.entered[1:], found, strict=True))
    return {**known, **evaluate_asking.known(evaluator, panel.tagger, *found[:2])}
