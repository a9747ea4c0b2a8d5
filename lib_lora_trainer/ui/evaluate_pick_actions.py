"""What happens on: trying files and weights, looking at one cell of the result, and taking the recommended file along."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_lora_trainer.app import pick_jobs, runs
from lib_lora_trainer.app.pick_jobs import Draft, Picked, PickRequest
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.captions.tags import split
from lib_lora_trainer.config.paths import put
from lib_lora_trainer.ui import evaluate_asking, evaluate_pick_result, evaluate_txt2img, findings, whole_actions
from lib_lora_trainer.ui import evaluate_pick_options as options
from lib_lora_trainer.ui.evaluate_work import Evaluator, Made, Maker
from lib_lora_trainer.ui.page import QUIET, WORKING, Page, Updates
from lib_lora_trainer.ui.session import Session, project_of

if TYPE_CHECKING:
    from lib_lora_trainer.ui.evaluate_pick import PickPanel

TO_TXT2IMG = "(text) => { loraTrainer.toTxt2img(text); }"


@dataclass(frozen=True)
class Shown:
    """Whose result is to be shown when work has ended."""

    session: Session
    run: str


def wire(evaluator: Evaluator, page: Page, panel: PickPanel) -> None:
    """Connect the panel's events."""
    tab, wish = page.evaluate, [page.session, page.evaluate.run, *panel.entered]

    def shown(made: Shown) -> Updates:
        return evaluate_pick_result.shown(evaluator.place, panel, made.session, made.run)

    trying = evaluator.starter(_trying(evaluator), "Pick", options.FIELDS, shown)
    panel.begin.click(trying, wish, evaluator.outputs | panel.results, **WORKING)
    drafted = evaluator.starter(
        _drafting(evaluator), "Look at the dataset", options.FIELDS, lambda made: {panel.drafted: made}
    )
    panel.preview.click(drafted, wish, evaluator.outputs | {panel.drafted}, **WORKING)

    counted = {"fn": evaluator.guarded(_counter(evaluator, panel)), "outputs": {panel.count, tab.said, tab.beside}}
    inputs = [page.session, tab.run, panel.files, panel.weights, panel.images]
    for event in (panel.files.change, panel.weights.blur, panel.images.change):
        event(inputs=inputs, **counted, **QUIET)
    panel.cell.change(
        evaluator.guarded(_looker(evaluator, panel)), [page.session, tab.run, panel.cell],
        {panel.images_of, tab.said, tab.beside}, **QUIET,
    )  # fmt: skip
    evaluate_asking.wire(evaluator, page, panel.tagger)
    _wire_result(evaluator, page, panel)


def _wire_result(evaluator: Evaluator, page: Page, panel: PickPanel) -> None:
    tab, bake = page.evaluate, page.evaluate.bake

    def test(session: Session, run: str | None) -> Updates:
        best = evaluate_pick_result.recommended(evaluator.place, session, run or "")
        path = _path(evaluator, session, run, best.file)
        evaluator.place.host.announce(str(path))
        triggers = runs.configuration(project_of(evaluator.place.projects, session), run or "").triggers
        return {tab.to_txt2img: evaluate_txt2img.prompt_json(best.file, best.weight, triggers)}

    def use(session: Session, run: str | None) -> Updates:
        best = evaluate_pick_result.recommended(evaluator.place, session, run or "")
        path = _path(evaluator, session, run, best.file)
        return {bake.file: path.stem, bake.own: "", bake.rebase: best.weight, bake.name: f"{best.file}-baked"}

    def train(session: Session, run: str | None) -> Updates:
        epochs, longer = evaluate_pick_result.epochs(evaluator.place, session, run or "")
        config = put(session.config, "training.epochs", epochs)
        if longer:
            config = put(config, "training.max_steps", 0)  # which may be what ended it too early
        return whole_actions.put(evaluator.place, page, session, config, "Length of the next training:")

    outputs = {tab.to_txt2img, tab.said, tab.beside}
    tested = panel.test.click(evaluator.sending(test), [page.session, tab.run], outputs, **QUIET)
    tested.then(None, [tab.to_txt2img], None, _js=TO_TXT2IMG, api_name=False)
    taken = panel.use.click(
        evaluator.guarded(use), [page.session, tab.run],
        {bake.file, bake.own, bake.rebase, bake.name, tab.said, tab.beside}, **QUIET,
    )  # fmt: skip
    taken.then(None, None, None, _js="() => { loraTrainer.evaluatePanel('bake'); }", api_name=False)
    panel.train.click(
        evaluator.guarded(train), [page.session, tab.run], page.everything | {tab.said, tab.beside}, **QUIET
    )


