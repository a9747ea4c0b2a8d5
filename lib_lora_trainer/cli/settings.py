"""The commands about settings alone: recipes, settings, import. They need no torch."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from lib_lora_trainer.base import codec, files
from lib_lora_trainer.cli import speech
from lib_lora_trainer.cli.speech import DONE
from lib_lora_trainer.config import importing
from lib_lora_trainer.config.importing import Imported
from lib_lora_trainer.config.recipes import RECIPES
from lib_lora_trainer.config.reference import markdown


def recipes(options: argparse.Namespace) -> int:
    """List the recipes."""
    for recipe in RECIPES.values():
        if options.json:
            content = {"name": recipe.name, "guide": recipe.guide, "text": recipe.text, "settings": recipe.settings}
            speech.say(json.dumps(content, ensure_ascii=False, default=dict))
        else:
            speech.say(f"{recipe.name}\n    {recipe.text}\n    From {recipe.guide}.")
    return DONE


def reference(_options: argparse.Namespace) -> int:
    """Describe every setting as Markdown."""
    speech.say(markdown().rstrip("\n"))
    return DONE


def take_in(options: argparse.Namespace) -> int:
    """Read another trainer's settings, write ours, and say what became of every key."""
    found = importing.read(options.file)
    text = codec.to_toml(found.config)
    if options.output is not None:
        files.write_text(options.output, text)
    if options.json:
        content = {
            "kind": found.kind,
            "files": [str(path) for path in found.files],
            "mapped": [each._asdict() for each in found.mapped],
            "unmapped": [each._asdict() for each in found.unmapped],
            "silent": found.silent,
            "assumed": [{"setting": setting, "value": value} for setting, value in found.assumed],
            "config": codec.to_mapping(found.config),
        }
        speech.say(json.dumps(content, ensure_ascii=False, default=str))
        return DONE
    if options.output is None:
        speech.say(text)
    speech.whisper("\n".join(_report(found, options.output)) + "\n")
    return DONE


def _report(found: Imported, output: Path | None) -> Iterator[str]:
    yield f"{found.kind}: {', '.join(str(path) for path in found.files)}"
    yield f"{len(found.mapped)} taken over:"
    yield from (f"    {key} → {setting}" for key, setting in found.mapped)
    if found.assumed:
        yield f"{len(found.assumed)} set to that trainer's defaults:"
        yield from (f"    {setting} = {value}" for setting, value in found.assumed)
    yield f"{len(found.unmapped)} not taken over:"
    yield from (f"    {key} = {value}: {reason}" for key, value, reason in found.unmapped)
    if output is not None:
        yield f"wrote {output}"
