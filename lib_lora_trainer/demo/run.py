"""The main job on the toy world: measure, train, measure again, report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file

from lib_lora_trainer.adapters.attach import Attachment
from lib_lora_trainer.adapters.files import from_tensors
from lib_lora_trainer.app import jobs
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import RunConflict
from lib_lora_trainer.base.events import Event, Finished, Note, Phase, Planned, Progress
from lib_lora_trainer.config.data import DataConfig, SourceConfig
from lib_lora_trainer.config.output import SampleConfig, SaveConfig
from lib_lora_trainer.config.recipes import RECIPES, apply
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.demo import measure, regularization, report, world
from lib_lora_trainer.demo.measure import Answer, Question
from lib_lora_trainer.hosts.api import Host, Lease, Needs
from lib_lora_trainer.tagging import wd14

ASSETS = Path(__file__).parent / "assets"
CHECKPOINT = ASSETS / "toy.safetensors"
DATASET = ASSETS / "character"
TAGGER = ASSETS / "tagger"
ROUNDS = 2  # regularization images per caption
FOLDER = "3_regularization"  # 48 pictures × 3 beside the character's 24 × 10


def config(regularization: Path) -> RunConfig:
    """Return the demo's training run: the recipe `toy-demo` on the bundled character and the regularization images."""
    sources = (SourceConfig(str(DATASET)), SourceConfig(str(regularization)))
    plain = RunConfig(
        name=world.TRIGGER,
        triggers=(world.TRIGGER,),
        data=DataConfig(sources=sources),
        save=SaveConfig(every_epochs=0, state_every_steps=100),
        samples=SampleConfig(
            prompts=(world.TRIGGER, f"{world.TRIGGER}, red dress, forest"), every_epochs=2, guidance=5.0
        ),
    )
    return apply(RECIPES["toy-demo"], plain)


def demo(host: Host, out: Path, control: Control) -> Iterator[Event]:
    """Run the main job and write the adapter, `report.json`, `grid.png` and `report.html` to `out`.

    Raises RunConflict when `out` holds the results of an earlier demo.
    """
    if (out / "report.json").exists():
        raise RunConflict(f"{out}: this folder holds an earlier demo's results. Choose another --out, or remove it.")
    began = time.monotonic()
    tagger = wd14.load(TAGGER)
    answers: dict[str, Answer] = {}
    # So small a model is slower with several threads than with one.
    with _threads(1):
        with host.lease(Needs()) as lease:
            yield from _ask("before", measure.recall(), lease, tagger, answers)
            captions = [path.read_text(encoding="utf-8").strip() for path in sorted(DATASET.rglob("*.txt"))]
            yield from regularization.make(lease, captions, ROUNDS, out / FOLDER)
        losses: list[float] = []
        planned: tuple[str, ...] = ()
        finished: Finished | None = None
        for event in jobs.train(host, config(out / FOLDER), jobs.RunPaths(out / "run", out), control):
            if isinstance(event, Progress):
                losses.append(event.loss)
            if isinstance(event, Planned):
                planned = event.lines
            if isinstance(event, Finished):
                finished = event
                break
            yield event
        if finished is None or finished.reason != "done":
            yield finished or Note("warning", "the training ended without a result")
            return
        with host.lease(Needs()) as lease, _from_file(lease, Path(finished.files[-1])):
            for question in (measure.recall(), measure.control(), measure.bleed()):
                yield from _ask("after", question, lease, tagger, answers)
    result = report.Result(answers, tuple(losses), planned, finished.files, time.monotonic() - began)
    for path in report.write(result, out):
        yield Note("note", f"wrote {path}")
    for line in report.summary(result):
        yield Note("note", line)
    yield finished


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _from_file(lease: Lease, path: Path) -> Attachment:
    """Return the saved file's adapters, ready to be attached: what is measured is the file, not the run's memory."""
    adapters = from_tensors(load_file(str(path)), lease.targets(), lease.info.family)
    return Attachment(lease.targets(), {layer: adapter.to(lease.device).eval() for layer, adapter in adapters.items()})


def _ask(
    when: str, question: Question, lease: Lease, tagger: wd14.Tagger, answers: dict[str, Answer]
) -> Iterator[Event]:
    with torch.no_grad():
        for step in measure.ask(question, lease, tagger):
            if isinstance(step, Answer):
                answers[f"{when}.{question.name}"] = step
            else:
                yield Phase(f"{question.name} {when}", step, len(question.prompts))
