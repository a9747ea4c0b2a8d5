"""The stored result of a trial: in the run's folder, so that every page finds it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_lora_trainer.app import runs
from lib_lora_trainer.app.projects import Project
from lib_lora_trainer.base.errors import ConfigError, DataError
from lib_lora_trainer.evaluate import pick_report
from lib_lora_trainer.ui import evaluate_pick_options as options
from lib_lora_trainer.ui import evaluate_pick_show, findings
from lib_lora_trainer.ui.pictures import address
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.session import Session, project_of

if TYPE_CHECKING:
    from lib_lora_trainer.ui.evaluate_pick import PickPanel

FOLDER, REPORT, PAGE = "pick", "report.json", "report.html"


@dataclass(frozen=True)
class Recommended:
    """The file and the weight that a trial recommends."""

    file: str
    weight: float


@dataclass(frozen=True)
class Tried:
    """What a trial was asked for. files: names; entered: weights, images, sampler and the others as the form has them."""

    files: frozenset[str]
    entered: tuple[Any, ...]


def folder_of(project: Project, run: str) -> Path:
    """Return where the trial of a run is kept. Raises ConfigError when the project has no such run."""
    return runs.folder_of(project, run) / FOLDER


def stored(folder: Path) -> dict[str, Any] | None:
    """Return the report in a trial's folder; None when there is none. Raises DataError for one that cannot be read."""
    path = folder / REPORT
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        version = found["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}). Try the files again; images that are there stay."
        ) from error
    if version != pick_report.VERSION:
        raise DataError(
            f"{path}: was written by another version of this program ({version}, here {pick_report.VERSION}). Try the "
            "files again; images that are there stay."
        )
    report: dict[str, Any] = found
    return report


def tried(project: Project, run: str) -> Tried | None:
    """Return what the latest trial of a run was asked for; None without one, and for one that cannot be read."""
    try:
        report = stored(folder_of(project, run))
    except DataError:  # which the result's place tells
        return None
    if report is None:
        return None
    known = report["options"]
    weights = ", ".join(f"{each:g}" for each in known["weights"])
    more = (known[field.path.rpartition(".")[2]] for field in options.MORE)
    files = frozenset(cell["file"] for cell in report["cells"])
    return Tried(files, (weights, known["images"], known["sampler"], *more))


def recommended(place: Place, session: Session, run: str) -> Recommended:
    """Return what the trial of a run recommends. Raises ConfigError when there is nothing to recommend."""
    report = _report(place, session, run)
    best = report["recommended"] if report else None
    if best is None:
        raise ConfigError("result: recommends no file. Try files and weights first.")
    return Recommended(best["file"], best["weight"])


def epochs(place: Place, session: Session, run: str) -> tuple[int, bool]:
    """Return how many epochs the trial of a run wants next time, and whether these are more than the run had.

    Raises ConfigError when it wants no other number.
    """
    report = _report(place, session, run)
    wanted = report.get("epochs") if report else None
    if not report or not wanted:
        raise ConfigError("result: proposes no other number of epochs. Try files and weights first.")
    return int(wanted), wanted > max(cell["epoch"] for cell in report["cells"])


def _report(place: Place, session: Session, run: str) -> dict[str, Any] | None:
    return stored(folder_of(project_of(place.projects, session), run)) if run else None


def nothing() -> str:
    """Return what the result's place shows before there is one."""
    return findings.empty(
        "Which epoch, which weight?",
        "Choose files and weights, and press “Try files and weights”. It can be stopped at any time and goes on where it "
        "was.",
    )


def shown(place: Place, panel: PickPanel, session: Session, run: str) -> dict[Any, Any]:
    """Return the updates that show the result of a run's trial, if there is one; exactly `panel.results`."""
    hidden = gr.update(visible=False)
    empty = {
        panel.drafted: "", panel.verdict: nothing(), panel.test: hidden, panel.use: hidden, panel.train: hidden,
        panel.details: "", panel.cell: "", panel.images_of: "",
    }  # fmt: skip
    if not run:
        return empty
    project = project_of(place.projects, session)
    folder = folder_of(project, run)
    try:
        report = stored(folder)
    except DataError as error:
        return {**empty, panel.verdict: findings.notice([str(error)], "error")}
    if report is None:
        return empty
    best = report["recommended"] is not None
    return {
        panel.verdict: evaluate_pick_show.verdict_html(report, _page_of(folder, project)),
        panel.test: gr.update(visible=best and place.txt2img),
        panel.use: gr.update(visible=best),
        panel.train: gr.update(visible=bool(report.get("epochs"))),
        panel.details: evaluate_pick_show.details_html(report, folder, project),
        panel.cell: "",
        panel.images_of: evaluate_pick_show.images_html(report, _number(report), folder, project),
    }


def cell_html(place: Place, session: Session, run: str, cell: str) -> str:
    """Return the images of a cell of a run's trial by its number, 0 for the base model's; "" for the recommended one.

    Raises ConfigError for a cell that the trial has not.
    """
    if not session.project or not run:
        return ""
    project = project_of(place.projects, session)
    folder = folder_of(project, run)
    report = stored(folder)
    if report is None:
        return ""
    number = int(cell) if cell.isdecimal() else _number(report)
    if number > len(report["cells"]):
        raise ConfigError(f"cell: there is none with the number {number}. Choose one in the table.")
    return evaluate_pick_show.images_html(report, number, folder, project)


def _number(report: Mapping[str, Any]) -> int:
    """Return the number of the recommended cell; the first one where none is."""
    best = report["recommended"]
    places = [
        number
        for number, cell in enumerate(report["cells"], 1)
        if best and (cell["file"], cell["weight"]) == (best["file"], best["weight"])
    ]
    return places[0] if places else 1


def _page_of(folder: Path, project: Project) -> str:
    """Return where the browser finds the report as a page of its own; "" where it cannot."""
    page = folder / PAGE
    found = address(page, project.folder) if page.is_file() else ""
    return found if found.startswith("file=") else ""  # else gradio sends nothing from there
