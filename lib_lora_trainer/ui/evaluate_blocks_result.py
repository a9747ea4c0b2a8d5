"""The stored result of an analysis of blocks: in the run's folder, so that every page finds it again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_lora_trainer.app import runs
from lib_lora_trainer.app.block_jobs import PAGE, SHEET
from lib_lora_trainer.app.projects import Project
from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.base.families import Family
from lib_lora_trainer.base.files import write_text
from lib_lora_trainer.evaluate import blocks_page, blocks_report
from lib_lora_trainer.evaluate.blocks_report import Chosen, Report
from lib_lora_trainer.evaluate.pick_store import writing
from lib_lora_trainer.ui import findings
from lib_lora_trainer.ui.pictures import address
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.session import Session, project_of

if TYPE_CHECKING:
    from lib_lora_trainer.ui.evaluate_blocks import BlocksPanel

FOLDER, ASKED = "blocks", "asked.json"


def folder_of(project: Project, run: str, file: str) -> Path:
    """Return where the analysis of a run's file is kept; file: its name. Raises ConfigError when the project has no such run."""
    return runs.folder_of(project, run) / FOLDER / file


def last_looked_at(project: Project, run: str, files: Sequence[str]) -> str | None:
    """Return the file that was analysed last, else the newest one; None where there is none."""
    done = [(name, folder_of(project, run, name) / blocks_report.FILE) for name in files]
    known = [(report.stat().st_mtime_ns, name) for name, report in done if report.is_file()]
    return max(known)[1] if known else (files[-1] if files else None)


def remember(folder: Path, entered: Sequence[Any]) -> None:
    """Keep what was entered for a file, so that work which was stopped can go on in another page. Raises DataError."""
    with writing(folder):
        write_text(folder / ASKED, json.dumps(list(entered), ensure_ascii=False))


def remembered(folder: Path, count: int) -> list[Any] | None:
    """Return what was entered for a file before, `count` values; None where that is not known."""
    try:
        found = json.loads((folder / ASKED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, list) and len(found) == count else None


def nothing() -> str:
    """Return what the result's place shows before there is one."""
    return findings.empty(
        "Which blocks matter?",
        "Press “Analyse blocks” for a ranking and a heat map, or “Find the smallest set” for that and fewer blocks that "
        "keep the traits. It can be stopped at any time and goes on where it was.",
    )


def shown(place: Place, panel: BlocksPanel, session: Session, run: str, file: str | None) -> dict[Any, Any]:
    """Return the updates that show the result for a run's file, if there is one; exactly `panel.results`."""
    empty = {
        panel.chosen: "", panel.offers: gr.update(visible=False), panel.preset: "", panel.training: "",
        panel.test: gr.update(visible=place.txt2img), panel.told: nothing(),
    }  # fmt: skip
    if not run or not file:
        return empty
    project = project_of(place.projects, session)
    folder = folder_of(project, run, file)
    report = blocks_report.read(folder)
    if report is None:
        return empty
    chosen = report.chosen
    return {
        **empty,
        panel.chosen: blocks_page.smallest(report),
        panel.offers: gr.update(visible=chosen is not None),
        panel.preset: chosen.preset if chosen else "",
        panel.training: chosen.training if chosen else "",
        panel.told: _told(report, folder, project),
    }


def smallest(place: Place, session: Session, run: str | None, file: str | None) -> tuple[Chosen, Family]:
    """Return the smallest set that was found for a run's file, and the file's family. Raises ConfigError without one."""
    report = None
    if run and file:
        report = blocks_report.read(folder_of(project_of(place.projects, session), run, file))
    if report is None or report.chosen is None:
        raise ConfigError("result: has no smallest set of blocks. Press “Find the smallest set” first.")
    return report.chosen, report.family


def _told(report: Report, folder: Path, project: Project) -> str:
    return (
        f"{blocks_page.about(report)}<h3>What each block does</h3>{blocks_page.ranking(report)}"
        f"<h3>By place in the model</h3>{blocks_page.heat_map(report)}{_pictures(folder, project)}"
    )


def _pictures(folder: Path, project: Project) -> str:
    sheet, page = folder / SHEET, folder / PAGE
    if not sheet.is_file():
        return ""
    found = address(page, project.folder) if page.is_file() else ""
    link = (
        f' <a href="{found}" target="_blank" rel="noopener">Open as a page of its own</a>'
        if found[:5] == "file="
        else ""
    )
    return (
        "<details><summary>Images of every block</summary>"
        f'<img class="lora-trainer-blocks-sheet" loading="lazy" src="{address(sheet, project.folder)}" '
        f'alt="A row for each block, off and alone"></details><p>{link}</p>'
    )
