"""The commands about triggers: prune captions, insert triggers, check them against each other, probe a word."""

from __future__ import annotations

import argparse
import dataclasses
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lib_lora_trainer.base.errors import ConfigError, Problem
from lib_lora_trainer.base.events import Note
from lib_lora_trainer.captions import outfit
from lib_lora_trainer.captions.prune_values import KINDS, RIGIDITIES, Kind, Rigidity, TagProposal, Trained, Trigger
from lib_lora_trainer.captions.triggers import advice
from lib_lora_trainer.cli import looking, speech
from lib_lora_trainer.cli.arguments import folder_command
from lib_lora_trainer.cli.dataset_speech import apply, ended, follow, heard
from lib_lora_trainer.cli.speech import DONE, MISTAKES, STOPPED
from lib_lora_trainer.cli.training import host_of, interruptible

if TYPE_CHECKING:
    from lib_lora_trainer.app.dataset_tools import Request
    from lib_lora_trainer.app.probe_jobs import Probed
    from lib_lora_trainer.captions.venn import Venn


def add(parts: Any) -> None:
    """Add `prune`, `triggers`, `check` and `probe` to the commands about captions."""
    prune = folder_command(parts, "prune", _prune, "let triggers swallow the tags that they stand for")
    prune.add_argument(
        "--trigger", action="append", default=[], metavar="WORD=KIND",
        help=f"a trigger and what it stands for: {', '.join(KINDS)}; repeated for several",
    )  # fmt: skip
    prune.add_argument("--rigidity", choices=RIGIDITIES, help="static if absent; multi-trigger with several triggers")
    prune.add_argument(
        "--choose", action="append", default=[], metavar="NAME", help="a group or tag to prune in any case"
    )
    prune.add_argument(
        "--keep", action="append", default=[], metavar="NAME", help="a group or tag that stays in any case"
    )
    prune.add_argument("--on", action="append", default=[], metavar="TAG", help="switch a proposal on")
    prune.add_argument("--off", action="append", default=[], metavar="TAG", help="switch a proposal off")
    prune.add_argument("--no-scores", action="store_true", help="do not look at what taggers said")
    insert = folder_command(parts, "triggers", _triggers, "put triggers first in every caption")
    insert.add_argument("--trigger", action="append", default=[], metavar="WORD", help="repeated for several, in order")
    insert.add_argument(
        "--outfit",
        action="store_true",
        help="name each folder's outfit by its clothes, and add that as its last trigger",
    )
    insert.add_argument("--most", type=int, default=outfit.MOST, metavar="N", help="garments in an outfit's name")
    for command in (prune, insert):
        command.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
        command.add_argument(
            "--concept", action="append", default=[], metavar="DIR", help="only this folder, from the dataset's own on"
        )
    check = folder_command(parts, "check", _check, "say which triggers cannot be told apart")
    check.add_argument("--trigger", action="append", default=[], metavar="WORD", help="else the config's")
    check.add_argument("--misc", type=Path, metavar="DIR", help="say what the pictures of another folder would settle")
    _add_probe(parts)


PROBING = {
    "pictures": (int, "pictures of each word, one a seed"), "random_words": (int, "words without meaning beside it"),
    "seed": (int, "the first seed"), "steps": (int, "sampling steps"), "guidance": (float, "CFG scale"),
    "side": (int, "width and height in pixels; the family's own if absent"), "sampler": (str, "the host's name of it"),
    "clip_skip": (int, "as in training"),
}  # fmt: skip
"""The options of the probe, as `evaluate.probe.ProbeOptions` has them; that file needs torch, which `--help` does not."""


