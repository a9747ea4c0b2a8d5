"""The command `dataset`: what it says, what it does, its exit status, and that it can be taken back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from commands import runner
from dying_files import tree
from lib_lora_trainer.dataset.journal import Journal
from tool_cases import animation, names, noise, picture

CONFIG = """
name = "toy"
triggers = ["sks"]
[[data.sources]]
path = {path}
masks = {masks}
[data]
resolution = 64
bucket_minimum = 64
bucket_step = 8
"""


@pytest.fixture
def main(monkeypatch, capsys):
    """Run the command line and return its exit status, lines and errors; JSON lines are read."""
    return runner(monkeypatch, capsys, "dataset")


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "データ set"
    picture(root / "2_a" / "one.jpg", (192, 128), caption="sks, full_body, hat", seed=1)
    picture(root / "2_a" / "two.png", (64, 96), caption="sks", seed=2, mode="RGBA")
    picture(root / "b" / "tiny.png", (20, 20), caption="sks", seed=3)
    animation(root / "b" / "moving.gif", caption="sks")
    return root


@pytest.mark.parametrize(
    "arguments",
    [
        ("convert",), ("convert", "--formats", "gif"), ("flatten-alpha", "--colour", "black"),
        ("trim", "--tolerance", "3", "--shortest", "8"), ("pad",), ("upscale", "--resolution", "64"),
        ("crop", "--resolution", "64", "--assume-full-body", "--box", "2_a/one.jpg=40,0,140,128", "--framings", "cowboy_shot"),
        ("flatten",), ("buckets", "--sort", "--resolution", "64"), ("balance", "--exposures", "12", "--grade", "データ set/b=C"),
    ],
)  # fmt: skip
def test_every_command_is_done_undone_redone_and_dry_runs_change_nothing(root, main, arguments):
    before = tree(root)
    command, *more = arguments
    status, lines, _ = main(command, root, *more, "--dry-run")
    assert status == 0 and any("Nothing was changed" in line for line in lines) and tree(root) == before
    status, dry, _ = main(command, root, *more, "--dry-run", "--json")
    proposed = [event for event in dry if event.get("event") == "proposal"]
    assert status == 0 and tree(root) == before and not (root / ".lora-trainer").exists()
    status, events, _ = main(command, root, *more, "--json")
    assert status == 0 and events[-1]["event"] == "finished" and events[-1]["reason"] == "done"
    assert [event for event in events if event.get("event") == "proposal"] == proposed
    changes = sum(operation["kind"] != "drop" for event in proposed for operation in event["operations"])
    after = tree(root)
    assert (events[-1]["step"] == changes > 0 and after != before) or command == "trim"
    if command == "trim":
        assert after == before
        return
    status, lines, _ = main("undo", root, "--dry-run")
    assert status == 0 and "undo: " in lines[0] and tree(root) == after
    assert main("undo", root)[0] == 0 and tree(root) == before
    assert main("redo", root)[0] == 0 and tree(root) == after


def test_words_name_every_change(root, main):
    status, lines, _ = main("convert", root)
    assert status == 0
    assert (
        "write 2_a/one.png" in lines and "to the holding b/moving.gif" in lines and "write b/moving-0003.png" in lines
    )
    assert lines[-1].startswith("done: 9 changes")
    assert main("convert", root)[1][-2:] == ["note: Nothing has to be changed.", "done: 0 changes, 0.0 s"]
    _, lines, _ = main("undo", root)
    assert "Taken back: Converted to PNG: 2 of 4" in lines[0]
    assert main("undo", root)[0] == 1


def test_a_scan_lists_concepts_and_ends_with_an_error_where_there_is_one(root, main):
    status, (*_, found), _ = main("scan", root, "--json")
    concepts = {concept["name"]: (concept["images"], concept["exposures"]) for concept in found["concepts"]}
    assert status == 0 and concepts == {"データ set/2_a": (2, 4), "データ set/b": (1, 1)}
    assert found["pictures"] == 3 and found["skipped"] == 1
    assert any("is animated" in problem["message"] for problem in found["problems"])
    _, lines, _ = main("scan", root)
    assert "データ set/2_a: 2 × 2 = 4" in lines and "3 pictures, 1 left out" in lines
    status, lines, _ = main("scan", root / "none")
    assert status == 1 and any("does not exist" in line for line in lines)


def test_buckets_name_what_must_be_upscaled(root, main, tmp_path):
    config = tmp_path / "c.toml"
    config.write_text(CONFIG.format(path=json.dumps(str(root)), masks='""'), encoding="utf-8")
    status, (*_, report), _ = main("buckets", root, "--config", config, "--json")
    assert status == 0, report
    assert report["must_be_upscaled"] == ["b/tiny.png"]
    assert {view["file"]: view["bucket"] for view in report["pictures"]}["b/tiny.png"] == "64x64"
    assert sum(report["buckets"].values()) == 3
    _, lines, _ = main("buckets", root, "--config", config)
    assert "must be upscaled: b/tiny.png" in lines
    status, _, said = main("buckets", tmp_path, "--config", config)
    assert status == 1 and "is no source of" in said


def test_upscaling_says_that_lanczos_adds_nothing(root, main):
    status, lines, _ = main("upscale", root, "--resolution", "64")
    assert status == 0 and any("without adding detail" in line for line in lines)
    assert Image.open(root / "b" / "tiny.png").size == (64, 64)


def test_masks_are_checked_rejected_and_taken_over(root, main, tmp_path):
    masks, other = tmp_path / "masks", tmp_path / "other"
    noise((40, 40), 1, "L").save(picture(masks / "2_a" / "one.png", caption=None))
    good = Image.new("L", (64, 96))
    good.paste(255, (10, 10, 50, 90))
    good.save(picture(other / "two.png", caption=None))
    status, events, _ = main("mask", root, "--masks", masks, "--json")
    verdicts = {event["about"]: event["before"]["verdict"] for event in events if event["event"] == "proposal"}
    assert status == 1 and verdicts["2_a/one.jpg"] == "shape" and verdicts["b/tiny.png"] == "missing"
    assert main("mask", root, "--masks", masks, "--reject")[0] == 1 and names(masks) == set()
    assert main("mask", root, "--masks", masks)[0] == 0
    assert main("mask", root, "--masks", masks, "--import", other)[0] == 0 and names(masks) == {"2_a/two.png"}
    for _ in range(2):
        assert main("undo", root)[0] == 0
    assert names(masks) == {"2_a/one.png"}


def test_a_balance_is_told_before_folders_are_renamed(root, main):
    status, events, _ = main("balance", root, "--exposures", "12", "--budget", "50", "--trigger", "sks", "--json")
    (told,) = [event for event in events if "rows" in event]
    assert status == 0 and {row["concept"]: row["wanted"] for row in told["rows"]} == {
        "データ set/2_a": 3,
        "データ set/b": 6,
    }
    assert told["totals"] == {"sks": 12} and "96 times in 8 epochs" in told["problems"][-1]["message"]
    assert (root / "3_a").is_dir() and (root / "6_b").is_dir()


def test_chosen_files_go_and_come_back_and_the_holding_is_emptied_on_request(root, main):
    before = tree(root)
    assert main("files", root, "exclude", "b/tiny.png")[0] == 0
    assert main("files", root, "include", ".excluded/b/tiny.png")[0] == 0
    assert main("files", root, "copy", "b/tiny.png", "--to", "c")[0] == 0 and "c/tiny.txt" in names(root)
    assert main("files", root, "move", "c/tiny.png", "--to", "d")[0] == 0 and "d/tiny.png" in names(root)
    assert main("files", root, "remove", "d/tiny.png", "2_a/one.jpg")[0] == 0
    status, (held,), _ = main("holding", root, "--json")
    assert status == 0 and len(held["held"]) == 4
    assert main("files", root, "restore", "2_a/one.jpg")[0] == 0 and "2_a/one.jpg" in names(root)
    for _ in range(6):
        assert main("undo", root)[0] == 0
    assert tree(root) == before
    main("files", root, "remove", "b/tiny.png")
    assert main("holding", root, "--empty", "--dry-run")[0] == 0 and main("undo", root)[0] == 0
    main("files", root, "remove", "b/tiny.png")
    assert main("holding", root, "--empty")[0] == 0 and main("holding", root)[1] == []
    status, _, said = main("undo", root)
    assert status == 1 and "nothing to undo" in said
    assert main("files", root, "move", "2_a/one.jpg")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("trim", "--tolerance", "200"), "tolerance: 200.0 is too large"),
        (("crop", "--box", "2_a/one.jpg=1,2,3"), "is no box"),
        (("crop", "--framings", "sideways"), "'sideways' is not a choice"),
        (("pad", "--colour", "whitish"), "is no colour"),
        (("balance", "--grade", "x=F"), "'F' is no grade"),
        (("files", "remove", "none.png"), "is no picture of this dataset"),
        (("redo",), "nothing to redo"),
    ],
)
def test_mistakes_are_named_and_end_with_1(root, main, arguments, message):
    before = tree(root)
    command, *more = arguments
    status, _, said = main(command, root, *more)
    assert status == 1 and message in said and tree(root) == before
    status, (*_, event), _ = main(command, root, *more, "--json")
    assert status == 1 and event["event"] == "failed" and message in event["error"]


def test_a_second_tool_is_refused(root, main):
    with Journal(root):
        status, _, said = main("convert", root)
    assert status == 1 and "another tool is changing this dataset" in said


def test_the_commands_are_known_without_numpy_or_pillow():
    code = (
        "import argparse, sys; from lib_lora_trainer.cli import dataset; parser = argparse.ArgumentParser();"
        "dataset.add(parser.add_subparsers()); parser.parse_args(['dataset', 'trim', 'x', '--tolerance', '3']);"
        "sys.exit(str({'torch', 'numpy', 'PIL'} & set(sys.modules)) if {'torch', 'numpy', 'PIL'} & set(sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
