"""`dataset duplicates`: what it finds, what it puts aside, its exit status, and that all of it comes back."""

from __future__ import annotations

import pytest

pytest.importorskip("imagehash")

import likeness_cases as cases
from commands import runner
from dying_files import tree
from lib_lora_trainer.app import dataset_tools, duplicate_jobs
from lib_lora_trainer.app.dataset_tools import Request
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.base.events import Finished, Phase
from lib_lora_trainer.dataset import looks
from lib_lora_trainer.dataset.duplicates import Found
from tool_cases import applied, names, settings, undo


@pytest.fixture
def main(monkeypatch, capsys):
    """Run the command line and return its exit status, lines and errors; JSON lines are read."""
    return runner(monkeypatch, capsys, "dataset")


@pytest.fixture
def root(tmp_path):
    """A figure with a small copy and a variant, and a photograph of which nothing else is known."""
    root = tmp_path / "絵"
    (root / "a").mkdir(parents=True)
    (root / "b").mkdir()
    figure = cases.figure(3)
    figure.save(root / "a" / "best.png")
    cases.resized(figure, 0.5).save(root / "b" / "small.png")
    cases.variants(3)["outfit"].save(root / "b" / "variant.png")
    cases.photograph(5).save(root / "photo.png")
    for path in root.rglob("*.png"):
        path.with_suffix(".txt").write_text("sks", encoding="utf-8")
    return root


def looked(root, only=None):
    *events, found = duplicate_jobs.look(Request(settings(root), only=only), Control())
    return events, found


def test_the_best_and_its_variant_stay_and_the_spare_one_comes_back(root, main):
    before = tree(root)
    status, lines, _ = main("duplicates", root, "--dry-run")
    assert status == 0 and tree(root) == before
    assert "to the holding b/small.png" in lines and "to the holding b/small.txt" in lines
    assert any(line.startswith("a/best.png: kept, the largest") for line in lines)
    assert "b/variant.png: kept, a variant" in lines
    assert "1 pictures in several files or variants, 1 spare" in lines
    status, events, _ = main("duplicates", root, "--json")
    (report,) = [event for event in events if "clusters" in event]
    (cluster,) = report["clusters"]
    kept = {copies["keep"]: [each["file"] for each in copies["spare"]] for copies in cluster["copies"]}
    assert status == 0 and kept == {"a/best.png": ["b/small.png"], "b/variant.png": []}
    kinds = {(pair["one"], pair["two"]): pair["kind"] for pair in cluster["pairs"]}
    assert kinds["a/best.png", "b/small.png"] == "same" and kinds["a/best.png", "b/variant.png"] == "variant"
    assert names(root) == {"a/best.png", "a/best.txt", "b/variant.png", "b/variant.txt", "photo.png", "photo.txt"}
    assert main("undo", root)[0] == 0 and tree(root) == before


def test_a_folder_without_any_is_left_and_an_empty_one_is_a_mistake(root, main, tmp_path):
    for path in (root / "b").iterdir():
        path.unlink()
    status, lines, _ = main("duplicates", root)
    assert status == 0 and "note: Nothing has to be changed." in lines
    (tmp_path / "none").mkdir()
    status, _, said = main("duplicates", tmp_path / "none")
    assert status == 1 and "contains no pictures" in said


def test_without_imagehash_it_says_what_to_install(root, main, monkeypatch):
    monkeypatch.setattr(looks.importlib.util, "find_spec", lambda name: None)
    status, _, said = main("duplicates", root)
    assert status == 1 and "pip install ImageHash" in said


def test_progress_is_told_and_a_stop_is_granted(root):
    events, found = looked(root)
    assert isinstance(found, Found) and len(found.clusters) == 1
    assert {event.name for event in events} >= {"reading pictures", "comparing pictures"}
    assert all(isinstance(event, Phase) for event in events)
    control = Control()
    looking = duplicate_jobs.look(Request(settings(root)), control)
    next(looking)
    control.ask("stop")
    *_, last = looking
    assert isinstance(last, Finished) and last.reason == "stopped"


def test_only_the_selected_pictures_are_compared(root):
    chosen = (root / "b" / "variant.png", root / "photo.png", root / "a" / "best.png")
    _, found = looked(root, chosen)
    assert duplicate_jobs.spare(found) == () and len(found.clusters) == 1
    with pytest.raises(DataError, match="none of the 1 selected pictures"):
        looked(root, (root / "no.png",))


def test_the_person_chooses_what_goes(root):
    before = tree(root)
    made = duplicate_jobs.draft(Request(settings(root)), [root / "a" / "best.png"])
    assert "1" in made.text and applied(made).files == ()
    assert not (root / "a" / "best.png").exists() and (root / "b" / "small.png").exists()
    assert dataset_tools.next_to("undo", root).tool == "duplicates"
    undo(root)
    assert tree(root) == before


def test_the_likeness_of_a_spare_one_is_that_with_the_one_to_keep(root):
    _, found = looked(root)
    (cluster,) = found.clusters
    pair = duplicate_jobs.likeness(cluster, root / "b" / "small.png", root / "a" / "best.png")
    assert {pair.one.name, pair.two.name} == {"best.png", "small.png"} and pair.likeness.similarity > 0.98
