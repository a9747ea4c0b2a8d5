"""What `pick`, `blocks` and `captions probe` have in common: who looks at the images, and what is told while they are made."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_lora_trainer.base.errors import UserError
from lib_lora_trainer.base.events import Planned, SampleMade, to_json
from lib_lora_trainer.cli import speech

if TYPE_CHECKING:
    from lib_lora_trainer.tagging.models import Found


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options with which a tagger is chosen, and where the run's settings and captions are."""
    command.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="a .safetensors checkpoint")
    command.add_argument("--device", default="auto", help="cuda, cpu, mps or auto")
    command.add_argument(
        "--tagger", default="wd-swinv2-tagger-v3", metavar="NAME|DIR",
        help="what looks at the images: a name, or a folder",
    )  # fmt: skip
    command.add_argument(
        "--models", type=Path, action="append", default=[], metavar="DIR", help="a folder with taggers"
    )
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="where images and report go")
    command.add_argument(
        "--config", type=Path, metavar="CONFIG.toml", help="the run's settings; else the adapter's own"
    )
    command.add_argument("--before", type=Path, metavar="DIR", help="the captions as they were before pruning")


def tagger(name: str, folders: Sequence[Path]) -> Found:
    """Return the chosen tagger. Raises UserError when it is not on this machine.

    name: of it, or the folder it is in; folders: which hold taggers.
    """
    from lib_lora_trainer.tagging import models

    found = models.find(name, folders)
    if found is None:
        raise UserError(f"{name}: not on this machine. Get it with the command tag --download, or name its folder.")
    return found


def without_images(events: Iterator[Any], options: argparse.Namespace) -> Iterator[Any]:
    """Tell of each image in JSON and of the plan, and pass everything else on."""
    for event in events:
        if isinstance(event, (SampleMade, Planned)):
            if options.json:
                speech.say(to_json(event))
            elif isinstance(event, Planned):
                speech.tell(event)
        else:
            yield event
