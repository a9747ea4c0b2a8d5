"""The command `pick`: try every saved epoch at several weights, and say which to use and what to change next."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.cli import looking, speech
from lib_lora_trainer.cli.dataset_speech import heard
from lib_lora_trainer.cli.speech import DONE, STOPPED
from lib_lora_trainer.cli.training import host_of, interruptible

if TYPE_CHECKING:
    from lib_lora_trainer.app.pick_jobs import Draft, Picked, PickRequest

TRYING = {
    "images": (int, "images of each question and cell"), "seed": (int, "the first seed"),
    "steps": (int, "sampling steps"), "guidance": (float, "CFG scale"),
    "side": (int, "width and height in pixels; as trained if absent"), "sampler": (str, "the host's name of it"),
    "negative": (str, "negative prompt"), "clip_skip": (int, "as in training, which is the default"),
}  # fmt: skip
"""The options of a trial, as `evaluate.pick_options.PickOptions` has them; that file needs torch."""


def add(commands: Any) -> None:
    """Add the command `pick` to a parser's commands."""
    text = "try every saved epoch at several weights, and say which to use, why, and what to change next"
    command: argparse.ArgumentParser = commands.add_parser("pick", help=text, description=text)
    command.add_argument("files", nargs="+", type=Path, metavar="RUNDIR|FILE", help="a run's folder, or its adapters")
    looking.add_options(command)
    command.add_argument(
        "--trigger", action="append", default=[], metavar="WORD", help="what calls the adapter; else the config's"
    )
    command.add_argument(
        "--trait",
        action="append",
        default=[],
        metavar="TAG",
        help="what the trigger has to bring; else from the captions",
    )
    command.add_argument("--weights", metavar="W,W,…", help="such as 0.4,0.6,0.8,1,1.2, which is the default")
    for name, (kind, about) in TRYING.items():
        command.add_argument(f"--{name.replace('_', '-')}", type=kind, default=None, metavar=name.upper(), help=about)
    command.add_argument("--dry-run", action="store_true", help="say what would be tried, and make no image")
    command.add_argument("--json", action="store_true", help="one JSON object a line")
    command.set_defaults(run=pick)


def pick(options: argparse.Namespace) -> int:
    """Try, and tell the verdict; a trial that was stopped goes on where it was."""
    from lib_lora_trainer.app import pick_jobs

    request, host = _request(options), host_of(options)
    with interruptible() as control:
        if options.dry_run:
            made = heard(pick_jobs.draft(host, request, control), options)
            return STOPPED if made is None else _tell_draft(made, options)
        found = heard(looking.without_images(pick_jobs.pick(host, request, control), options), options)
        return STOPPED if found is None else _tell(found, options)


def _request(options: argparse.Namespace) -> PickRequest:
    from lib_lora_trainer.app import pick_dataset
    from lib_lora_trainer.app.pick_jobs import PickRequest
    from lib_lora_trainer.evaluate.pick_options import PickOptions

    files = pick_dataset.files_of(options.files)
    config = pick_dataset.config_of(files, options.config)
    if options.trigger:
        config = dataclasses.replace(config, triggers=tuple(options.trigger))
    given = {name: getattr(options, name) for name in TRYING if getattr(options, name) is not None}
    trying = dataclasses.replace(PickOptions(clip_skip=config.training.clip_skip), **given)
    if options.weights is not None:
        trying = dataclasses.replace(trying, weights=_weights(options.weights))
    tagger = looking.tagger(options.tagger, options.models)
    return PickRequest(files, config, tagger, options.out, tuple(options.trait), options.before, trying)


def _weights(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ConfigError(f"--weights {text}: is no list of numbers. Write it as 0.4,0.8,1.") from error


def _tell_draft(made: Draft, options: argparse.Namespace) -> int:
    if options.json:
        about = {"event": "proposal", "lines": made.lines(), "images": len(made.cells) * len(made.shots)}
        speech.say(json.dumps({**about, "missing": made.missing}, ensure_ascii=False))
    else:
        speech.say("\n".join((*made.lines(), *(f"{each.severity}: {each}" for each in made.surveyed.problems))))
    return DONE


def _tell(found: Picked, options: argparse.Namespace) -> int:
    if options.json:
        content = json.loads(found.report.read_text(encoding="utf-8"))
        speech.say(json.dumps({"event": "picked", **content}, ensure_ascii=False))
        return DONE
    verdict = found.verdict
    choice = verdict.choice
    if choice is not None:
        speech.say(f"{verdict.length}: use {choice.cell.label} at weight {choice.cell.weight:g}")
    for text in verdict.why:
        speech.say(text)
    for finding in verdict.findings:
        speech.say(f"{finding.severity}: {finding.text} {finding.fix}".rstrip())
    return DONE
