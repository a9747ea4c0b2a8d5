"""The command `captions`, as somebody types it."""

from __future__ import annotations

import argparse
import json

import pytest

from lib_lora_trainer.base.errors import ConfigError, DataError, ProblemsFound
from lib_lora_trainer.captions.edits import EDITS
from lib_lora_trainer.captions.query import QueryError
from lib_lora_trainer.cli import captions
from tool_cases import picture


def run(*arguments):
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser()
    captions.add(parser.add_subparsers())
    options = parser.parse_args(["captions", *map(str, arguments)])
    return options.run(options)


def told(capsys):
    """Return what was said as JSON objects."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture
def folder(tmp_path):
    """Return a folder with two pictures."""
    picture(tmp_path / "10_a/one.png", caption="1girl, shirt, white_shirt")
    picture(tmp_path / "10_a/two.png", caption="1girl, highres")
    return tmp_path


def texts(folder):
    """Return both captions."""
    return [(folder / f"10_a/{name}.txt").read_text(encoding="utf-8") for name in ("one", "two")]


def test_stats(folder, capsys):
    assert run("stats", folder) == 0
    out = capsys.readouterr().out
    assert "2 captions (0 empty, 0 with sentences), 4 tags, 2.5 per caption, at most 3; 3 tags occur once" in out
    assert "1girl: 2" in out
    assert run("stats", folder, "--json", "--where", "highres") == 0
    (content,) = told(capsys)
    assert content["summary"]["captions"] == 1
    assert [row["tag"] for row in content["tags"]] == ["1girl", "highres"]
    assert run("stats", folder, "--json", "--with", "shirt") == 0
    assert told(capsys)[0]["tags"] == {"1girl": 1, "white shirt": 1}


def test_edit_dry_run_apply_undo_redo(folder, capsys):
    before = texts(folder)
    assert run("edit", "add", folder, "--tags", "mona", "--dry-run") == 0
    out = capsys.readouterr().out
    assert "- 1girl, highres\n+ mona, 1girl, highres\n" in out
    assert "mona: 0 captions lose it, 2 get it" in out
    assert "Nothing was changed" in out
    assert texts(folder) == before
    assert run("edit", "add", folder, "--tags", "mona", "--where", "NOT highres") == 0
    assert texts(folder) == ["mona, 1girl, shirt, white_shirt", before[1]]
    assert run("undo", folder, "--dry-run") == 0
    assert "undo: Add tags: 1 of 1" in capsys.readouterr().out
    assert run("undo", folder) == 0
    assert texts(folder) == before
    assert run("redo", folder) == 0
    assert texts(folder)[0].startswith("mona")


def test_edit_in_json(folder, capsys):
    assert (
        run("edit", "remove", folder, "--find", "*shirt", "--how", "wildcard", "--json", "--only", "10_a/one.png") == 0
    )
    (proposal,) = [line for line in told(capsys) if line["event"] == "proposal"]
    assert proposal["before"] == {"caption": "1girl, shirt, white_shirt"}
    assert proposal["after"] == {"caption": "1girl"}


def test_every_edit_is_a_command_with_its_options(folder):
    for name in EDITS:
        with pytest.raises(SystemExit, match="0"):
            run("edit", name, "--help")
    assert run("edit", "sort", folder, "--by", "alphabet", "--reverse") == 0
    assert texts(folder) == ["white_shirt, shirt, 1girl", "highres, 1girl"]


def test_clean(folder, capsys):
    assert run("clean", folder, "--off", "Remove highres", "--dry-run") == 0
    out = capsys.readouterr().out
    assert "[x] Redundancy: Remove shirt, keep white_shirt (1 captions)." in out
    assert "[ ] Meta tags: Remove highres (1 captions)." in out
    assert run("clean", folder, "--off", "Remove highres") == 0
    assert texts(folder) == ["1girl, white_shirt", "1girl, highres"]
    capsys.readouterr()
    assert run("clean", folder, "--json", "--no-redundancy") == 0
    assert texts(folder) == ["1girl, white_shirt", "1girl"]
    (found,) = [line for line in told(capsys) if line["event"] == "clean"]
    assert [(each["what"], each["files"]) for each in found["proposals"]] == [("Remove highres", ["10_a/two.txt"])]


def test_mistakes(folder):
    with pytest.raises(QueryError, match="Column 6"):
        run("edit", "add", folder, "--tags", "x", "--where", "count:")
    with pytest.raises(ProblemsFound, match="tags: is empty"):
        run("edit", "add", folder)
    with pytest.raises(ConfigError, match="nothing like that is proposed"):
        run("clean", folder, "--on", "Remove the sky")
    with pytest.raises(ConfigError, match="is no picture of"):
        run("edit", "add", folder, "--tags", "x", "--only", "absent.png")
    with pytest.raises(DataError, match="nothing to undo"):
        run("undo", folder)


def test_a_config_decides_about_separators(folder):
    config = folder / "config.toml"
    config.write_text(
        f"[data]\n[[data.sources]]\npath = '{folder}'\n[data.caption]\nseparator = '$'\n", encoding="utf-8"
    )
    (folder / "10_a/two.txt").write_text("mona $ hat, 1girl", encoding="utf-8")
    assert run("edit", "sort", folder, "--config", config, "--where", "hat") == 0
    assert texts(folder)[1] == "mona $ 1girl, hat"
    with pytest.raises(ConfigError, match="is no source of"):
        run("stats", folder / "10_a", "--config", config)
