"""The main job on the toy world: measure, train, measure again, report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file

from lib_lora_trainer.adapters.attach import Attachment
from lib_lora_trainer.adapters.files import from_tensors
from lib_lora_trainer.app import jobs
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import RunConflict
from lib_lora_trainer.base.events import Event, Finished, Note, Phase, Planned, Progress
from lib_lora_trainer.config.adapter import AdapterConfig
from lib_lora_trainer.config.data import CaptionConfig, DataConfig, SourceConfig
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.config.training import OptimizerConfig, SampleConfig, SaveConfig, TrainingConfig
from lib_lora_trainer.demo import measure, report, world
from lib_lora_trainer.demo.measure import Answer, Question
from lib_lora_trainer.hosts.api import Host, Lease, Needs
from lib_lora_trainer.tagging import wd14

ASSETS = Path(__file__).parent / "assets"
CHECKPOINT = ASSETS / "toy.safetensors"
DATASET = ASSETS / "character"
TAGGER = ASSETS / "tagger"


def config() -> RunConfig:
    """Return the demo's training run: a LoRA on UNet and text encoder of the toy checkpoint."""
    return RunConfig(
        name=world.TRIGGER,
        triggers=(world.TRIGGER,),
        data=DataConfig(
            sources=(SourceConfig(str(DATASET)),),
            caption=CaptionConfig(keep_tokens=1),
            resolution=world.SIDE,
            bucket_minimum=world.SIDE,
        ),
        adapter=AdapterConfig(rank=16, alpha=16.0),
        optimizer=OptimizerConfig(unet_learning_rate=1e-3, text_learning_rate=5e-4, warmup=0.05),
        training=TrainingConfig(epochs=10, batch_size=4),
        save=SaveConfig(every_epochs=0, state_every_steps=100),
        samples=SampleConfig(
            prompts=(world.TRIGGER, f"{world.TRIGGER}, red dress, forest"), every_epochs=5, guidance=5.0
        ),
    )


def demo(host: Host, out: Path, control: Control) -> Iterator[Event]:
    """Run the main job and write the adapter, `report.json`, `grid.png` and `report.html` to `out`.

    Raises RunConflict when `out` holds the results of an earlier demo.
    """
    if (out / "report.json").exists():
        raise RunConflict(f"{out}: this folder holds an earlier demo's results. Choose another --out, or remove it.")
    began = time.monotonic()
    tagger = wd14.load(TAGGER)
    answers: dict[str, Answer] = {}
    with host.lease(Needs()) as lease:
        yield from _ask("before", measure.recall(), lease, tagger, answers)
    losses: list[float] = []
    planned: tuple[str, ...] = ()
    finished: Finished | None = None
    for event in jobs.train(host, config(), jobs.RunPaths(out / "run", out), control):
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


def _from_file(lease: Lease, path: Path) -> Attachment:
    """Return the saved file's adapters, ready to be attached: what is measured is the file, not the run's memory."""
    adapters = from_tensors(load_file(str(path)), lease.targets(), lease.info.family)
    return Attachment(lease.targets(), {layer: adapter.to(lease.device) for layer, adapter in adapters.items()})


def _ask(
    when: str, question: Question, lease: Lease, tagger: wd14.Tagger, answers: dict[str, Answer]
) -> Iterator[Event]:
    with torch.no_grad():
        for step in measure.ask(question, lease, tagger):
            if isinstance(step, Answer):
                answers[f"{when}.{question.name}"] = step
            else:
                yield Phase(f"{question.name} {when}", step, len(question.prompts))
