"""The command line: `python -m lib_lora_trainer {plan,train,demo,serve} …`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ProblemsFound, TrainerError
from lib_lora_trainer.base.events import (
    Event,
    Failed,
    Finished,
    Note,
    Phase,
    Planned,
    Progress,
    SampleMade,
    Saved,
    to_json,
)

if TYPE_CHECKING:
    from lib_lora_trainer.hosts.api import Host

DONE, MISTAKES, STOPPED = 0, 1, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0 done, 1 a list of mistakes, 130 stopped by the user."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a Windows console may lack the characters of a path
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except ProblemsFound as error:
        return _report_mistakes([asdict(problem) for problem in error.problems], str(error), options)
    except TrainerError as error:
        return _report_mistakes([], str(error), options)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lib_lora_trainer", description="Train Stable Diffusion adapters.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run, text in (
        ("plan", _plan, "say what a run would do, and every mistake in it"),
        ("train", _train, "train; an unfinished run in DIR is continued"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("config", type=Path, metavar="CONFIG.toml")
        command.add_argument("--host", choices=("standalone",), default="standalone", help="where the model is loaded")
        command.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="a .safetensors checkpoint")
        command.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the adapters go")
        command.add_argument("--device", default="auto", help="cuda, cpu, mps or auto")
        command.add_argument("--json", action="store_true", help="one JSON object a line")
        command.set_defaults(run=run)
    _add_demo(commands)
    return parser


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser("demo", help="run the main job on the bundled toy world, then serve the tab")
    demo.add_argument("--out", type=Path, default=Path("demo-out"), metavar="DIR", help="where the results go")
    demo.add_argument("--no-ui", action="store_true", help="stop after the report")
    demo.add_argument("--port", type=int, default=7861, help="where the tab is served")
    demo.set_defaults(run=_demo, json=False)
    parts = demo.add_subparsers(metavar="PART")
    install = parts.add_parser("install", help="put the toy checkpoint into a WebUI")
    install.add_argument("--webui", type=Path, required=True, metavar="PATH", help="the WebUI's folder")
    install.set_defaults(run=_install, json=False)
    serve = commands.add_parser("serve", help="serve the tab in a browser, without a WebUI")
    serve.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="a .safetensors checkpoint")
    serve.add_argument("--out", type=Path, required=True, metavar="DIR", help="where projects and adapters go")
    serve.add_argument("--device", default="auto", help="cuda, cpu, mps or auto")
    serve.add_argument("--port", type=int, default=7861)
    serve.set_defaults(run=_serve, json=False)


def _host(options: argparse.Namespace) -> Host:
    from lib_lora_trainer.hosts.standalone import StandaloneHost

    return StandaloneHost(options.checkpoint, options.out, device=options.device)


def _plan(options: argparse.Namespace) -> int:
    from lib_lora_trainer.app import jobs
    from lib_lora_trainer.config import run
    from lib_lora_trainer.plan import describe

    settled = jobs.plan(_host(options), run.read(options.config), options.out)
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
        _say(json.dumps(content, ensure_ascii=False))
    else:
        _say("\n".join((*describe.lines(settled), *(f"{p.severity}: {p}" for p in settled.problems))))
    return MISTAKES if settled.errors else DONE


def _train(options: argparse.Namespace) -> int:
    from lib_lora_trainer.app import jobs
    from lib_lora_trainer.config import run

    config = run.read(options.config)
    paths = jobs.RunPaths(options.out / f"{config.name}.run", options.out)
    with _interruptible() as control:
        return follow(jobs.train(_host(options), config, paths, control), options.json)


@contextmanager
def _interruptible() -> Iterator[Control]:
    """Turn the first Ctrl+C into a stop that saves; the second one ends at once."""
    control = Control()

    def stop(*_: object) -> None:
        control.ask("stop")
        signal.signal(signal.SIGINT, before)
        sys.stderr.write("\nStopping after this step; Ctrl+C again ends at once.\n")

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield control
    finally:
        signal.signal(signal.SIGINT, before)


def follow(events: Iterator[Event], as_json: bool) -> int:
    """Write a job's events to standard output and return the exit status."""
    status = DONE
    for event in events:
        if as_json:
            _say(to_json(event))
        else:
            _tell(event)
        if isinstance(event, Finished) and event.reason != "done":
            status = STOPPED
    return status


def _tell(event: Event) -> None:
    if isinstance(event, Progress):
        share = event.images_seen / event.total_images
        bar = "#" * int(share * 30)
        sys.stderr.write(
            f"\r[{bar:<30}] {share:4.0%} step {event.step}/{event.total_steps} loss {event.loss_average:.4f} "
            f"{event.seconds_per_step:.2f} s/step, {event.eta_seconds:.0f} s left "
        )
        if event.step == event.total_steps:
            sys.stderr.write("\n")
        sys.stderr.flush()
        return
    if isinstance(event, Phase):
        sys.stderr.write(f"\r{event.name}: {event.done}/{event.total}" + ("\n" if event.done == event.total else ""))
        sys.stderr.flush()
        return
    _say(_words(event))


def _words(event: Event) -> str:
    if isinstance(event, Planned):
        return "\n".join(event.lines)
    if isinstance(event, Saved):
        return f"wrote {event.path}"
    if isinstance(event, SampleMade):
        return f"sample {event.path}"
    if isinstance(event, Note):
        return f"{event.severity}: {event.text}"
    if isinstance(event, Finished):
        return f"{event.reason} after step {event.step}, {event.seconds:.0f} s"
    if isinstance(event, Failed):
        return f"failed: {event.error}"
    raise TypeError(f"no words for {event!r}")


def _demo(options: argparse.Namespace) -> int:
    from lib_lora_trainer.demo import run

    options.checkpoint, options.device = run.CHECKPOINT, "auto"
    with _interruptible() as control:
        status = follow(run.demo(_host(options), options.out, control), as_json=False)
    return _serve(options) if status == DONE and not options.no_ui else status


def _install(options: argparse.Namespace) -> int:
    from lib_lora_trainer.demo.install import install

    for path in install(options.webui):
        _say(f"wrote {path}")
    return DONE


def _serve(options: argparse.Namespace) -> int:
    from lib_lora_trainer.ui.serve import serve

    serve(_host(options), options.out, options.port)
    return DONE


def _report_mistakes(problems: list[dict[str, str]], text: str, options: argparse.Namespace) -> int:
    if options.json:
        _say(to_json(Failed(text, tuple(problems))))
    else:
        sys.stderr.write(text + "\n")
    return MISTAKES


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
