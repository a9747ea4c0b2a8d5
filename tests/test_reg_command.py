"""The command `reg`: what it lists and makes, its settings, and its exit status."""

from __future__ import annotations

import argparse
import dataclasses

import pytest
import torch

from commands import runner
from lib_lora_trainer.base import codec
from lib_lora_trainer.cli import reg
from lib_lora_trainer.config.regularization import RegularizationConfig
from lib_lora_trainer.demo.run import CHECKPOINT
from reg_cases import config, contents, dataset


@pytest.fixture
def place(tmp_path):
    """The arguments that every call has: a run's settings, the bundled checkpoint, a folder, quick images."""
    root = dataset(tmp_path / "train")
    (tmp_path / "run.toml").write_text(codec.to_toml(config(root)), encoding="utf-8")
    (tmp_path / "reg.toml").write_text('sampler = "Euler"\nsteps = 9\nremove = ["smile"]\n', encoding="utf-8")
    return tmp_path


@pytest.fixture
def main(monkeypatch, capsys, place):
    """Run the command line and return its exit status, lines and errors; JSON lines are read."""
    torch.set_num_threads(1)
    settings = (place / "run.toml", "--checkpoint", CHECKPOINT, "--device", "cpu", "--out", place / "reg")
    return runner(monkeypatch, capsys, "reg", *settings)


def test_a_dry_run_lists_captions_and_makes_nothing(main, place):
    settings = ("--settings", place / "reg.toml", "--steps", "2")
    status, lines, _ = main(*settings, "--dry-run")
    assert status == 0 and not (place / "reg").exists()
    assert "train/mikori/one: make, 96×96: 1girl, red_hair" in lines
    assert "4 regularization images: 4 missing. 4 to make." in lines and lines[-1] == "note: Nothing was made."
    assert any(line.startswith("note: train/mikori: 3 images stand against 30 exposures") for line in lines)
    status, events, _ = main(
        *settings, "--dry-run", "--json", "--only", "three", "--remove", "hat*", "--remove", "1girl"
    )
    images = {event["name"]: event for event in events if event["event"] == "image"}
    assert [name for name, event in images.items() if event["make"]] == []
    assert images["train/mikori/three"]["trained"] == "1girl, mikori, hat (large)"
    assert images["train/mikori/three"]["caption"] == "" and images["train/mikori/one"]["caption"] == "red_hair, smile"
    assert events[-1]["event"] == "draft" and (events[-1]["make"], events[-1]["images"]) == (0, 3)
    assert status == 0


def test_it_makes_what_is_missing_and_makes_chosen_ones_again(main, place):
    quick = ("--sampler", "Euler", "--steps", "1", "--guidance", "2")
    status, events, _ = main(*quick, "--only", "mikori/*", "--only", "train/mikori/o*", "--json")
    assert status == 1 and "'mikori/*' is no image here" in events[-1]["error"]
    status, events, _ = main(*quick, "--only", "train/mikori/*", "--json")
    assert status == 0 and events[-1]["event"] == "finished" and len(events[-1]["files"]) == 3
    status, lines, _ = main(*quick)
    before = contents(place / "reg")
    assert status == 0 and lines[-1].startswith("done: 1 changes") and "train/other/four.png" in before
    status, events, _ = main(*quick, "--reroll", "one.png", "--reroll", "four", "--json")
    after = contents(place / "reg")
    assert status == 0 and {name for name in after if after[name] != before[name]} == {
        "train/mikori/one.png", "train/other/four.png",
    }  # fmt: skip
    assert events[-1]["step"] == 2


def test_mistakes_are_told(main, place):
    status, _, errors = main("--sampler", "Nothing")
    assert status == 1 and "regularization.sampler: 'Nothing' is not a sampler here." in errors
    assert not (place / "reg").exists()
    (place / "reg.toml").write_text("stepps = 3\n", encoding="utf-8")
    status, _, errors = main("--settings", place / "reg.toml")
    assert status == 1 and "Did you mean steps?" in errors
    (place / "reg").write_text("", encoding="utf-8")
    status, _, errors = main()
    assert status == 1 and "is a file. Choose a folder" in errors


def test_every_setting_is_an_option_or_stands_in_the_file():
    parser = argparse.ArgumentParser()
    reg.add(parser.add_subparsers())
    names = {field.name for field in dataclasses.fields(RegularizationConfig)} - {"sources"}
    values = {"prompts": "class", "per_image": "3", "seed": "4", "steps": "5", "guidance": "2.5"}
    arguments = [part for name in sorted(names) for part in (f"--{name.replace('_', '-')}", values.get(name, "x"))]
    options = parser.parse_args(["reg", "c.toml", "--checkpoint", "a", "--out", "b", *arguments])
    plain = RegularizationConfig()
    assert all(getattr(options, name) not in (None, getattr(plain, name)) for name in names)
    assert (options.per_image, options.guidance, options.remove) == (3, 2.5, ["x"])