def _add_probe(parts: Any) -> None:
    text = "generate bare words, and say whether the base model gives them a meaning"
    probe: argparse.ArgumentParser = parts.add_parser("probe", help=text, description=text)
    probe.add_argument("words", nargs="+", metavar="WORD", help="one that is to be a trigger")
    probe.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="a .safetensors checkpoint")
    probe.add_argument("--device", default="auto", help="cuda, cpu, mps or auto")
    probe.add_argument(
        "--model", default="wd-swinv2-tagger-v3", metavar="NAME", help="the tagger that looks: a name, or its folder"
    )
    probe.add_argument("--models", type=Path, action="append", default=[], metavar="DIR", help="a folder with taggers")
    probe.add_argument("--want", action="append", default=[], metavar="TAG", help="what the word is to stand for")
    probe.add_argument("--out", type=Path, default=Path("probe"), metavar="DIR", help="where the pictures go")
    for name, (kind, about) in PROBING.items():
        probe.add_argument(f"--{name.replace('_', '-')}", type=kind, default=None, metavar=name.upper(), help=about)
    probe.add_argument("--dry-run", action="store_true", help="say what would be generated, and do nothing")
    probe.add_argument("--json", action="store_true", help="one JSON object a line")
    probe.set_defaults(run=_probe)


def _request(options: argparse.Namespace) -> tuple[Request, tuple[str, ...]]:
    """Return the source that FOLDER is, and the triggers of its config."""
    from lib_lora_trainer.app.dataset_tools import Request
    from lib_lora_trainer.config import run
    from lib_lora_trainer.config.data import DataConfig, SourceConfig
    from lib_lora_trainer.dataset.entries import absolute, real

    folder = absolute(str(options.folder))
    if options.config is None:
        return Request(DataConfig(sources=(SourceConfig(str(folder)),))), ()
    config = run.read(options.config)
    for number, source in enumerate(config.data.sources):
        if real(absolute(source.path)) == real(folder):
            return Request(config.data, index=number), config.triggers
    known = ", ".join(source.path for source in config.data.sources) or "none"
    raise ConfigError(f"{folder}: is no source of {options.config}. Its sources: {known}.")


def trained_of(options: argparse.Namespace) -> Trained:
    """Return what `--trigger`, `--rigidity`, `--choose` and `--keep` say. Raises ConfigError for a kind that is none."""
    found: list[Trigger] = []
    for text in options.trigger:
        word, _, kind = text.rpartition("=")
        if not word or kind not in KINDS:
            raise ConfigError(f"--trigger {text}: is not WORD=KIND. Kinds: {', '.join(KINDS)}.")
        # What is chosen besides goes to the first trigger; the others have their kinds.
        found.append(Trigger(word, cast("Kind", kind), () if found else tuple(options.choose)))
    usual: Rigidity = "multi-trigger" if len(found) > 1 else "static"
    return Trained(tuple(found), options.rigidity or usual, tuple(options.keep))


def _prune(options: argparse.Namespace) -> int:
    from lib_lora_trainer.app import prune_jobs
    from lib_lora_trainer.captions.prune import switched

    request, _ = _request(options)
    trained = trained_of(options)
    wish = prune_jobs.PruneRequest(request, dict.fromkeys(options.concept or ("*",), trained), not options.no_scores)
    switches = {**dict.fromkeys(options.on, True), **dict.fromkeys(options.off, False)}
    with interruptible() as control:
        found = heard(prune_jobs.propose(wish, control), options)
        if found is None:
            return STOPPED
        made = prune_jobs.proposed(found.captions, [switched(plan, switches) for plan in found.plans])
        for proposal in (proposal for plan in made.plans for proposal in plan.proposals):
            _tell_tag(proposal, options)
        settings = made.values.settings()
        lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
        ended(
            {"settings": dict(settings), "venn": facts(made.venn)},
            lines,
            (*made.problems, *made.venn.findings),
            options,
        )
        return apply(prune_jobs.draft_prune(made), control, options)


def _tell_tag(proposal: TagProposal, options: argparse.Namespace) -> None:
    if options.json:
        speech.say(json.dumps({"event": "tag", **asdict(proposal)}, ensure_ascii=False))
        return
    to = f" → {proposal.trigger}" if proposal.trigger else ""
    mark = "x" if proposal.on else " "
    speech.say(f"[{mark}] {proposal.folder}: {proposal.tag}{to}: {proposal.reason}; e.g. {proposal.example}")


