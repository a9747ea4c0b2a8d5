"""Grids on the toy checkpoint: cells are the host's own images, made once, in any number of goes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dying_files import in_child
from grid_cases import QUICK, studio, toy_host, write_adapter
from lib_lora_trainer.adapters import existing, files
from lib_lora_trainer.adapters.attach import Attachment
from lib_lora_trainer.app import baking, grid_jobs, grid_saves
from lib_lora_trainer.app.grid_attached import request_of, worn_by
from lib_lora_trainer.app.grid_jobs import CELLS, FACTS, Request
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError, ProblemsFound
from lib_lora_trainer.base.events import Finished, Phase, SampleMade
from lib_lora_trainer.demo.run import CHECKPOINT
from lib_lora_trainer.evaluate import grid_axes
from lib_lora_trainer.evaluate.grid import NONE, Axis
from lib_lora_trainer.hosts.api import Needs

VECTOR = "0.5,0.3,0,1,-0.7,0.25,1.5,0.5,0,0.75,1,0.5,0,0.1,0.2,0.3,2"


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    write_adapter(toy_host(), folder / "cat-000001.safetensors")
    write_adapter(toy_host(), folder / "cat-000002.safetensors", size=0.3)
    return folder


@pytest.fixture
def request_(adapters, tmp_path):
    axes = (Axis("weight", ("0.5", "1", "0")), Axis("epoch", ("1", "2")))
    return Request(replace(QUICK, adapter=str(adapters / "cat-000002.safetensors"), axes=axes), tmp_path / "grid")


def made(request: Request, control: Control | None = None) -> list:
    return list(grid_jobs.run(studio(), request, control or Control()))


def images(request: Request) -> dict[tuple[int, ...], np.ndarray]:
    found = grid_jobs.draft(studio(), request)
    return {place: pixels(found.path(scene)) for place, scene in found.grid.scenes.items()}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=np.int32)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def by_host(scene, file: str | None, strength: float = 1.0) -> np.ndarray:
    """Return the host's own image with an adapter attached as in training."""
    with toy_host().lease(Needs()) as lease:
        found = files.from_tensors(existing.read(Path(file)), lease.targets(), "sd1") if file else {}
        attachment = Attachment(lease.targets(), {layer: each.eval() for layer, each in found.items()})
        with attachment, attachment.at_strength(strength):
            (image,) = lease.generate([request_of(scene)])
            return np.asarray(image.image, dtype=np.int32)


