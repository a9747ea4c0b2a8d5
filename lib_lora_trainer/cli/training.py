"""The commands that need a model: plan, train, find-rate."""

from __future__ import annotations

import argparse
import json
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from lib_lora_trainer.base import launch
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ProblemsFound, TrainerError
from lib_lora_trainer.cli import speech
from lib_lora_trainer.cli.speech import DONE, MISTAKES, STOPPED

if TYPE_CHECKING:
    from lib_lora_trainer.app.jobs import RunPaths
    from lib_lora_trainer.config.run import RunConfig
    from lib_lora_trainer.hosts.api import Host


def host_of(options: argparse.Namespace) -> Host:
    """Return the host of the checkpoint; of several processes each takes its own GPU."""
    import torch

    from lib_lora_trainer.hosts.standalone import StandaloneHost

    device = options.device
    if device == "auto" and launch.count() > 1 and torch.cuda.is_available():
        device = f"cuda:{launch.local_rank()}"
    return StandaloneHost(options.checkpoint, options.out, device=device)


def plan(options: argparse.Namespace) -> int:
    """Write the plan of a run."""
    from lib_lora_trainer.app import jobs
    from lib_lora_trainer.config import run
    from lib_lora_trainer.plan import describe

    settled = jobs.plan(host_of(options), run.read(options.config), options.out)
    if options.json:
        content = {
            "lines": describe.lines(settled),
            "steps": settled.steps,
            "images": settled.images,
            "epochs": settled.epochs,
            "parameters": settled.estimate.parameters,
            "memory_bytes": settled.estimate.memory_bytes,
            "seconds": settled.seconds,
            "problems": [asdict(problem) for problem in settled.problems],
        }
        speech.say(json.dumps(content, ensure_ascii=False))
    else:
        speech.say("\n".join((*describe.lines(settled), *(f"{p.severity}: {p}" for p in settled.problems))))
    return MISTAKES if settled.errors else DONE


def train(options: argparse.Namespace) -> int:
    """Train one run, or all of a sweep one after the other; a run that fails does not keep the others from theirs."""
    from lib_lora_trainer.app import jobs
    from lib_lora_trainer.config import run
    from lib_lora_trainer.train.processes import joined

    configs = _expanded(run.read(options.config), options.sweep)
    status = DONE
    with joined(), interruptible() as control:
        host = host_of(options)
        for config in configs:
            events = jobs.train(host, config, _paths(options, f"{config.name}.run"), control)
            try:
                ended = speech.follow(events, as_json=options.json)
            except TrainerError as error:
                if len(configs) == 1:
                    raise
                problems = [asdict(problem) for problem in error.problems] if isinstance(error, ProblemsFound) else []
                ended = speech.mistakes(problems, f"{config.name}: {error}", as_json=options.json)
            if ended == STOPPED:
                return STOPPED
            status = max(status, ended)
    return status


def find_rate(options: argparse.Namespace) -> int:
    """Search a learning rate."""
    from lib_lora_trainer.app import jobs
    from lib_lora_trainer.config import run

    config = run.read(options.config)
    with interruptible() as control:
        events = jobs.find_rate(host_of(options), config, _paths(options, f"{config.name}.rate"), control)
        return speech.follow(events, as_json=options.json)


@contextmanager
def interruptible() -> Iterator[Control]:
    """Turn the first Ctrl+C into a stop that saves; the second one ends at once."""
    control = Control()

    def stop(*_: object) -> None:
        control.ask("stop")
        signal.signal(signal.SIGINT, before)
        speech.whisper("\nStopping after this step; Ctrl+C again ends at once.\n")

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield control
    finally:
        signal.signal(signal.SIGINT, before)


def _expanded(config: RunConfig, lines: Sequence[str]) -> tuple[RunConfig, ...]:
    from lib_lora_trainer.app import sweeps

    return sweeps.expand(config, sweeps.parse(lines)) if lines else (config,)


def _paths(options: argparse.Namespace, folder: str) -> RunPaths:
    from lib_lora_trainer.app.jobs import RunPaths

    cache: Path = options.cache or options.out / ".cache"
    return RunPaths(options.out / folder, options.out, cache)
