"""The learning-rate finder: how a curve is read, and that it finds where a tiny model learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lib_lora_trainer.app.jobs import RunPaths, find_rate
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.base.events import Finished, RateFound, RateTried
from lib_lora_trainer.config.adapter import AdapterConfig
from lib_lora_trainer.config.data import DataConfig, SourceConfig
from lib_lora_trainer.config.optimizer import OptimizerConfig
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.config.training import TrainingConfig
from lib_lora_trainer.train import rate_finder
from lib_lora_trainer.train.rate_finder import Point
from tiny_host import TinyHost


def curve(*losses: float) -> list[Point]:
    return [Point(10.0**-index, loss, loss) for index, loss in zip(range(6, 0, -1), losses, strict=False)]


def test_a_third_of_the_rate_at_the_lowest_loss_is_suggested() -> None:
    found = rate_finder.read(curve(1.0, 0.99, 0.9, 0.5, 0.8, 2.0), 1.0)
    assert (found.lowest, found.highest) == (1e-4, 1e-3)
    assert found.learning_rate == pytest.approx(1e-3 / 3)
    assert "1.0e-03" in found.text


@pytest.mark.parametrize("losses", [(1.0, 1.0, 1.0, 1.1), (1.0, 0.995, 0.99, 3.0), ()])
def test_a_curve_that_does_not_fall_suggests_nothing(losses: tuple[float, ...]) -> None:
    found = rate_finder.read(curve(*losses), 1.0)
    assert found.learning_rate == 0.0 and "did not fall" in found.text


def test_rates_rise_by_equal_factors() -> None:
    rates = [rate_finder.rate_at(step, 7) for step in range(7)]
    assert rates[0] == rate_finder.LOWEST and rates[-1] == pytest.approx(rate_finder.HIGHEST)
    np.testing.assert_allclose(np.diff(np.log(rates)), np.log(10))


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(4):
        Image.new("RGB", (64, 64), (60 * index, 40, 200)).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text("thing, red", encoding="utf-8")
    return RunConfig(
        name="thing",
        data=DataConfig(sources=(SourceConfig(str(folder)),), resolution=64, bucket_minimum=64),
        adapter=AdapterConfig(rank=4, alpha=4.0),
        optimizer=OptimizerConfig(unet_learning_rate=1e-3, text_learning_rate=5e-4),
        training=TrainingConfig(epochs=1, batch_size=4),
    )


def test_the_search_finds_where_a_tiny_model_learns(tmp_path: Path, config: RunConfig) -> None:
    host = TinyHost(tmp_path)
    before = {key: value.clone() for key, value in host.unet.state_dict().items()}
    events = list(find_rate(host, config, RunPaths(tmp_path / "run", tmp_path), Control()))
    tried = [event for event in events if isinstance(event, RateTried)]
    found = next(event for event in events if isinstance(event, RateFound))
    assert isinstance(events[-1], Finished)
    assert [event.learning_rate for event in tried] == sorted(event.learning_rate for event in tried)
    assert 1e-4 < found.learning_rate < 1.0
    assert found.lowest <= found.learning_rate <= found.highest
    assert min(event.loss for event in tried) < 0.98 * tried[0].loss
    assert all(torch.equal(value, before[key]) for key, value in host.unet.state_dict().items())
    assert not list(tmp_path.glob("*.safetensors")) and not host.leases


def test_a_stop_ends_the_search_with_what_it_has(tmp_path: Path, config: RunConfig) -> None:
    control = Control()
    events = []
    for event in find_rate(TinyHost(tmp_path), config, RunPaths(tmp_path / "run", tmp_path), control):
        events.append(event)
        if isinstance(event, RateTried) and event.step == 3:
            control.ask("stop")
    assert events[-1].reason == "stopped" and events[-1].step == 3
    assert isinstance(events[-2], RateFound)


def test_optimizers_that_find_their_rate_are_refused(tmp_path: Path, config: RunConfig) -> None:
    own = replace(config, optimizer=replace(config.optimizer, name="prodigy"))
    with pytest.raises(ConfigError, match="prodigy finds its learning rate itself"):
        list(find_rate(TinyHost(tmp_path), own, RunPaths(tmp_path / "run", tmp_path), Control()))
