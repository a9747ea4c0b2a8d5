"""Training on a tiny model: learning, resuming bit for bit, stopping, failing, saving."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from lib_lora_trainer.app.jobs import RunPaths, plan, train
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import NumericalError, ProblemsFound, RunConflict
from lib_lora_trainer.base.events import Event, Finished, Note, Progress, SampleMade, Saved
from lib_lora_trainer.config.adapter import AdapterConfig
from lib_lora_trainer.config.data import CaptionConfig, DataConfig, SourceConfig
from lib_lora_trainer.config.optimizer import OptimizerConfig
from lib_lora_trainer.config.output import SampleConfig, SaveConfig
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.config.training import TrainingConfig
from tiny_host import TinyHost, TinyLease


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures" / "2_thing"
    folder.mkdir(parents=True)
    random = np.random.default_rng(1)
    for index in range(5):
        Image.fromarray(random.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"thing, red, tag{index}", encoding="utf-8")
    return folder.parent


def make_config(dataset: Path, **changes: object) -> RunConfig:
    config = RunConfig(
        name="thing",
        triggers=("thing",),
        data=DataConfig(
            sources=(SourceConfig(str(dataset)),), resolution=64, bucket_minimum=64, caption=CaptionConfig(keep_tokens=1)
        ),
        adapter=AdapterConfig(method="locon", rank=4, alpha=4.0, conv_rank=4, conv_alpha=4.0, dropout=0.1),
        optimizer=OptimizerConfig(unet_learning_rate=2e-2, text_learning_rate=1e-2, warmup=0.1),
        training=TrainingConfig(epochs=3, batch_size=3, accumulation=2),
        save=SaveConfig(precision="fp32", state_every_steps=1),
        samples=SampleConfig(prompts=("thing",), every_epochs=1),
    )
    return replace(config, **changes)


def run(tmp_path: Path, config: RunConfig, name: str = "a", control: Control | None = None) -> list[Event]:
    paths = RunPaths(tmp_path / name / "run", tmp_path / name)
    return list(train(TinyHost(tmp_path / name), config, paths, control or Control()))


def weights(events: list[Event]) -> dict[str, torch.Tensor]:
    assert isinstance(events[-1], Finished)
    return load_file(events[-1].files[-1])


def equal(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return set(one) == set(two) and all(torch.equal(one[key], two[key]) for key in one)


def test_a_run_learns_and_reports(tmp_path: Path, dataset: Path) -> None:
    config = make_config(dataset, training=TrainingConfig(epochs=60, batch_size=5), samples=SampleConfig())
    events = run(tmp_path, config)
    losses = [event.loss for event in events if isinstance(event, Progress)]
    assert len(losses) == 120 == events[-1].step
    assert np.mean(losses[-30:]) < 0.9 * np.mean(losses[:10])
    tensors = weights(events)
    assert all(tensor.abs().sum() > 0 for tensor in tensors.values())
    assert len(tensors) == 3 * (8 + 1 + 2)


def test_progress_counts_images_and_short_batches_are_kept(tmp_path: Path, dataset: Path) -> None:
    progress = [event for event in run(tmp_path, make_config(dataset)) if isinstance(event, Progress)]
    # 5 pictures × 2 = 10 exposures: batches of 3, 3, 3, 1; two batches a step: 6 and 4 images; three epochs.
    assert [event.images_seen for event in progress] == [6, 10, 16, 20, 26, 30]
    assert [event.epoch for event in progress] == [1, 1, 2, 2, 3, 3]
    assert progress[-1].total_images == 30 and progress[-1].total_steps == 6


def test_gradients_of_accumulated_batches_equal_those_of_one(tmp_path: Path) -> None:
    # One picture, since the order of several depends on how they are batched.
    folder = tmp_path / "one" / "6_x"
    folder.mkdir(parents=True)
    Image.new("RGB", (64, 64), (200, 40, 90)).save(folder / "x.png")
    (folder / "x.txt").write_text("thing", encoding="utf-8")
    adapter = AdapterConfig(rank=4, alpha=4.0)
    runs = [
        run(tmp_path, make_config(folder.parent, adapter=adapter, training=training), f"r{index}")
        for index, training in enumerate(
            (TrainingConfig(epochs=2, batch_size=6), TrainingConfig(epochs=2, batch_size=4, accumulation=2))
        )
    ]
    one, two = weights(runs[0]), weights(runs[1])
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=1e-3, atol=1e-5)


def test_the_model_is_left_as_it_was_also_after_an_exception(tmp_path: Path, dataset: Path) -> None:
    host = TinyHost(tmp_path)
    before = {key: value.clone() for key, value in host.unet.state_dict().items()}
    rng = torch.get_rng_state()
    for fail in (False, True):
        for event in (job := train(host, make_config(dataset), RunPaths(tmp_path / f"{fail}", tmp_path), Control())):
            if fail and isinstance(event, Progress):
                with pytest.raises(RuntimeError, match="from outside"):
                    job.throw(RuntimeError("from outside"))
                break
        assert host.leases == 0 and torch.equal(rng, torch.get_rng_state())
        assert equal(before, host.unet.state_dict())
        assert all("forward" not in module.__dict__ for module in host.unet.modules())


@pytest.mark.parametrize("wish", ["pause", "stop"])
@pytest.mark.parametrize("after", [1, 3, 5])
def test_a_run_that_was_halted_goes_on_bit_for_bit(tmp_path: Path, dataset: Path, wish: str, after: int) -> None:
    config = make_config(dataset)
    whole = run(tmp_path, config, "whole")
    paths = RunPaths(tmp_path / "halted" / "run", tmp_path / "halted")
    control = Control()
    halted: list[Event] = []
    for event in train(TinyHost(paths.adapters), config, paths, control):
        halted.append(event)
        if isinstance(event, Progress) and event.step == after:
            control.ask(wish)
    assert halted[-1].reason == {"pause": "paused", "stop": "stopped"}[wish] and halted[-1].step == after
    saved = [Path(event.path).stem for event in halted if isinstance(event, Saved) and event.kind == "adapter"]
    assert (f"thing-step{after:08d}" in saved) == (wish == "stop")
    rest = list(train(TinyHost(paths.adapters), config, paths, Control()))
    assert [e.step for e in rest if isinstance(e, Progress)] == list(range(after + 1, 7))
    assert equal(weights(whole), weights(rest))
    done = [e.loss_average for e in [*halted, *rest] if isinstance(e, Progress)]
    assert done == [e.loss_average for e in whole if isinstance(e, Progress)]


def test_a_closed_job_resumes_from_the_last_saved_state(tmp_path: Path, dataset: Path) -> None:
    config = make_config(dataset, save=SaveConfig(precision="fp32", state_every_steps=2))
    whole = run(tmp_path, config, "whole")
    paths = RunPaths(tmp_path / "cut" / "run", tmp_path / "cut")
    job = train(TinyHost(paths.adapters), config, paths, Control())
    for event in job:
        if isinstance(event, Progress) and event.step == 5:
            job.close()
            break
    rest = list(train(TinyHost(paths.adapters), config, paths, Control()))
    assert next(e.step for e in rest if isinstance(e, Progress)) == 5
    assert equal(weights(whole), weights(rest))


def test_a_state_is_refused_when_settings_or_pictures_changed(tmp_path: Path, dataset: Path) -> None:
    config = make_config(dataset)
    paths = RunPaths(tmp_path / "r", tmp_path / "out")
    control = Control()
    for event in train(TinyHost(tmp_path), config, paths, control):
        if isinstance(event, Progress):
            control.ask("pause")
    changed = replace(config, optimizer=replace(config.optimizer, unet_learning_rate=1e-3))
    with pytest.raises(RunConflict, match="unet_learning_rate was 0.02 and is 0.001"):
        list(train(TinyHost(tmp_path), changed, paths, Control()))
    (dataset / "2_thing" / "0.txt").write_text("other", encoding="utf-8")
    with pytest.raises(RunConflict, match="pictures"):
        list(train(TinyHost(tmp_path), config, paths, Control()))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_weights(
    tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = TinyLease.predict
    calls: Iterator[int] = iter(range(1000))

    def break_later(self: TinyLease, *arguments: object) -> torch.Tensor:
        return good(self, *arguments) * (math.nan if next(calls) >= 4 else 1)

    monkeypatch.setattr(TinyLease, "predict", break_later)
    config = make_config(dataset, samples=SampleConfig())
    host = TinyHost(tmp_path)
    with pytest.raises(NumericalError, match="step 3: the loss is nan"):
        list(train(host, config, RunPaths(tmp_path / "r", tmp_path / "out"), Control()))
    kept = load_file(tmp_path / "out" / "thing-step00000002.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in kept.values())
    assert any(tensor.abs().sum() > 0 for key, tensor in kept.items() if "lora_up" in key)


def test_files_say_what_they_are(tmp_path: Path, dataset: Path) -> None:
    import hashlib

    events = run(tmp_path, make_config(dataset))
    assert [Path(path).name for path in events[-1].files] == [
        "thing-000001.safetensors",
        "thing-000002.safetensors",
        "thing.safetensors",
    ]
    path = tmp_path / "a" / "thing.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert metadata["ss_output_name"] == "thing" and metadata["ss_base_model_version"] == "sd_v1"
    assert json.loads(metadata["ss_tag_frequency"])["2_thing"]["thing"] == 5
    assert json.loads(metadata["ss_dataset_dirs"]) == {"2_thing": {"n_repeats": 2, "img_count": 5}}
    assert json.loads(metadata["ss_bucket_info"])["buckets"]["0"] == {"resolution": [64, 64], "count": 5}
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert "[training]" in metadata["lora_trainer_config"] and metadata["ss_steps"] == "6"
    data = path.read_bytes()
    header = int.from_bytes(data[:8], "little")
    assert metadata["sshs_model_hash"] == hashlib.sha256(data[8 + header :]).hexdigest()
    card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert card["activation text"] == "thing" and card["sd version"] == "SD1" and card["preferred weight"] == 1.0
    shown = [Path(file).with_suffix(".png").read_bytes() for file in events[-1].files]
    made = [Path(event.path).read_bytes() for event in events if isinstance(event, SampleMade)]
    assert shown == made[1:]  # each file shows the adapter at its own step, none the untrained model


def test_a_second_run_of_the_same_name_leaves_the_firsts_files_alone(tmp_path: Path, dataset: Path) -> None:
    config = make_config(dataset)
    host = TinyHost(tmp_path)
    first = list(train(host, config, RunPaths(tmp_path / "1", tmp_path / "out"), Control()))
    (tmp_path / "out" / "thing.json").write_text("mine", encoding="utf-8")
    bytes_before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    second = list(train(host, config, RunPaths(tmp_path / "2", tmp_path / "out"), Control()))
    assert Path(second[-1].files[-1]).name == "thing-2.safetensors"
    assert any(isinstance(event, Note) and "thing-2" in event.text for event in second)
    assert bytes_before == {path: path.read_bytes() for path in bytes_before}
    assert equal(weights(first), weights(second)) and host.announced[-1].endswith("thing-2.safetensors")


def test_samples_come_before_the_start_and_after_each_epoch(tmp_path: Path, dataset: Path) -> None:
    made = [event for event in run(tmp_path, make_config(dataset)) if isinstance(event, SampleMade)]
    assert [event.step for event in made] == [0, 2, 4, 6]
    pictures = [Image.open(event.path) for event in made]
    assert pictures[0].info["parameters"] == "infotext"
    assert len({picture.getpixel((0, 0)) for picture in pictures}) > 1


def test_all_mistakes_come_together_before_anything_starts(tmp_path: Path, dataset: Path) -> None:
    config = make_config(
        dataset,
        name="a:b",
        optimizer=OptimizerConfig(unet_learning_rate=0.0),
        training=TrainingConfig(precision="fp16"),
    )
    host = TinyHost(tmp_path)
    with pytest.raises(ProblemsFound) as caught:
        list(train(host, config, RunPaths(tmp_path / "r", tmp_path / "o"), Control()))
    assert {problem.where for problem in caught.value.problems} == {
        "name",
        "optimizer.unet_learning_rate",
        "training.precision",
    }
    assert not (tmp_path / "r").exists() and not (tmp_path / "o").exists()
    empty = make_config(tmp_path / "nowhere")
    with pytest.raises(ProblemsFound, match="nowhere"):
        list(train(host, empty, RunPaths(tmp_path / "r", tmp_path / "o"), Control()))


def test_the_plan_says_what_the_run_then_does(tmp_path: Path, dataset: Path) -> None:
    for training in (
        TrainingConfig(epochs=3, batch_size=3, accumulation=2),
        TrainingConfig(epochs=3, batch_size=3, max_steps=7),
        TrainingConfig(epochs=1, batch_size=64),
    ):
        config = make_config(dataset, training=training)
        settled = plan(TinyHost(tmp_path), config, tmp_path)
        events = run(tmp_path, config, str(training))
        last = [event for event in events if isinstance(event, Progress)][-1]
        assert (settled.steps, settled.images, settled.epochs) == (last.step, last.images_seen, last.epoch)
        assert settled.estimate.parameters == sum(
            tensor.numel() for key, tensor in weights(events).items() if "alpha" not in key
        )
        assert settled.concepts[0].exposures == 10 and settled.buckets == {(64, 64): 5}
