"""The command `pick`, as its own parser runs it: a dry run, a trial in words and in JSON, and what it refuses."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers")  # of which the standalone host makes its networks

from lib_lora_trainer.base import codec
from lib_lora_trainer.base.errors import ConfigError, UserError
from lib_lora_trainer.cli import pick
from lib_lora_trainer.config.data import DataConfig, SourceConfig
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.demo import world
from lib_lora_trainer.demo.run import CHECKPOINT, DATASET, TAGGER
from lib_lora_trainer.evaluate.pick_options import PickOptions
from lib_lora_trainer.save import weights

CONFIG = RunConfig(triggers=(world.TRIGGER,), data=DataConfig(sources=(SourceConfig(str(DATASET)),)))
LAYER = "lora_unet_mid_block_attentions_0_proj_in"
QUICK = ("--images", "2", "--steps", "2", "--side", "64", "--weights", "1")


def adapter(path: Path, size: float, about: dict[str, str]) -> Path:
    """Write a LoRA of one layer; its size is looked up in the checkpoint of the toy world."""
    from safetensors import safe_open

    name = "model.diffusion_model.middle_block.1.proj_in.weight"
    with safe_open(str(CHECKPOINT), framework="pt") as file:
        outputs, inputs = file.get_slice(name).get_shape()[:2]
    random = torch.Generator().manual_seed(1)
    tensors = {
        f"{LAYER}.lora_down.weight": size * torch.randn(1, inputs, 1, 1, generator=random),
        f"{LAYER}.lora_up.weight": size * torch.randn(outputs, 1, 1, 1, generator=random),
        f"{LAYER}.alpha": torch.tensor(1.0),
    }
    weights.write(path, tensors, about)
    return path


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    pick.add(parser.add_subparsers(required=True))
    options = parser.parse_args(["pick", *map(str, arguments)])
    return options.run(options)


@pytest.fixture
def folder(tmp_path) -> Path:
    place = tmp_path / "run"
    place.mkdir()
    about = {"ss_steps": "10", "ss_epoch": "1", "lora_trainer_config": codec.to_toml(CONFIG)}
    adapter(place / "mikori.safetensors", 1.5, about)
    return place


def usual(folder: Path, out: Path) -> tuple[object, ...]:
    return (folder, "--checkpoint", CHECKPOINT, "--tagger", TAGGER, "--out", out, "--device", "cpu", *QUICK)


def test_a_dry_run_says_what_would_be_tried_and_makes_nothing(folder, tmp_path, capsys):
    assert run(*usual(folder, tmp_path / "out"), "--dry-run") == 0
    said = capsys.readouterr().out
    assert "2 cells of 6 images, 12 still to be made" in said and "mikori has to bring" in said
    assert not list((tmp_path / "out").rglob("*.png"))


def test_a_trial_in_json_then_in_words_from_what_is_kept(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(*usual(folder, out), "--json", "--trait", "horns") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sum(line["event"] == "samplemade" for line in lines) == 12
    assert lines[-1]["event"] == "picked" and list(lines[-1]["triggers"][0]["traits"]) == ["horns"]
    assert [cell["file"] for cell in lines[-1]["cells"]] == ["mikori"]
    assert {path.name for path in out.iterdir()} == {"images", "scores", "report.json", "report.html"}
    assert run(*usual(folder, out), "--trait", "horns") == 0
    said = capsys.readouterr().out
    assert "0 still to be made" in said and "mikori at weight 1" in said
    assert lines[-1]["why"][0] in said


def test_the_settings_come_from_a_file_where_the_adapter_does_not_say_them(tmp_path, capsys):
    folder = tmp_path / "run"
    folder.mkdir()
    adapter(folder / "other.safetensors", 0.1, {})
    with pytest.raises(ConfigError, match=r"--config CONFIG\.toml"):
        run(*usual(folder, tmp_path / "out"), "--dry-run")
    settings = tmp_path / "config.toml"
    settings.write_text(codec.to_toml(replace(CONFIG, triggers=())), encoding="utf-8")
    assert run(*usual(folder, tmp_path / "out"), "--dry-run", "--config", settings, "--trigger", "mikori") == 0
    assert "mikori has to bring" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "kind", "said"),
    [
        (("--weights", "much"), ConfigError, "no list of numbers"),
        (("--tagger", "wd-vit-tagger-v3"), UserError, "not on this machine"),
        (("--before", "empty"), ConfigError, "has no captions"),
    ],
)
def test_mistakes_are_refused(folder, tmp_path, more, kind, said):
    with pytest.raises(kind, match=said):
        run(*usual(folder, tmp_path / "out"), "--dry-run", *more)


def test_the_options_are_those_of_the_trial():
    names = set(PickOptions.__dataclass_fields__) - {"weights"}
    assert set(pick.TRYING) == names
