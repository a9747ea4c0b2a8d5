"""The command `tag`: what it says, what it writes, and its exit status."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from commands import runner
from fake_hub import Hub, serving
from lib_lora_trainer.tagging.models import CATALOGUE
from onnx_models import tagger

NAME = "wd-vit-tagger-v3"


@pytest.fixture
def main(monkeypatch, capsys, tmp_path):
    """Run the command line and return its exit status, lines and errors; JSON lines are read."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "nothing"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return runner(monkeypatch, capsys, "tag")


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "データ"
    (root / "3_mikori").mkdir(parents=True)
    Image.new("RGB", (16, 16), (200, 220, 20)).save(root / "3_mikori" / "a.png")
    Image.new("RGB", (16, 16), (0, 180, 20)).save(root / "b.png")
    (root / "b.txt").write_text("sks", encoding="utf-8")
    return root


@pytest.fixture
def own(tmp_path):
    return tagger(tmp_path / "own tagger")


def test_captions_are_written_and_only_where_there_is_none(main, root, own):
    status, lines, _ = main(root, "--model", own, "--threshold", 0.5, "--character-threshold", 0.5, "--device", "cpu")
    assert status == 0
    assert lines[0] == "note: 1 pictures have captions, which stay as they are."
    assert lines[-2:] == ["write 3_mikori/a.txt", lines[-1]] and lines[-1].startswith("done: 1 changes")
    assert (root / "3_mikori" / "a.txt").read_text("utf-8") == "kayoko (blue archive), red hair"
    assert (root / "b.txt").read_text("utf-8") == "sks"


def test_a_dry_run_says_both_captions_and_writes_none(main, root, own):
    arguments = (root, "--model", own, "--threshold", "0.5", "--mode", "append", "--escape", "--dry-run", "--json")
    status, told, _ = main(*arguments, "--character-threshold", "0.5", "--exclude", "/red.*/")
    assert status == 0
    proposals = [each for each in told if each["event"] == "proposal"]
    assert [(each["about"], each["before"], each["after"]) for each in proposals] == [
        ("3_mikori/a.png", {"caption": ""}, {"caption": r"kayoko \(blue archive\)"}),
        ("b.png", {"caption": "sks"}, {"caption": "sks"}),
    ]
    assert told[-1]["text"] == "Tags: 1 of 2. Nothing was changed."
    assert not (root / "3_mikori" / "a.txt").exists()


def test_models_are_downloaded_only_when_that_is_asked_for(main, root, own, tmp_path, monkeypatch):
    files = {f"SmilingWolf/{NAME}/{path.name}": path.read_bytes() for path in own.iterdir()}
    with serving(Hub(files)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        status, _, error = main(root, "--model", NAME)
        assert (status, hub.asked) == (1, []) and f"{NAME}: not on this machine. Download" in error
        status, lines, error = main(root, "--model", NAME, "--download", "--threshold", "0.5", "--device", "cpu")
    assert status == 0 and (root / "3_mikori" / "a.txt").read_text("utf-8") == "red hair"
    assert f"downloading {NAME}, model.onnx, MB: 1/1" in error
    assert (tmp_path / "cache" / "sd-webui-lora-trainer" / "taggers" / NAME / "model.onnx").is_file()
    _, lines, _ = main("--list")
    assert len(lines) == len(CATALOGUE)
    assert [line for line in lines if "not here" not in line] == [line for line in lines if line.startswith(f"{NAME}:")]


def test_every_known_model_is_listed_with_what_is_known(main, own, tmp_path):
    tagger(tmp_path / "more" / f"SmilingWolf_{NAME}")
    status, told, _ = main("--list", "--look-in", tmp_path / "more", "--json")
    listed = {each["name"]: each for each in told[0]["taggers"]}
    assert status == 0 and listed.keys() == {model.name for model in CATALOGUE}
    assert listed["wd-eva02-large-tagger-v3"]["general"] == 0.5296
    assert [name for name, each in listed.items() if each["path"]] == [NAME]


def test_a_source_of_a_config_is_tagged_as_the_config_reads_captions(main, root, own, tmp_path):
    config = tmp_path / "run.toml"
    text = f'name = "toy"\n[[data.sources]]\npath = {json.dumps(str(root))}\n[data.caption]\nextensions = [".tags"]\n'
    config.write_text(text, encoding="utf-8")
    status, _, _ = main(root, "--config", config, "--model", own, "--threshold", "0.5", "--device", "cpu")
    assert status == 0 and (root / "b.tags").read_text("utf-8") == "red hair"
    status, _, error = main(tmp_path, "--config", config, "--model", own)
    assert status == 1 and "is no source of" in error


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--model", "wd-vit-tager"), "neither a known tagger nor a folder"),
        (("--threshold", "2"), "general_threshold: 2.0 is too large"),
        (("--replace", "x"), "replace[0]"),
    ],
)
def test_mistakes_are_said_with_status_1(main, root, arguments, text):
    status, _, error = main(root, *arguments)
    assert status == 1 and text in error


def test_a_folder_is_needed(main):
    status, _, error = main("--model", NAME)
    assert status == 1 and "FOLDER: is missing" in error
