"""Picking on the toy checkpoint: adapters made here are tried, stopped, resumed, and reported; the model stays as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers")  # of which the standalone host makes its networks

from host_contract import hash_tensors
from lib_lora_trainer.adapters import files, methods
from lib_lora_trainer.adapters.targets import assign
from lib_lora_trainer.app import pick_dataset, pick_jobs
from lib_lora_trainer.app.pick_jobs import Draft, Picked, PickRequest
from lib_lora_trainer.base import codec
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError, DataError, ProblemsFound
from lib_lora_trainer.base.events import Finished, Note, Phase, Planned, SampleMade
from lib_lora_trainer.config.adapter import AdapterConfig
from lib_lora_trainer.config.data import DataConfig, SourceConfig
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.demo import world
from lib_lora_trainer.demo.run import CHECKPOINT, DATASET, TAGGER
from lib_lora_trainer.evaluate.pick_options import PickOptions
from lib_lora_trainer.hosts.api import Needs
from lib_lora_trainer.hosts.standalone import StandaloneHost
from lib_lora_trainer.save import weights
from lib_lora_trainer.tagging.models import in_folder

CONFIG = RunConfig(triggers=(world.TRIGGER,), data=DataConfig(sources=(SourceConfig(str(DATASET)),)))
SHORT = PickOptions(weights=(0.5, 1.0), images=2, steps=4, guidance=5.0, side=128)


@pytest.fixture(scope="module")
def host(tmp_path_factory) -> StandaloneHost:
    return StandaloneHost(CHECKPOINT, tmp_path_factory.mktemp("adapters"), device="cpu")


def write_adapter(host: StandaloneHost, path: Path, noise: float, step: int) -> Path:
    """Write a LoRA whose weights are off by random numbers of a size; 0 does nothing."""
    config = AdapterConfig(rank=2, alpha=2.0)
    generator = torch.Generator().manual_seed(2)
    with host.lease(Needs()) as lease:
        targets = [target for target in lease.targets() if target.layer.part == "unet"]
        assigned = assign([target.layer for target in targets], config, "sd1")
        adapters = {
            t.layer: methods.build(t, assigned[t.layer], config, seed=1) for t in targets if t.layer in assigned
        }
        for adapter in adapters.values():
            for parameter in adapter.parameters():
                parameter.data += noise * torch.randn(parameter.shape, generator=generator)
        about = {"ss_steps": str(step), "ss_epoch": str(step // 10), "lora_trainer_config": codec.to_toml(CONFIG)}
        weights.write(path, files.to_tensors(adapters, "sd1", torch.float32), about)
    return path


@pytest.fixture(scope="module")
def run(host, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_adapter(host, folder / "mikori.safetensors", 0.5, 20)
    write_adapter(host, folder / "mikori-000001.safetensors", 0.0, 10)
    return folder


def request(run: Path, out: Path, **changes) -> PickRequest:
    tagger = in_folder(TAGGER)
    assert tagger is not None
    return replace(PickRequest(pick_dataset.files_of((run,)), CONFIG, tagger, out, options=SHORT), **changes)


def test_a_trial_in_one_go_and_one_that_went_on_agree(host, run, tmp_path):
    before, state = hash_tensors(host.load().modules.all()), torch.get_rng_state()
    whole = request(run, tmp_path / "whole")
    *events, picked = pick_jobs.pick(host, whole, Control())
    assert isinstance(picked, Picked)
    planned = next(event for event in events if isinstance(event, Planned))
    made = [event for event in events if isinstance(event, SampleMade)]
    # The base model and 2 files × 2 weights; the trigger alone, in a scene, and the scene alone, two images each.
    assert planned.total_images == len(made) == 5 * 6
    assert "aqua hair" in "".join(planned.lines)
    assert [event.done for event in events if isinstance(event, Phase) if event.total == 30] == list(range(31))
    assert any(isinstance(event, Note) and event.text.startswith("About") for event in events)
    assert hash_tensors(host.load().modules.all()) == before and torch.equal(torch.get_rng_state(), state)

    # What an adapter of zeros makes is the base model's, at any weight, and the one of noise is seen to spoil images.
    cells = picked.trial.cells
    assert [(each.label, each.weight) for each in cells] == [
        ("mikori-000001", 0.5), ("mikori-000001", 1.0), ("mikori", 0.5), ("mikori", 1.0),
    ]  # fmt: skip
    assert cells[0].change == cells[1].change == 0 < cells[2].change < cells[3].change
    assert picked.verdict.length != "no-effect"

    # Stopped after some images, and begun anew: the same report, from the images that were missing only.
    control, again = Control(), request(run, tmp_path / "again")
    early = []
    for event in pick_jobs.pick(host, again, control):
        early.append(event)
        if isinstance(event, SampleMade) and sum(isinstance(each, SampleMade) for each in early) == 14:
            control.ask("stop")
    assert isinstance(early[-1], Finished) and early[-1].reason == "stopped"
    assert hash_tensors(host.load().modules.all()) == before
    (kept,) = {path.parent for path in (tmp_path / "again").rglob("*.png")}
    assert len(list(kept.iterdir())) == 14
    kept.joinpath(Path(made[3].path).name).write_bytes(b"damaged")
    *events, picked_again = pick_jobs.pick(host, again, Control())
    assert sum(isinstance(event, SampleMade) for event in events) == 30 - 14 + 1
    assert json.loads(picked_again.report.read_text()) == json.loads(picked.report.read_text())

    # The page needs no other file, and the report names images that are there.
    page = picked.page.read_text(encoding="utf-8")
    assert page.count("<svg") == 2 and "data:image/jpeg;base64" in page and 'src="images' not in page
    report = json.loads(picked.report.read_text(encoding="utf-8"))
    assert all((picked.report.parent / each["file"]).is_file() for cell in report["cells"] for each in cell["images"])
    assert set(report["triggers"][0]["traits"]) == set(world.CHARACTER_TRAITS)

    # Other settings are other images; looking alone makes none.
    *_, made_draft = pick_jobs.draft(host, whole, Control())
    assert isinstance(made_draft, Draft) and made_draft.missing == 0
    *_, other = pick_jobs.draft(host, replace(whole, options=replace(SHORT, seed=5)), Control())
    assert other.missing == 30


def test_closing_in_the_middle_gives_the_model_back(host, run, tmp_path):
    before = hash_tensors(host.load().modules.all())
    events = pick_jobs.pick(host, request(run, tmp_path), Control())
    count = 0
    for event in events:
        count += isinstance(event, SampleMade)
        if count == 9:  # an adapter is attached
            break
    events.close()
    assert hash_tensors(host.load().modules.all()) == before
    with host.lease(Needs()) as lease:
        assert not any("forward" in target.module.__dict__ for target in lease.targets())


def test_a_runs_folder_its_files_and_its_settings_are_found(host, run, tmp_path):
    found = pick_dataset.files_of((run,))
    assert [path.name for path in found] == ["mikori-000001.safetensors", "mikori.safetensors"]
    assert pick_dataset.config_of(found) == CONFIG
    beside = run / "mikori.run"
    beside.mkdir()
    (beside / "run.json").write_text(json.dumps({"stem": "mikori", "session": "1", "started": 0.0}))
    (run / "mikori-2.safetensors").write_bytes(b"another run's")
    assert pick_dataset.files_of((beside,)) == found
    (run / "mikori-2.safetensors").unlink()
    with pytest.raises(ConfigError, match="no adapter"):
        pick_dataset.files_of((tmp_path,))
    with pytest.raises(DataError, match="no such file"):
        pick_dataset.files_of((tmp_path / "none",))


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"options": replace(SHORT, weights=(0.0,))}, ProblemsFound, "too small"),
        ({"options": replace(SHORT, weights=())}, ProblemsFound, "there is none"),
        ({"options": replace(SHORT, sampler="none")}, ConfigError, "'none'"),
        ({"files": ()}, ConfigError, "no adapter"),
        ({"config": replace(CONFIG, triggers=())}, ProblemsFound, "call the adapter"),
        ({"config": replace(CONFIG, triggers=("nobody",))}, ProblemsFound, "has to bring"),
        ({"traits": ("green skin",)}, ProblemsFound, "does not know green skin"),
        ({"config": RunConfig(triggers=("mikori",))}, ConfigError, "no pictures"),
    ],
)
def test_impossible_requests_are_refused_before_any_image(host, run, tmp_path, changes, kind, said):
    with pytest.raises(kind, match=said):
        list(pick_jobs.pick(host, request(run, tmp_path, **changes), Control()))
    assert not list(tmp_path.rglob("*.png"))
