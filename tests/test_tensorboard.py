"""The log for TensorBoard, read back as TensorBoard reads it."""

from __future__ import annotations

import importlib.util
import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib_lora_trainer.base.errors import UserError
from lib_lora_trainer.base.events import Finished, Note, Progress, SampleMade
from lib_lora_trainer.config.output import SaveConfig
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.train import tensorboard

WANTED = RunConfig(save=SaveConfig(tensorboard=True))
needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="the optional package tensorboard is not installed"
)


def progress(step: int, loss: float, rates: dict[str, float]) -> Progress:
    return Progress(step, 40, step, 40, 1, 1, loss, loss / 2, rates, 0.1, 1.0)


def sample(folder: Path, step: int, number: int, prompt: str) -> SampleMade:
    path = folder / f"step{step:08d}-{number:02d}.png"
    Image.new("RGB", (3, 2), (10 * step, number, 7)).save(path)
    return SampleMade(str(path), prompt, number, step, 1)


def read(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in read(folder).Scalars(tag)]


@needs_tensorboard
def test_scalars_are_those_of_the_events(tmp_path):
    with tensorboard.Sink(tmp_path / "log", 0) as sink:
        for step in (1, 2, 3):
            sink.take(progress(step, 0.5 / step, {"unet": 1e-4 * step, "unet ×0.5 up": 8e-4, "text": 5e-5}))
        sink.take(Note("note", "nothing to draw"))
        sink.take(Finished("done", 3, (), 1.0))
    found = read(tmp_path / "log")
    tags = {"loss/current", "loss/average", "lr/unet", "lr/unet_x0.5_up", "lr/text"}
    assert set(found.Tags()["scalars"]) == tags
    assert scalars(tmp_path / "log", "loss/current") == [(1, 0.5), (2, 0.25), (3, pytest.approx(0.5 / 3))]
    assert scalars(tmp_path / "log", "loss/average") == [(1, 0.25), (2, 0.125), (3, pytest.approx(0.25 / 3))]
    assert [value for _, value in scalars(tmp_path / "log", "lr/unet")] == pytest.approx([1e-4, 2e-4, 3e-4])
    assert [value for _, value in scalars(tmp_path / "log", "lr/unet_x0.5_up")] == pytest.approx([8e-4] * 3)


@needs_tensorboard
def test_samples_are_shown_under_their_prompts(tmp_path):
    with tensorboard.Sink(tmp_path / "log", 0) as sink:
        for step in (0, 4):
            sink.take(sample(tmp_path, step, 1, "mikori, <b> " + "long " * 30))
            sink.take(sample(tmp_path, step, 2, "ミコリ"))
        sink.take(SampleMade(str(tmp_path / "removed.png"), "ミコリ", 2, 5, 1))
    found = read(tmp_path / "log")
    first, second = sorted(found.Tags()["images"])
    assert first.startswith("samples/01_mikori_b_long_long") and len(first) < 80
    assert second == "samples/02_ミコリ"
    assert [image.step for image in found.Images(second)] == [0, 4]
    pixels = np.asarray(Image.open(io.BytesIO(found.Images(second)[1].encoded_image_string)))
    assert pixels.shape == (2, 3, 3)
    assert pixels[0, 0].tolist() == [40, 2, 7]


@needs_tensorboard
@pytest.mark.parametrize(("resumed", "kept"), [(3, [1, 2, 3]), (5, [1, 2, 3, 4, 5]), (0, [])])
def test_a_resumed_run_goes_on_in_its_folder_with_every_step_once(tmp_path, resumed, kept):
    folder = tmp_path / "log"
    with tensorboard.Sink(folder, 0) as sink:
        sink.take(sample(tmp_path, 0, 1, "red"))
        for step in range(1, 6):
            sink.take(progress(step, 1.0, {"unet": 1e-4}))
        sink.take(sample(tmp_path, 5, 1, "red"))
    with tensorboard.Sink(folder, resumed) as sink:
        if resumed == 0:
            sink.take(sample(tmp_path, 0, 1, "red"))
        for step in range(resumed + 1, 8):
            sink.take(progress(step, 2.0, {"unet": 1e-4}))
    assert len(list(folder.iterdir())) == 2
    again = range(resumed + 1, 8)
    assert scalars(folder, "loss/current") == [(step, 1.0) for step in kept] + [(step, 2.0) for step in again]
    assert [image.step for image in read(folder).Images("samples/01_red")] == ([0, 5] if resumed == 5 else [0])


@needs_tensorboard
def test_the_file_is_complete_also_after_an_exception(tmp_path):
    with pytest.raises(ZeroDivisionError), tensorboard.Sink(tmp_path / "log", 0) as sink:
        sink.take(progress(1, 0.5, {}))
        raise ZeroDivisionError
    assert scalars(tmp_path / "log", "loss/current") == [(1, 0.5)]


def test_a_missing_package_is_named_with_the_command_that_adds_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard.writer", raising=False)
    assert tensorboard.problems(RunConfig()) == ()
    (problem,) = tensorboard.problems(WANTED)
    assert (problem.severity, problem.where) == ("error", "save.tensorboard")
    assert f'"{sys.executable}" -m pip install tensorboard' in problem.fix
    with pytest.raises(UserError, match="pip install tensorboard"):
        tensorboard.Sink(tmp_path / "log", 0)


@needs_tensorboard
def test_an_installed_package_is_no_problem():
    assert tensorboard.problems(WANTED) == ()