def count_html(files: int, weights: Sequence[float], images: int, triggers: int) -> str:
    """Return how many images a trial means, before anything has been looked at."""
    cells = files * len(dict.fromkeys(weights)) + 1
    each = (max(1, triggers) + 2) * images
    return (
        f"<p><b>About {cells * each} images</b> <small>{files} × {len(dict.fromkeys(weights))} cells and the base model, "
        f"up to {each} images of each. Images that were made before are not made again.</small></p>"
    )


def _counter(evaluator: Evaluator, panel: PickPanel) -> Any:
    def count(session: Session, run: str | None, files: Sequence[str], weights: str, images: object) -> Updates:
        if not session.project or not run or not files:
            return {panel.count: ""}
        config = runs.configuration(project_of(evaluator.place.projects, session), run)
        number = int(images) if isinstance(images, (int, float)) else 0
        return {panel.count: count_html(len(files), options.numbers(weights), number, len(config.triggers))}

    return count


def _looker(evaluator: Evaluator, panel: PickPanel) -> Any:
    def look(session: Session, run: str | None, cell: str) -> Updates:
        evaluator.place.gate()
        return {panel.images_of: evaluate_pick_result.cell_html(evaluator.place, session, run or "", cell)}

    return look


def _trying(evaluator: Evaluator) -> Maker:
    """Return the work that makes images of every file at every weight, or those that are missing."""

    def make(session: Session, entered: Sequence[Any], control: Control) -> Iterator[Any]:
        asked = _request(evaluator, session, entered)
        for event in evaluate_asking.timed(pick_jobs.pick(evaluator.place.host, asked, control)):
            yield Made(Shown(session, entered[0])) if isinstance(event, Picked) else event

    return make


def _drafting(evaluator: Evaluator) -> Maker:
    """Return the work that looks at the dataset and says what would be tried."""

    def make(session: Session, entered: Sequence[Any], control: Control) -> Iterator[Any]:
        for event in pick_jobs.draft(evaluator.place.host, _request(evaluator, session, entered), control):
            yield Made(_draft_html(event)) if isinstance(event, Draft) else event

    return make


def _draft_html(made: Draft) -> str:
    lines = "".join(f"<li>{escape(line)}</li>" for line in made.lines())
    return f'<div class="lora-trainer-notice"><ul>{lines}</ul></div>{findings.listed(made.surveyed.problems)}'


def _request(evaluator: Evaluator, session: Session, entered: Sequence[Any]) -> PickRequest:
    run, files, weights, images, name, own, sampler, traits, before, *more = entered
    project = project_of(evaluator.place.projects, session)
    known = {Path(path).stem: Path(path) for path in evaluator.files(session, run)}
    chosen = tuple(known[stem] for stem in files or () if stem in known)
    if not chosen:
        raise ConfigError("files: none is chosen. Choose those of the run's files that are to be tried.")
    folder = (before or "").strip()
    return PickRequest(
        chosen,
        runs.configuration(project, run),
        evaluate_asking.chosen_tagger(evaluator, name, own),
        evaluate_pick_result.folder_of(project, run),
        split(traits or ""),
        Path(folder).expanduser() if folder else None,
        options.chosen(weights, images, sampler, more),
    )


def _path(evaluator: Evaluator, session: Session, run: str | None, stem: str) -> Path:
    """Return the file of a run by its name. Raises ConfigError when it is gone."""
    for path in map(Path, evaluator.files(session, run)):
        if path.stem == stem:
            return path
    raise ConfigError(f"file: {stem!r} does not exist any more. Try the files that are there.")