def test_cells_are_the_hosts_images_and_equal_ones_are_one(request_, adapters):
    events = made(request_)
    assert isinstance(events[-1], Finished) and events[-1].reason == "done" and events[-1].step == 5
    assert len([event for event in events if isinstance(event, SampleMade)]) == 5
    assert [event.done for event in events if isinstance(event, Phase)] == [0, 1, 2, 3, 4, 5]
    found = images(request_)
    plain = grid_axes.base(replace(request_.config, adapter=""))
    assert np.array_equal(found[2, 0, 0, 0], found[2, 1, 0, 0])
    assert np.array_equal(found[2, 0, 0, 0], by_host(plain, None))
    first, second = (str(adapters / f"cat-00000{number}.safetensors") for number in (1, 2))
    assert np.array_equal(found[1, 0, 0, 0], by_host(plain, first))
    assert np.array_equal(found[0, 1, 0, 0], by_host(plain, second, 0.5))
    different = [found[place] for place in ((0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (1, 1, 0, 0), (2, 0, 0, 0))]
    assert min(np.abs(a - b).max() for i, a in enumerate(different) for b in different[:i]) > 2


def test_cells_say_what_they_are_made_from(request_):
    made(request_)
    draft = grid_jobs.draft(studio(), request_)
    with Image.open(draft.path(draft.grid.scenes[0, 1, 0, 0])) as image:
        assert image.text["parameters"].startswith("1girl, smile <lora:cat-000002:0.5>\nSteps: 2, Sampler: Euler")
        facts = json.loads(image.text[FACTS])
    assert facts["adapter"]["unet"] == 0.5 and facts["made_by"]["host"] == "standalone"
    assert not [text for text in (json.dumps(facts),) if str(request_.folder.parent) in text]


def test_nothing_is_made_again_and_what_changed_is(request_, adapters):
    made(request_)
    before = contents(request_.folder)
    events = made(request_)
    assert events[-1].step == 0 and contents(request_.folder) == before
    wider = replace(request_.config, axes=(Axis("weight", ("0.5", "1", "0", "1.5")), request_.config.axes[1]))
    assert made(replace(request_, config=wider))[-1].step == 2
    cell = grid_jobs.draft(studio(), request_).path(grid_jobs.draft(studio(), request_).grid.scenes[0, 0, 0, 0])
    cell.write_bytes(cell.read_bytes()[:500])
    assert made(request_)[-1].step == 1
    assert contents(request_.folder)["sheet-01.png"] == before["sheet-01.png"]


def test_an_adapter_written_anew_is_another_one(request_, adapters, tmp_path):
    copied = Path(shutil.copytree(adapters, tmp_path / "copied"))
    moved = replace(request_, config=replace(request_.config, adapter=str(copied / "cat-000002.safetensors")))
    made(request_)
    assert made(moved)[-1].step == 0
    write_adapter(toy_host(), copied / "cat-000002.safetensors", size=0.1)
    assert made(moved)[-1].step == 2


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_killed_grid_goes_on_to_the_same_bytes(request_, tmp_path):
    whole = replace(request_, folder=tmp_path / "whole")
    made(whole)

    def dying(count):
        left = iter(range(count - 1, -1, -1))

        def die_at_last(handle):
            if next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        os.fsync = die_at_last
        made(request_)

    for count in (1, 3, 2):
        assert in_child(lambda count=count: dying(count)) == -signal.SIGKILL
    there = contents(request_.folder)
    assert 0 < len([name for name in there if name.startswith(f"{CELLS}/")]) < 5 + 1
    assert made(request_)[-1].step > 0
    assert contents(request_.folder) == contents(whole.folder)


def test_a_stopped_grid_shows_what_there_is_and_goes_on(request_, tmp_path):
    made(replace(request_, folder=tmp_path / "whole"))
    control = Control()
    events = []
    for event in grid_jobs.run(studio(), request_, control):
        events.append(event)
        if isinstance(event, SampleMade) and event.step == 2:
            control.ask("stop")
    assert events[-1].reason == "stopped" and events[-1].step == 2
    assert "3 of 5 images are still to be made. Start again to go on." in [getattr(e, "text", "") for e in events]
    assert (request_.folder / "sheet-01.png").is_file() and (request_.folder / "grid.html").is_file()
    assert made(request_)[-1].step == 3
    assert contents(request_.folder) == contents(tmp_path / "whole")


@pytest.mark.parametrize("method", ["lora", "loha", "lokr", "glora", "full", "dora", "oft"])
def test_block_weights_are_the_baked_file(method, tmp_path):
    options = {"method": "locon", "weight_decompose": True} if method == "dora" else {"method": method}
    file = write_adapter(toy_host(), tmp_path / "cat.safetensors", size=0.1, **{**options, "rank": 4})
    out = tmp_path / "baked.safetensors"
    list(baking.run(baking.plan(baking.Request(Path(file), out, VECTOR, unet=0.8, text=0.4)), toy_host()))
    config = replace(QUICK, adapter=file, blocks=VECTOR, weight=0.8, text_weight=0.4)
    request = Request(replace(config, axes=(Axis("blocks", (VECTOR, "ALL")),)), tmp_path / "grid")
    made(request)
    found = images(request)
    plain = grid_axes.base(replace(QUICK, adapter=""))
    baked = by_host(plain, str(out))
    assert np.abs(found[0, 0, 0, 0] - baked).max() <= 2
    assert np.abs(found[0, 0, 0, 0] - found[1, 0, 0, 0]).max() > 2


def test_two_adapters_act_together_and_leave_nothing(adapters):
    first, second = (adapters / f"cat-00000{number}.safetensors" for number in (1, 2))
    with toy_host().lease(Needs()) as lease:
        targets = lease.targets()
        sets = [files.from_tensors(existing.read(path), targets, "sd1") for path in (first, second)]
        target = next(each for each in targets if each.layer.path.endswith("attn2.to_q"))
        module, inputs = target.module, _inputs(target)
        plain = module(inputs)
        alone = []
        for found in sets:
            with Attachment(targets, {target.layer: found[target.layer].eval()}):
                alone.append(module(inputs) - plain)
        acting = {
            target.layer: [(found[target.layer].eval(), ratio) for found, ratio in zip(sets, (0.5, 2.0), strict=True)]
        }
        with worn_by(targets, acting):
            both = module(inputs)
        assert np.allclose((plain + 0.5 * alone[0] + 2 * alone[1]).detach(), both.detach(), atol=1e-5)
        assert "forward" not in module.__dict__ and bool((module(inputs) == plain).all())


def _inputs(target):
    import torch

    return torch.randn(2, 5, target.layer.inputs, generator=torch.Generator().manual_seed(1))


def test_equal_block_weights_are_one_image(adapters, tmp_path):
    axes = (Axis("blocks", ("ALL", ",".join("1" * 17), "MIDD", "R" + ",1" * 16)), Axis("block", ("MID", "NOT MID")))
    config = replace(QUICK, adapter=str(adapters / "cat-000001.safetensors"), axes=axes[:1], seeds=(1, 2))
    draft = grid_jobs.draft(studio(), Request(config, tmp_path))
    assert len(draft.grid.scenes) == 8 and len(draft.grid.todo) == 6
    whole = replace(config, axes=(Axis("blocks", (",".join("1" * 26),)),), seeds=(1,))
    (plain,) = grid_jobs.draft(studio(), Request(whole, tmp_path)).grid.todo
    assert plain.adapter.blocks == ""
    drawn = [draft.grid.scenes[3, 0, 0, seed].adapter.blocks for seed in (0, 1)]
    assert drawn[0] != drawn[1] and float(drawn[0].split(",")[0]) < 1
    single = replace(config, axes=axes[1:], block_value=0.25, seeds=(1,))
    weights = [
        scene.adapter.blocks.split(",")
        for _, scene in sorted(grid_jobs.draft(studio(), Request(single, tmp_path)).grid.scenes.items())
    ]
    assert weights[0] == ["1"] * 13 + ["0.25"] + ["1"] * 12
    assert weights[1] == ["0.25"] * 13 + ["1"] + ["0.25"] * 12


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"axes": (Axis("vae", ("soft.pt",)),)}, "vae: 'soft.pt': this host cannot change the VAE"),
        ({"axes": (Axis("hires", ("2",)),)}, "hires: this host has no hires pass"),
        ({"axes": (Axis("sampler", ("Euler", "Nothing")),)}, "sampler: 'Nothing' is not a sampler here"),
        ({"scheduler": "Karras"}, "'Euler Karras' is not a sampler here"),
        ({"axes": (Axis("size", ("100x64",)),)}, "size: 100x64 cannot be made"),
        ({"axes": (Axis("checkpoint", ("/nowhere/x.safetensors",)),)}, "checkpoint: .*nowhere"),
        ({"axes": (Axis("epoch", ("1", "9")),)}, "cat-000009.safetensors does not exist. There are cat-000001"),
        ({"prompt": "1girl <lora:other:1>"}, "<lora:other:1> has no effect here"),
        ({"second": "/nowhere.safetensors"}, "/nowhere.safetensors does not exist"),
        ({"steps": 0}, "steps: 0 is too small"),
        ({"adapter": str(CHECKPOINT)}, "of its layers are not in this sd1 model"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_said_before_anything_is_made(request_, changes, said):
    request = replace(request_, config=replace(request_.config, **{"axes": (), **changes}))
    with pytest.raises(ProblemsFound, match=said):
        made(request)
    assert not request.folder.exists()


def test_block_weights_that_are_none_are_said(request_):
    with pytest.raises(ConfigError, match="Did you mean OUTALL"):
        made(replace(request_, config=replace(request_.config, blocks="OUTAL")))
    with pytest.raises(ConfigError, match="there is no file /nowhere/presets.txt"):
        made(replace(request_, config=replace(request_.config, presets="/nowhere/presets.txt")))


def test_other_checkpoints_take_turns(request_, adapters, tmp_path):
    other = Path(shutil.copy(CHECKPOINT, tmp_path / "other.safetensors"))
    if CHECKPOINT.with_suffix(".yaml").is_file():
        shutil.copy(CHECKPOINT.with_suffix(".yaml"), other.with_suffix(".yaml"))
    config = replace(request_.config, axes=(Axis("checkpoint", (str(other), "")), Axis("adapter", (NONE,))))
    request = replace(request_, config=config)
    # A copy of a checkpoint is the same model, and so the same image.
    assert made(request)[-1].step == 1
    draft = grid_jobs.draft(studio(), request)
    assert draft.keys[draft.grid.scenes[0, 0, 0, 0]] == draft.keys[draft.grid.scenes[1, 0, 0, 0]]


def test_saves_of_a_run_are_found(adapters, tmp_path):
    names = ("dog", "dog-000001", "dog-000010", "dog-000002", "dog-rank4", "cat-000001")
    for name in names:
        shutil.copy(adapters / "cat-000001.safetensors", tmp_path / f"{name}.safetensors")
    (tmp_path / "dog.run").mkdir()
    (tmp_path / "dog.run" / "run.json").write_text('{"stem": "dog", "session": "1", "started": 1.0}')
    found = grid_saves.find(tmp_path / "dog.run")
    assert [Path(path).stem for path in found] == ["dog-000001", "dog-000002", "dog-000010", "dog"]
    assert grid_saves.find(tmp_path / "dog-000002.safetensors") == found
    with pytest.raises(ConfigError, match="holds files of 2 runs, cat, dog"):
        grid_saves.find(tmp_path)
    with pytest.raises(ConfigError, match="Give the prompt"):
        grid_saves.prompt_for(tmp_path / "dog.run", found)
    (tmp_path / "dog.json").write_text('{"activation text": "dogchan, 1girl"}')
    assert grid_saves.prompt_for(tmp_path / "dog.run", found) == "dogchan, 1girl"