def _triggers(options: argparse.Namespace) -> int:
    from lib_lora_trainer.app import prune_jobs

    request, known = _request(options)
    captions = prune_jobs.read(request)
    chosen = options.concept or list(captions.folders)
    unknown = [name for name in chosen if name not in captions.folders]
    if unknown:
        raise ConfigError(f"--concept {unknown[0]}: has no pictures. Folders: {', '.join(captions.folders)}.")
    given = tuple(options.trigger) or (() if options.outfit else known)
    words = {}
    for name in chosen:
        named = outfit.outfit_trigger(prune_jobs.counts(captions, name), options.most) if options.outfit else ""
        words[name] = (*given, named) if named else given
    every = dict.fromkeys(word for found in words.values() for word in found)
    if not every:
        raise ConfigError("--trigger: is missing. Give a word, or --outfit.")
    tags = {tag for image in captions.everything for tag in image.tags}
    problems = [problem for word in every for problem in advice(word, tags)]
    lines = [f"{name}: {', '.join(found) or 'no clothes are tagged, so no trigger'}" for name, found in words.items()]
    told = [problem for problem in problems if problem.severity != "error"]  # errors are raised with the draft
    ended({"triggers": words}, lines, told, options)
    with interruptible() as control:
        return apply(prune_jobs.draft_triggers(captions, words), control, options)


def _check(options: argparse.Namespace) -> int:
    from lib_lora_trainer.app import prune_jobs
    from lib_lora_trainer.app.dataset_tools import Request
    from lib_lora_trainer.config.data import DataConfig, SourceConfig

    request, known = _request(options)
    words = tuple(options.trigger) or known
    if not words:
        raise ConfigError("--trigger: is missing. Give the triggers to check, or a --config that has them.")
    captions = prune_jobs.read(request)
    found = prune_jobs.check(captions, words)
    width = max(len(word) for word in found.triggers)
    lines = [
        f"{word:<{width}}  {' '.join(f'{count:5}' for count in row)}"
        for word, row in zip(found.triggers, found.matrix, strict=True)
    ]
    settled: tuple[Problem, ...] = ()
    if options.misc is not None:
        misc = prune_jobs.read(Request(DataConfig(sources=(SourceConfig(str(options.misc)),))))
        settled = prune_jobs.settled_by(misc, captions, words)
        lines += [f"{options.misc} would settle: {problem.where} {problem.message}" for problem in settled]
    content = {**facts(found), "settled": [asdict(problem) for problem in settled]}
    return ended(content, lines, found.findings, options)


def facts(found: Venn) -> dict[str, Any]:
    """Return a check in JSON's types, without its findings."""
    return {name: value for name, value in asdict(found).items() if name != "findings"}


def _probe(options: argparse.Namespace) -> int:
    from lib_lora_trainer.app.probe_jobs import ProbeRequest, probe_words
    from lib_lora_trainer.evaluate.probe import ProbeOptions

    given = {name: getattr(options, name) for name in PROBING if getattr(options, name) is not None}
    wish = dataclasses.replace(ProbeOptions(), **given)
    prompts = 1 + wish.random_words + len(options.words)
    if options.dry_run:
        text = f"{prompts * wish.pictures} pictures would be made, {wish.pictures} of each of {prompts} prompts."
        return follow([Note("note", f"{text} Nothing was made.")], options)
    tagger = looking.tagger(options.model, options.models)
    request = ProbeRequest(tuple(options.words), tagger, options.out, wish, tuple(options.want))
    with interruptible() as control:
        found = heard(looking.without_images(probe_words(host_of(options), request, control), options), options)
    return STOPPED if found is None else _tell_probe(found, options)


def _tell_probe(found: Probed, options: argparse.Namespace) -> int:
    if options.json:
        speech.say(json.dumps({"event": "probed", **asdict(found)}, ensure_ascii=False))
    else:
        for reading in found.readings:
            speech.say(
                f"{reading.verdict}: {reading.text} Consistency {reading.consistency:.2f} "
                f"(meaningless words {reading.usual_consistency:.2f}), drift {reading.drift:.1f} times theirs."
            )
        for pictures in found.pictures:
            speech.say(f"{pictures.word or '(nothing)'}: {', '.join(pictures.paths)}")
    contaminated = any(reading.verdict == "contaminated" for reading in found.readings)
    return MISTAKES if contaminated else DONE
