"""A run as it is seen while it trains, and after: progress, figures, loss curve, messages."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from lib_lora_trainer.app import runs
from lib_lora_trainer.app.runs import RunState
from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.base.events import Event, Failed, Note, Phase, Progress, SampleMade, Saved
from lib_lora_trainer.plan.describe import duration
from lib_lora_trainer.ui import bind, curve, findings

STATES: dict[RunState, str] = {
    "running": "Training",
    "pausing": "Pausing …",
    "stopping": "Stopping …",
    "paused": "Paused",
    "done": "Done",
    "stopped": "Stopped",
    "failed": "Failed",
    "interrupted": "Interrupted",
}
_SAID: dict[RunState, str] = {
    "paused": "The model is free again. Resume continues at this very step.",
    "interrupted": "The program ended in the middle of this run. Resume continues from the last saved state.",
    "stopped": "What was learned until here is saved. Resume continues.",
}
ACTIVE: tuple[RunState, ...] = ("running", "pausing", "stopping")


def panel(name: str, state: RunState, known: Sequence[Event]) -> str:
    """Return the whole panel of a run as HTML, without its samples."""
    points = runs.curve(known)
    last = points[-1] if points else None
    saved = frozenset(event.step for event in known if isinstance(event, Saved) and event.kind == "adapter")
    said = f"<p>{_SAID[state]}</p>" if state in _SAID else ""
    return (
        f'<div class="lora-trainer-live" data-state="{state}"><header><h3>{escape(name)}</h3>{badge(state)}</header>'
        f"{progress(state, known)}{said}{_figures(last)}"
        f"{curve.drawn([curve.Line('loss, smoothed', points, saved)])}{_messages(known)}{_files(known)}"
        f"{_next(state, known)}</div>"
    )


def badge(state: RunState) -> str:
    """Return a run's state as a small label."""
    return f'<span class="lora-trainer-badge" data-state="{state}">{STATES[state]}</span>'


def progress(state: RunState, known: Sequence[Event]) -> str:
    """Return the bar with what is being done and how long it will still take."""
    last = next((event for event in reversed(known) if isinstance(event, Progress)), None)
    phase = _phase(known) if state in ACTIVE else None
    share = last.images_seen / max(last.total_images, 1) if last else 0.0
    words = []
    if last:
        words.append(f"epoch {last.epoch} of {last.epochs}")
        words.append(f"step {last.step} of {last.total_steps}")
        if state in ACTIVE and last.step < last.total_steps:
            words.append(f"{duration(last.eta_seconds)} left")
    elif state in ACTIVE and phase is None:
        words.append("preparing")
    if phase:
        words.append(f"{phase.name} {phase.done} of {phase.total}")
    percent = f"{share * 100:.1f}"
    return (
        f'<div class="lora-trainer-progress" role="progressbar" aria-valuenow="{percent}" aria-valuemin="0" '
        f'aria-valuemax="100"><div style="width:{percent}%"></div></div>'
        f'<div class="lora-trainer-words"><span>{escape(" · ".join(words))}</span><b>{share * 100:.0f} %</b></div>'
    )


def sample_events(known: Sequence[Event]) -> list[SampleMade]:
    """Return the sample images a run has made."""
    return [event for event in known if isinstance(event, SampleMade)]


def _phase(known: Sequence[Event]) -> Phase | None:
    for event in reversed(known):
        if isinstance(event, Phase):
            return event if event.done < event.total else None
        if isinstance(event, Progress):
            return None
    return None


def _figures(last: Progress | None) -> str:
    if last is None:
        return ""
    rates = " / ".join(_rate(rate) for rate in dict.fromkeys(last.learning_rates.values()))
    return findings.figures(
        (
            (f"{last.loss_average:.4f}", "loss, smoothed"),
            (rates or "–", "learning rate"),
            (f"{last.seconds_per_step:.2f} s", "per step"),
            (f"{last.images_seen}", f"of {last.total_images} images seen"),
        )
    )


def _said(note: Note) -> Problem:
    where, colon, text = note.text.partition(": ")
    if colon and bind.selector_of(where):  # a problem of the plan, written out: named like its field again
        return Problem(note.severity, where, text)
    return Problem(note.severity, "", note.text)


def _rate(rate: float) -> str:
    mantissa, _, exponent = f"{rate:.1e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}" if rate else "0"


def _messages(known: Sequence[Event]) -> str:
    problems = [_said(event) for event in known if isinstance(event, Note)]
    box = ""
    failed = next((event for event in reversed(known) if isinstance(event, Failed)), None)
    if failed is not None and known[-1] is failed:
        mistakes = tuple(
            Problem("error", p.get("where", ""), p.get("message", ""), p.get("fix", "")) for p in failed.problems
        )
        box = findings.listed(mistakes) or findings.notice([failed.error], "error")
        if failed.detail:
            box += f"<details><summary>Details for a report</summary><pre>{escape(failed.detail)}</pre></details>"
    unique = tuple(dict.fromkeys(problems))
    if not unique:
        return box
    open_now = " open" if any(problem.severity != "note" for problem in unique) else ""
    title = f"{len(unique)} message{'s' if len(unique) > 1 else ''}"
    return f"{box}<details{open_now}><summary>{title}</summary>{findings.listed(unique)}</details>"


def _next(state: RunState, known: Sequence[Event]) -> str:
    """Return the way to the Evaluate step, once a run has ended and has files; the page's script hears the button."""
    if state in ACTIVE or not runs.adapters_of(known):
        return ""
    return '<button type="button" class="lora-trainer-button" data-evaluate="">Evaluate this run</button>'


def _files(known: Sequence[Event]) -> str:
    paths = runs.adapters_of(known)
    if not paths:
        return ""
    rows = "".join(f'<li title="{escape(path)}">{escape(Path(path).name)}</li>' for path in reversed(paths))
    folder = escape(str(Path(paths[-1]).parent))
    count = f"{len(paths)} file{'s' if len(paths) > 1 else ''}"
    return f'<details class="lora-trainer-files"><summary>{count} in {folder}</summary><ul>{rows}</ul></details>'
