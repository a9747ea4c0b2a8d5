"""The command `blocks`: a dry run, an analysis on the toy checkpoint, and the search with what it offers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("diffusers")  # of which the standalone host makes its networks

from block_cases import BLOCKS, KnownStudio, additive, request
from commands import runner
from lib_lora_trainer.adapters import existing
from lib_lora_trainer.app import grid_attached
from lib_lora_trainer.base import codec
from lib_lora_trainer.config.data import DataConfig, SourceConfig
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.demo import world
from lib_lora_trainer.demo.run import CHECKPOINT, DATASET, TAGGER
from lib_lora_trainer.workshop import presets
from test_pick_command import adapter

CONFIG = RunConfig(triggers=(world.TRIGGER,), data=DataConfig(sources=(SourceConfig(str(DATASET)),)))
QUICK = ("--count", 2, "--seeds", 1, "--steps", 2, "--side", 64, "--device", "cpu", "--checkpoint", CHECKPOINT)


@pytest.fixture
def run(monkeypatch, capsys):
    return runner(monkeypatch, capsys, "blocks")


def test_a_file_is_analysed_on_the_toy_checkpoint(run, tmp_path):
    file = adapter(tmp_path / "run" / "mikori.safetensors", 1.5, {"lora_trainer_config": codec.to_toml(CONFIG)})
    usual = (file.parent, *QUICK, "--tagger", TAGGER, "--out", tmp_path / "out")
    status, lines, _ = run(*usual, "--dry-run")
    # The file has one block: on and off is all there is. The trigger alone, with a scene, and the scene without it.
    assert (
        status == 0 and "1 blocks, MID" in lines[-3] and "2 sets of 3 images, 6 images, 6 still to be made" in lines[-3]
    )
    assert not (tmp_path / "out" / "images").exists()
    status, lines, _ = run(*usual, "--json")
    assert status == 0 and lines[-1]["event"] == "blocks" and lines[-1]["blocks"] == ["MID"]
    assert sum(line["event"] == "samplemade" for line in lines) == 6
    (row,) = lines[-1]["ranking"]
    # Off it is the base model, alone it is the whole adapter.
    assert row["pixels_off"] == row["pixels_alone"] > 0 and row["drift_off"] == row["drift_alone"] > 0
    assert row["lost"] == row["brought"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "images", "scores", "blocks.json", "blocks.html", "blocks.png",
    }  # fmt: skip


@pytest.fixture
def known(monkeypatch, tmp_path):
    """Return a request about an adapter with known effects, and the arguments for it."""
    asked, studio = request(tmp_path), KnownStudio(additive)
    monkeypatch.setattr(grid_attached, "AttachedStudio", lambda open_host: studio)
    (tmp_path / "config.toml").write_text(codec.to_toml(asked.config), encoding="utf-8")
    prompts = [part for text in asked.options.prompts for part in ("--prompt", text)]
    arguments = (
        asked.file, *QUICK, *prompts, "--tagger", tmp_path / "tagger", "--out", asked.folder, "--config",
        tmp_path / "config.toml",
    )  # fmt: skip
    return asked, arguments


def test_the_smallest_set_becomes_a_preset_and_a_file(run, known, tmp_path):
    asked, arguments = known
    baked, listed = tmp_path / "small.safetensors", tmp_path / "lbwpresets.txt"
    listed.write_text("MINE:0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,1\n", encoding="utf-8")
    status, lines, _ = run(*arguments, "--preset", "FACE", "--presets", listed, "--bake", baked)
    said = "\n".join(lines)
    assert status == 0 and "IN04, MID, OUT04 (3 of 7 blocks) keeps 100%, 100% with other seeds" in said
    assert 'adapter.blocks = "0,0,0,1,0,0,0,1,0,1,0,0,0,0,0,0,0"' in said
    assert next(line for line in lines if line.startswith("IN04")).split()[1:4] == ["33%", "33%", "33%"]
    vector = presets.choose("FACE", "sd1", presets.read(listed))
    assert [block for block in BLOCKS if vector.of(block)] == ["IN04", "MID", "OUT04"]
    assert listed.read_text(encoding="utf-8").startswith("MINE:")
    before, after = existing.read(asked.file), existing.read(baked)
    assert len(before) == 2 * 7 and len(after) == 2 * 3 and set(after) <= set(before)


def test_only_what_is_asked_for_is_done(run, known):
    asked, arguments = known
    status, lines, _ = run(*arguments, "--json")
    assert status == 0 and lines[-1]["chosen"] is None
    status, lines, _ = run(*arguments, "--json", "--smallest", "--keep", 0.6)
    assert status == 0 and len(lines[-1]["chosen"]["blocks"]) == 2
    assert json.loads((asked.folder / "blocks.json").read_text(encoding="utf-8"))["chosen"] == lines[-1]["chosen"]


def test_what_adds_nothing_is_analysed_and_not_baked(run, known, monkeypatch, tmp_path):
    _, arguments = known
    monkeypatch.setattr(grid_attached, "AttachedStudio", lambda open_host: KnownStudio(lambda *_: [True] * 3))
    status, lines, _ = run(*arguments, "--smallest")
    assert status == 0 and any("nothing to keep" in line for line in lines)
    status, _, error = run(*arguments, "--bake", tmp_path / "small.safetensors")
    assert status == 1 and "no smallest set" in error and not (tmp_path / "small.safetensors").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--preset", "FACE"), "belong together"),
        (("--trigger", "nobody"), "has to bring"),
        (("--steps", 0), "too small"),
        (("--tagger", "wd-vit-tagger-v3"), "not on this machine"),
    ],
)
def test_mistakes_are_refused(run, known, more, said):
    _, arguments = known
    status, lines, error = run(*arguments, *more)
    assert status == 1 and said in error + "\n".join(lines)


def test_a_bare_folder_has_no_adapter(run, tmp_path):
    status, _, error = run(tmp_path, *QUICK, "--out", tmp_path / "out")
    assert status == 1 and "no adapter" in error
    assert not (Path(tmp_path) / "out").exists()
