"""The command `bake`: block weights, a weight or a rebase into a new adapter file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from lib_lora_trainer.cli import speech
from lib_lora_trainer.cli.speech import DONE


def add(commands: Any) -> None:
    """Add the command `bake` to a parser's commands."""
    text = "write an adapter with block weights, a weight or a rebase in it, for use without any extension"
    command: argparse.ArgumentParser = commands.add_parser("bake", help=text, description=text)
    command.add_argument("file", type=Path, metavar="FILE", help="the adapter, .safetensors")
    command.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="the new file")
    command.add_argument("--blocks", default="", metavar="PRESET|VECTOR", help="MIDD, 'NOT INALL', IN04-07,MID, 1,0,…")
    command.add_argument(
        "--elements", default="", metavar="PRESET|LIST", help="IN05-OUT05:attn:0, in the blocks' place"
    )
    command.add_argument("--unet", type=float, default=1.0, metavar="W", help="weight of the UNet's layers, on top")
    command.add_argument("--te", type=float, default=1.0, metavar="W", help="weight of the text encoders', on top")
    command.add_argument("--rebase", type=float, default=1.0, metavar="S", help="the strength that becomes 1")
    command.add_argument("--family", choices=("sd1", "sd2", "sdxl"), help="what the file is for, if it does not say so")
    command.add_argument("--presets", type=Path, metavar="FILE", help="lora-block-weight's lbwpresets.txt")
    command.add_argument("--element-presets", type=Path, metavar="FILE", help="lora-block-weight's elempresets.txt")
    command.add_argument("--seed", type=int, default=0, help="of the random weights R and U")
    command.add_argument("--x", type=float, default=1.0, help="what X in a vector is")
    command.add_argument("--checkpoint", type=Path, metavar="FILE", help="needed for DoRA, OFT and BOFT")
    command.add_argument("--device", default="auto", help="cuda, cpu, mps or auto")
    command.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    command.add_argument("--dry-run", action="store_true", help="say what would be done, and write nothing")
    command.add_argument("--json", action="store_true", help="one JSON object a line")
    command.set_defaults(run=bake)


def bake(options: argparse.Namespace) -> int:
    """Say what will be done and, unless that is all that was asked for, write the file."""
    from lib_lora_trainer.app import baking
    from lib_lora_trainer.workshop import presets

    request = baking.Request(
        file=options.file,
        output=options.output,
        blocks=options.blocks,
        elements=options.elements,
        unet=options.unet,
        text=options.te,
        rebase=options.rebase,
        family=options.family,
        presets=(presets.named(options.presets),) if options.presets else (),
        element_presets=(presets.named(options.element_presets),) if options.element_presets else (),
        seed=options.seed,
        x=options.x,
        overwrite=options.overwrite,
    )
    settled = baking.plan(request)
    facts = settled.facts
    if options.json:
        speech.say(json.dumps({"event": "proposal", **facts}, ensure_ascii=False))
    else:
        speech.say(
            f"{facts['kept']} layers kept, {facts['multiplied']} multiplied, {facts['left_out']} left out; blocks "
            f"{facts['blocks']}"
        )
    if options.dry_run:
        return DONE
    return speech.follow(baking.run(settled, _host(options)), as_json=options.json)


def _host(options: argparse.Namespace) -> Any:
    if options.checkpoint is None:
        return None
    from lib_lora_trainer.hosts.standalone import StandaloneHost

    return StandaloneHost(options.checkpoint, options.output.parent, device=options.device)
