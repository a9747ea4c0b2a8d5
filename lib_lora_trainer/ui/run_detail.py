"""One run in detail, or two against each other: settings, curves, samples, files."""

from __future__ import annotations

from html import escape
from pathlib import Path

from lib_lora_trainer.app import projects, runs
from lib_lora_trainer.app.projects import Difference, Project
from lib_lora_trainer.app.queue import Runner
from lib_lora_trainer.base.errors import UserError
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.ui import curve, fields, findings, pictures
from lib_lora_trainer.ui.session import expanded


def html(runner: Runner, project: Project, first: str, second: str) -> str:
    """Return a run, or two: settings that differ, curves overlaid, samples and files side by side."""
    chosen = [run for run in dict.fromkeys((first, second)) if run]
    if not chosen:
        return ""
    known = {run: runner.events(project, run) for run in chosen}
    lines = [curve.Line(escape(run), runs.curve(known[run])) for run in chosen]
    text = f"<h4>Loss, smoothed</h4>{drawn}" if (drawn := curve.drawn(lines, band=len(lines) == 1)) else ""
    settings = _difference(project, chosen[0], chosen[1]) if len(chosen) == 2 else _settings(project, chosen[0])
    sides = ""
    for run in chosen:
        samples = pictures.samples(runs.samples_of(known[run]), project.folder) or "<p>no samples</p>"
        sides += f"<div><h4>{escape(run)}</h4>{_files(runs.adapters_of(known[run]))}{samples}</div>"
    return f'<div class="lora-trainer-compare">{settings}{text}<div class="lora-trainer-beside">{sides}</div></div>'


def _settings(project: Project, run: str) -> str:
    """Return a run's settings, as far as they are not what a new project has."""
    try:
        changes = projects.differences(RunConfig(), runs.configuration(project, run))
    except UserError as error:
        return findings.notice([str(error)], "error")
    rows = [(fields.label_of(c.path), fields.shown(c.second), fields.shown(c.first)) for c in _told(changes)]
    count = f"Settings of this run: {len(rows)} differ from the defaults"
    return (
        f"<details><summary>{escape(count)}</summary>{findings.table(('Setting', 'Value', 'Default'), rows)}</details>"
    )


def _difference(project: Project, first: str, second: str) -> str:
    try:
        differences = _told(runs.compare(project, first, second))
    except UserError as error:
        return findings.notice([str(error)], "error")
    if not differences:
        return "<h4>Settings</h4><p>Both runs have the same settings.</p>"
    rows = [(fields.label_of(d.path), fields.shown(d.first), fields.shown(d.second)) for d in differences]
    return f"<h4>Settings that differ</h4>{findings.table(('Setting', first, second), rows)}"


def _told(differences: tuple[Difference, ...]) -> list[Difference]:
    return [each for each in expanded(differences) if each.path != "version"]


def _files(paths: tuple[str, ...]) -> str:
    if not paths:
        return "<p>no files</p>"
    rows = "".join(
        f'<li title="{escape(path)}">{escape(Path(path).name)}{"" if Path(path).is_file() else " (moved away)"}</li>'
        for path in reversed(paths)
    )
    folder = escape(str(Path(paths[-1]).parent))
    count = f"{len(paths)} file{'s' if len(paths) > 1 else ''}"
    return f"<details open><summary>{count} in {folder}</summary><ul>{rows}</ul></details>"
