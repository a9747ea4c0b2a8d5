"""The command `grid`: settings, ready-made grids, what it says, and its exit status."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from commands import runner
from grid_cases import toy_host, write_adapter
from lib_lora_trainer.demo.run import CHECKPOINT

SETTINGS = 'prompt = "1girl"\nsteps = 1\nguidance = 1.0\nwidth = 64\nheight = 64\nsampler = "Euler"\n'


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    first = write_adapter(toy_host(), folder / "cat-000001.safetensors")
    for stem in ("cat-000002", "cat", "dog-000001", "dog"):
        shutil.copy(first, folder / f"{stem}.safetensors")
    for stem in ("cat", "dog"):
        (folder / f"{stem}.run").mkdir()
        (folder / f"{stem}.run" / "run.json").write_text(json.dumps({"stem": stem, "session": "1", "started": 1.0}))
    (folder / "cat.json").write_text('{"activation text": "mikori"}', encoding="utf-8")
    return folder


@pytest.fixture
def main(monkeypatch, capsys, tmp_path):
    """Run the command line and return its exit status, lines and errors; JSON lines are read."""
    torch.set_num_threads(1)
    return runner(monkeypatch, capsys, "grid", "--checkpoint", CHECKPOINT, "--device", "cpu", "--out", tmp_path / "grid")


@pytest.fixture
def settings(tmp_path, adapters):
    path = tmp_path / "grid.toml"
    axes = '[[axes]]\nkind = "weight"\nvalues = ["0.5", "0"]\n'
    path.write_text(f"{SETTINGS}adapter = {json.dumps(str(adapters / 'cat.safetensors'))}\n{axes}", encoding="utf-8")
    return path


def test_a_grid_is_made_and_made_once(main, settings, tmp_path):
    status, lines, _ = main(settings, "--dry-run")
    assert status == 0 and not (tmp_path / "grid").exists()
    assert lines == [
        "make seed 1: 1girl <lora:cat:0.5>",
        "make seed 1: 1girl",
        "2 columns: Weight, Weight 0.5, Weight 0",
        "2 cells, 2 different images, 2 to make.",
        "Nothing was made.",
    ]
    status, lines, _ = main(settings)
    assert status == 0 and lines[-3].startswith("done: 2 images")
    assert [Path(line.removeprefix("wrote ")).name for line in lines[-2:]] == ["sheet-01.png", "grid.html"]
    status, events, _ = main(settings, "--json")
    assert status == 0 and events[-1]["event"] == "finished" and events[-1]["step"] == 0
    status, events, _ = main(settings, "--json", "--dry-run", "--prompt", "1boy")
    assert [event["event"] for event in events] == ["image", "image", "draft"]
    assert events[0]["prompt"] == "1boy" and events[0]["adapter"]["tag"] == "<lora:cat:0.5>"
    assert events[-1]["make"] == 2 and events[-1]["cells"] == 2


@pytest.mark.parametrize(
    ("preset", "cells", "lines"),
    [
        (("last-epochs", "cat.run"), 21, ["7 columns: Weight", "3 rows: Adapter, cat-000001, cat-000002, cat"]),
        (("presets", "cat.run"), 27, ["9 columns: Block weights, NONE", "3 rows: Weight"]),
        (("transfer", "cat.safetensors", CHECKPOINT), 6, ["3 columns: Weight", "2 rows: Checkpoint"]),
        (("progress", "cat.run", "dog.run"), 2, ["1 columns: Epoch, Epoch 1", "2 rows: Adapter, cat, dog"]),
        (("combination", "cat.run", "dog.run"), 12, ["3 columns: Weight", "4 rows: Weight of the second adapter"]),
        (("with-and-without", "cat-000001.safetensors"), 2, ["2 columns: Adapter, no adapter, cat-000001"]),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_ready_made_grids_need_a_run_alone(main, adapters, tmp_path, preset, cells, lines):
    (tmp_path / "plain.toml").write_text(SETTINGS.partition("\n")[2], encoding="utf-8")
    name, *paths = preset
    places = [adapters / path for path in paths]
    status, events, _ = main(tmp_path / "plain.toml", "--dry-run", "--json", "--preset", name, *places)
    draft = events[-1]
    assert status == 0 and draft["cells"] == cells and events[0]["prompt"] == "mikori"
    assert all(any(said.startswith(line) for said in draft["lines"]) for line in lines), draft["lines"]


def test_mistakes_are_told(main, adapters, settings, tmp_path):
    status, _, error = main()
    assert status == 1 and "Name a GRID.toml, or a ready-made grid with --preset" in error
    status, _, error = main("--preset", "lastepochs", adapters / "cat.run")
    assert status == 1 and "Choose one of: last-epochs, presets" in error
    status, _, error = main("--preset", "progress", adapters / "cat.run")
    assert status == 1 and "--preset progress: needs two runs, 1 paths were given" in error
    status, _, error = main("--preset", "last-epochs", tmp_path / "nowhere")
    assert status == 1 and "no adapter of a run is there" in error
    settings.write_text(settings.read_text().replace("weight", "vae"), encoding="utf-8")
    status, events, _ = main(settings, "--json")
    assert status == 1 and events[-1]["problems"][0]["where"] == "vae"
    (tmp_path / "grid").write_text("in the way")
    status, _, error = main(settings)
    assert status == 1 and "is a file. Choose a folder for the grid" in error
