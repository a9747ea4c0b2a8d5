"""The toy world's character trained too short, right and too long: the picker says so, from the saved files alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers")  # of which the standalone host makes its networks

from lib_lora_trainer.app import jobs, pick_dataset, pick_jobs
from lib_lora_trainer.app.pick_jobs import Picked, PickRequest
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.events import Finished
from lib_lora_trainer.config.data import SourceConfig
from lib_lora_trainer.demo import run as demo_run
from lib_lora_trainer.evaluate.pick_options import PickOptions
from lib_lora_trainer.hosts.standalone import StandaloneHost
from lib_lora_trainer.tagging.models import in_folder

pytestmark = pytest.mark.slow


def trained(host: StandaloneHost, folder: Path) -> tuple[Path, ...]:
    """Train without regularization images, so that the traits spread to everybody in the end; a save every 24 steps."""
    usual = demo_run.config(folder)
    config = replace(
        usual,
        data=replace(usual.data, sources=(SourceConfig(str(demo_run.DATASET), repeats=4),)),
        optimizer=replace(usual.optimizer, unet_learning_rate=2e-3, text_learning_rate=2e-3, schedule="constant"),
        training=replace(usual.training, epochs=12),
        save=replace(usual.save, every_epochs=1, state_every_steps=0),
        samples=replace(usual.samples, every_epochs=0),
    )
    *_, last = jobs.train(host, config, jobs.RunPaths(folder / "x.run", folder), Control())
    assert isinstance(last, Finished) and last.reason == "done"
    return tuple(map(Path, last.files))


def test_too_short_right_and_too_long_are_told(tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a model is slower with several
    try:
        host = StandaloneHost(demo_run.CHECKPOINT, tmp_path, device="cpu")
        files = trained(host, tmp_path)
        first, fourth, last = (path for path in files if path.stem in ("mikori-000001", "mikori-000004", "mikori"))
        tagger = in_folder(demo_run.TAGGER)
        options = PickOptions(weights=(1.0,), images=8, steps=12, guidance=5.0, side=128)

        def picked(*chosen: Path) -> Picked:
            """Try some of the files; images are made once."""
            config = pick_dataset.config_of(chosen)
            *_, found = pick_jobs.pick(
                host, PickRequest(chosen, config, tagger, tmp_path / "out", options=options), Control()
            )
            return found

        short, right, long = picked(first), picked(first, fourth), picked(first, fourth, last)
        assert (short.verdict.length, right.verdict.length, long.verdict.length) == ("too-short", "right", "too-long")
        assert right.verdict.choice.cell.epoch == long.verdict.choice.cell.epoch == 4
        assert {finding.kind for finding in long.verdict.findings} >= {"overbaked", "bleed"}
        # Traits come with training, and then without the trigger too.
        means = [[sum(getattr(cell, kind)) / 8 for cell in long.trial.cells] for kind in ("recall", "bleed")]
        assert means[0] == sorted(means[0]) and means[1] == sorted(means[1])
        alone = picked(last).verdict
        assert alone.length == "too-long" and "Save more epochs" in alone.findings[0].fix
    finally:
        torch.set_num_threads(threads)
