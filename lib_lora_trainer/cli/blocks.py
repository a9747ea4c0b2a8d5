"""The command `blocks`: which blocks of an adapter matter, and the smallest set that keeps what the trigger brings."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_lora_trainer.base.errors import ConfigError, UserError
from lib_lora_trainer.cli import looking, speech
from lib_lora_trainer.cli.dataset_speech import heard
from lib_lora_trainer.cli.speech import DONE, STOPPED
from lib_lora_trainer.cli.training import host_of, interruptible

if TYPE_CHECKING:
    from lib_lora_trainer.app.block_jobs import Analysed, BlocksRequest, Draft

TRYING = {
    "count": (int, "prompts of each trigger that are made from the captions"), "seeds": (int, "images of each prompt"),
    "keep": (float, "share of what the adapter adds to the recall that the smallest set keeps"),
    "weight": (float, "of the adapter"), "seed": (int, "the first seed"), "steps": (int, "sampling steps"),
    "guidance": (float, "CFG scale"), "side": (int, "width and height in pixels; as trained if absent"),
    "sampler": (str, "the host's name of it"), "negative": (str, "negative prompt"),
    "clip_skip": (int, "as in training, which is the default"),
}  # fmt: skip
"""The options of an analysis, as `evaluate.blocks_options.BlockOptions` has them."""
_REPEATED = {
    "prompt": ("TEXT", "with the trigger or without it; else from trigger and captions"),
    "trigger": ("WORD", "what calls the adapter; else the config's"),
    "trait": ("TAG", "what the trigger has to bring; else from the captions"),
}


def add(commands: Any) -> None:
    """Add the command `blocks` to a parser's commands."""
    text = "say which blocks of an adapter matter, and find the smallest set that keeps what its trigger brings"
    command: argparse.ArgumentParser = commands.add_parser("blocks", help=text, description=text)
    command.add_argument("file", type=Path, metavar="FILE|RUNDIR", help="the adapter, or a run, of which the last one")
    looking.add_options(command)
    for name, (shown, about) in _REPEATED.items():
        command.add_argument(f"--{name}", action="append", default=[], metavar=shown, help=f"{about}; repeated")
    for name, (kind, about) in TRYING.items():
        command.add_argument(f"--{name.replace('_', '-')}", type=kind, default=None, metavar=name.upper(), help=about)
    command.add_argument("--smallest", action="store_true", help="look for the smallest set of blocks as well")
    command.add_argument("--bake", type=Path, metavar="OUT", help="write the smallest set as an adapter of its own")
    command.add_argument("--preset", metavar="NAME", help="add the smallest set to the file of --presets by this name")
    command.add_argument("--presets", type=Path, metavar="FILE", help="lora-block-weight's lbwpresets.txt")
    command.add_argument("--overwrite", action="store_true", help="replace the file of --bake if it exists")
    command.add_argument("--dry-run", action="store_true", help="say what would be made, and make no image")
    command.add_argument("--json", action="store_true", help="one JSON object a line")
    command.set_defaults(run=blocks)


def blocks(options: argparse.Namespace) -> int:
    """Analyse, and search where that is asked for; what was stopped goes on where it was."""
    from lib_lora_trainer.app import block_jobs
    from lib_lora_trainer.app.grid_attached import AttachedStudio

    if (options.preset is None) != (options.presets is None):
        raise ConfigError("--preset and --presets belong together: the name, and the file that it is added to.")
    request = _request(options)
    host = host_of(options)
    studio = AttachedStudio(lambda _: host)
    searching = options.smallest or options.bake is not None or options.preset is not None
    work = block_jobs.search if searching else block_jobs.analyse
    with interruptible() as control:
        if options.dry_run:
            made = heard(block_jobs.draft(studio, request, control), options)
            return STOPPED if made is None else _tell_draft(made, options)
        found = heard(looking.without_images(work(studio, request, control), options), options)
        if found is None:
            return STOPPED
        _tell(found, options)
        return _offer(found, request, options, host)


def _request(options: argparse.Namespace) -> BlocksRequest:
    from lib_lora_trainer.app import pick_dataset
    from lib_lora_trainer.app.block_jobs import BlocksRequest
    from lib_lora_trainer.evaluate import pick_files
    from lib_lora_trainer.evaluate.blocks_options import BlockOptions

    files = pick_dataset.files_of([options.file])
    config = pick_dataset.config_of(files, options.config)
    if options.trigger:
        config = dataclasses.replace(config, triggers=tuple(options.trigger))
    given = {name: getattr(options, name) for name in TRYING if getattr(options, name) is not None}
    trying = BlockOptions(**{"clip_skip": config.training.clip_skip, "prompts": tuple(options.prompt), **given})
    file = pick_files.ordered(files)[-1].path
    tagger = looking.tagger(options.tagger, options.models)
    return BlocksRequest(file, config, tagger, options.out, tuple(options.trait), options.before, trying)


def _tell_draft(made: Draft, options: argparse.Namespace) -> int:
    if options.json:
        about = {"event": "proposal", "lines": made.lines(), "images": made.images, "missing": made.missing}
        speech.say(json.dumps(about, ensure_ascii=False))
    else:
        speech.say("\n".join((*made.lines(), *(f"{each.severity}: {each}" for each in made.surveyed.problems))))
    return DONE


def _tell(found: Analysed, options: argparse.Namespace) -> None:
    from lib_lora_trainer.evaluate import blocks

    if options.json:
        content = json.loads(found.path.read_text(encoding="utf-8"))
        speech.say(json.dumps({"event": "blocks", **content}, ensure_ascii=False))
        return
    speech.say("block  share  lost off  alone  pixels off  alone  drift less off  alone")
    for row in blocks.rows(found.report.analysis):
        speech.say(
            f"{row.block:<6} {row.share:5.0%} {row.lost.mean:9.0%} {row.brought.mean:6.0%} {row.pixels_off:11.1f} "
            f"{row.pixels_alone:6.1f} {row.drift_off:15.1f} {row.drift_alone:6.1f}"
        )
    chosen = found.report.chosen
    if chosen is not None:
        names = ", ".join(block for block in found.report.order if block in chosen.blocks)
        speech.say(
            f"smallest set: {names} ({len(chosen.blocks)} of {len(found.report.order)} blocks) keeps {chosen.share:.0%}, "
            f'{chosen.fresh:.0%} with other seeds\npreset: {chosen.preset}\nadapter.blocks = "{chosen.training}"'
        )


def _offer(found: Analysed, request: BlocksRequest, options: argparse.Namespace, host: Any) -> int:
    """Write what was asked for of the smallest set: a preset, a baked file."""
    from lib_lora_trainer.app import baking
    from lib_lora_trainer.workshop import presets

    chosen, family = found.report.chosen, found.report.family
    if chosen is None:
        if options.bake is not None or options.preset is not None:
            raise UserError("there is no smallest set of blocks, so nothing was baked or added to the presets.")
        return DONE
    if options.preset is not None:
        known = presets.read(options.presets)
        vector = presets.choose(chosen.preset, family)
        presets.save(options.presets, presets.with_preset(known, options.preset, vector))
    if options.bake is None:
        return DONE
    asked = baking.Request(request.file, options.bake, chosen.preset, family=family, overwrite=options.overwrite)
    return speech.follow(baking.run(baking.plan(asked), host), as_json=options.json)
