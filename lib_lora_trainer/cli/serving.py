"""The commands that serve the tab: demo, serve."""

from __future__ import annotations

import argparse

from lib_lora_trainer.cli import speech
from lib_lora_trainer.cli.speech import DONE
from lib_lora_trainer.cli.training import host_of, interruptible


def demo(options: argparse.Namespace) -> int:
    """Run the main job on the toy world, then serve the tab on its results."""
    from lib_lora_trainer.demo import run

    options.checkpoint, options.device = run.CHECKPOINT, "auto"
    with interruptible() as control:
        status = speech.follow(run.demo(host_of(options), options.out, control), as_json=False)
    return serve(options) if status == DONE and not options.no_ui else status


def install(options: argparse.Namespace) -> int:
    """Put the toy checkpoint into a WebUI."""
    from lib_lora_trainer.demo.install import install as put

    for path in put(options.webui):
        speech.say(f"wrote {path}")
    return DONE


def serve(options: argparse.Namespace) -> int:
    """Serve the tab until interrupted."""
    from lib_lora_trainer.ui.serve import serve as begin

    begin(host_of(options), options.out, options.port)
    return DONE
