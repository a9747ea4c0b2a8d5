"""The Evaluate step within the whole page's layout, in a project with a finished run, its events triggered by a test.

The run was trained on the tiny host, or on another host that is given, and has a saved file per epoch.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

gr = pytest.importorskip("gradio")

import captions_page  # noqa: E402
from lib_lora_trainer.app import jobs, projects, runs, tag_jobs  # noqa: E402
from lib_lora_trainer.app.queue import Runner  # noqa: E402
from lib_lora_trainer.base.events import Event  # noqa: E402
from lib_lora_trainer.config.adapter import AdapterConfig  # noqa: E402
from lib_lora_trainer.config.data import DataConfig, SourceConfig  # noqa: E402
from lib_lora_trainer.config.optimizer import OptimizerConfig  # noqa: E402
from lib_lora_trainer.config.output import SampleConfig, SaveConfig  # noqa: E402
from lib_lora_trainer.config.run import RunConfig  # noqa: E402
from lib_lora_trainer.config.training import TrainingConfig  # noqa: E402
from lib_lora_trainer.demo.run import DATASET, TAGGER  # noqa: E402
from lib_lora_trainer.ui import evaluate_actions, tab  # noqa: E402
from lib_lora_trainer.ui.place import Place  # noqa: E402
from lib_lora_trainer.ui.scans import Scans  # noqa: E402
from lib_lora_trainer.ui.searches import Searches  # noqa: E402
from lib_lora_trainer.ui.session import opened  # noqa: E402
from lib_lora_trainer.ui.tools_work import Works  # noqa: E402
from tiny_host import TinyHost  # noqa: E402

TRIGGER = "mikori"
PICTURES = 6
FILES = 3


class PictureHost(TinyHost):
    """The tiny host with what the tab asks of a host beside training, and a last layer where a checkpoint has it."""

    def __init__(self, adapters: Path) -> None:
        super().__init__(adapters)
        same = torch.nn.Identity()
        self.unet.out = torch.nn.Sequential(same, same, self.unet.out)  # out.2

    def upscalers(self) -> tuple[Any, ...]:
        return ()


def no_search(*_: object) -> Iterator[Event]:
    """Stand for a search that no test of the step asks for."""
    raise AssertionError("nobody asked for a search")


def settings(folder: Path) -> RunConfig:
    """Return the settings of a run of three epochs, one step and one file each, on six pictures of the demo."""
    pictures = folder / "pictures" / f"1_{TRIGGER}"
    pictures.mkdir(parents=True, exist_ok=True)
    for path in sorted(DATASET.rglob("*.png"))[:PICTURES]:
        shutil.copy(path, pictures)
        shutil.copy(path.with_suffix(".txt"), pictures)
    return RunConfig(
        name=TRIGGER,
        triggers=(TRIGGER,),
        data=DataConfig(sources=(SourceConfig(str(pictures.parent)),), resolution=64, bucket=False),
        adapter=AdapterConfig(rank=2, alpha=2.0),
        optimizer=OptimizerConfig(unet_learning_rate=0.05, text_learning_rate=0.05),
        training=TrainingConfig(epochs=FILES, batch_size=PICTURES),
        save=SaveConfig(every_epochs=1, precision="fp32", state_every_steps=0),
        samples=SampleConfig(),
    )


class Step(captions_page.Step):
    """The step without a browser. do: runs an event and what follows it; look: opens the step, as a person does.

    run: the id of the finished run, "" without one; files: its adapters, in the order of training.
    """

    tab: Any  # of this step, not of the captions

    def __init__(
        self,
        folder: Path,
        host: Any = None,
        gate: Callable[[], None] = lambda: None,
        config: RunConfig | None = None,
        *,
        trained: bool = True,
        studio: Any = None,
    ) -> None:
        self.host = host or PictureHost(folder / "Lora")
        runner = Runner(jobs.train)
        taggers = tag_jobs.Place(folder / "taggers")
        place = Place(self.host, runner, folder / "projects", gate, True, Scans(), Searches(no_search), taggers, studio)
        self.place, self.works, self.values = place, Works(), {}
        self.config = config or settings(folder)
        self.project = projects.create(place.projects, TRIGGER)
        projects.save(self.project, self.config, projects.load(self.project).version)
        self.session = opened(place.projects, TRIGGER)
        self.run = self.train() if trained else ""
        with gr.Blocks(analytics_enabled=False) as self.blocks:
            self.page = tab._layout(place)
            evaluate_actions.wire(place, self.page, self.works)
        self.tab = self.page.evaluate
        self.values[self.page.session._id] = self.session

    @property
    def files(self) -> list[Path]:
        return [Path(path) for path in runs.adapters(self.project, self.run)] if self.run else []

    def train(self, **changes: Any) -> str:
        """Train once more, with some settings changed, and return the run's id."""
        run = self.place.runner.start(self.host, self.project, replace(self.config, **changes))
        self.place.runner.wait(60)
        assert runs.summary(self.project, run).state == "done", self.place.runner.events(self.project, run)[-1]
        return run

    def look(self, run: str = "") -> None:
        """Open the step; run: chosen in its list."""
        self.do("step_evaluate", "select")
        if run:
            self.do("evaluate_run", "input", evaluate_run=run)


__all__ = ["FILES", "TAGGER", "TRIGGER", "PictureHost", "Step", "settings"]
