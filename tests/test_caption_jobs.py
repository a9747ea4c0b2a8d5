"""Captions of a folder: loaded whatever their encoding, changed in bulk, taken back byte for byte, never lost."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_lora_trainer.app import caption_jobs, dataset_tools
from lib_lora_trainer.app.caption_jobs import Selection
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import DataError, ProblemsFound, RunConflict
from lib_lora_trainer.base.events import Finished
from lib_lora_trainer.base.files import sha256
from lib_lora_trainer.captions.cleaning.values import CleanOptions
from lib_lora_trainer.captions.edits import EDITS
from lib_lora_trainer.captions.edits_options import AddOptions, RemoveOptions, ReplaceOptions, SetOptions, SortOptions
from lib_lora_trainer.captions.query import QueryError
from lib_lora_trainer.config.data import DataConfig, SourceConfig
from lib_lora_trainer.dataset.journal import Journal
from lib_lora_trainer.tagging.labels import Label
from lib_lora_trainer.tagging.scores import Kept, write
from tool_cases import picture


def load(root):
    """Return a folder's captions."""
    return caption_jobs.load(DataConfig(sources=(SourceConfig(str(root)),)))


def apply(draft):
    """Do what a draft says."""
    *_, last = dataset_tools.apply(draft, Control())
    assert isinstance(last, Finished)
    assert last.reason == "done"
    return last


def undo(root):
    """Take the latest change back."""
    return list(dataset_tools.undo(root))


def contents(root):
    """Return every file of the user's by name."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".lora-trainer" not in path.parts
    }


@pytest.fixture
def folder(tmp_path):
    """Return a folder with three pictures, one of them without a caption."""
    picture(tmp_path / "10_a/one.png", caption="1girl, long_hair, smile")
    picture(tmp_path / "10_a/two.png", caption="1girl, hat", seed=1)
    picture(tmp_path / "5_b/three.png", caption=None, seed=2)
    return tmp_path


def test_an_edit_is_previewed_done_undone_and_redone(folder):
    before = contents(folder)
    made = caption_jobs.draft(AddOptions("mona"), load(folder))
    assert contents(folder) == before
    assert [(change.path.name, change.before, change.after) for change in caption_jobs.changes(made)] == [
        ("one.txt", "1girl, long_hair, smile", "mona, 1girl, long_hair, smile"),
        ("two.txt", "1girl, hat", "mona, 1girl, hat"),
        ("three.txt", "", "mona"),
    ]
    assert made.text == "Add tags: 3 of 3"
    assert apply(made).step == 3
    after = contents(folder)
    assert after["5_b/three.txt"] == b"mona"
    undo(folder)
    assert contents(folder) == before
    list(dataset_tools.redo(folder))
    assert contents(folder) == after


def test_an_edit_of_nothing_writes_nothing(folder):
    made = caption_jobs.draft(RemoveOptions("absent"), load(folder))
    assert made.operations == ()
    assert made.text == "Remove tags: 0 of 3"


def test_only_what_is_selected_changes(folder):
    loaded = load(folder)
    one, two = folder / "10_a/one.png", folder / "10_a/two.png"
    by_query = caption_jobs.draft(AddOptions("x"), loaded, Selection(query="folder:10_a NOT hat"))
    by_hand = caption_jobs.draft(AddOptions("x"), loaded, Selection((one,)))
    both = caption_jobs.draft(AddOptions("x"), loaded, Selection((two,), "long_hair"))
    assert [change.path.name for change in caption_jobs.changes(by_query)] == ["one.txt"]
    assert [change.path.name for change in caption_jobs.changes(by_hand)] == ["one.txt"]
    assert caption_jobs.changes(both) == ()
    with pytest.raises(QueryError, match="Column 6"):
        caption_jobs.draft(AddOptions("x"), loaded, Selection(query="count:"))


def test_options_that_make_no_sense_are_refused(folder):
    with pytest.raises(ProblemsFound, match="find: is empty"):
        caption_jobs.draft(RemoveOptions(""), load(folder))


def test_scores_and_frequency_sort(folder):
    loaded = load(folder)
    made = caption_jobs.draft(SortOptions("frequency", reverse=True), loaded, Selection(query="hat"))
    assert [change.after for change in caption_jobs.changes(made)] == ["hat, 1girl"]
    scores = {"smile": 0.9, "long hair": 0.8}
    made = caption_jobs.draft(SortOptions("score"), loaded, Selection(scores=lambda picture: scores))
    assert [change.after for change in caption_jobs.changes(made)] == ["smile, long_hair, 1girl"]
    assert caption_jobs.scores_of(folder)(folder / "10_a/one.png") is None


def test_captions_of_single_pictures_are_written(folder):
    loaded = load(folder)
    apply(caption_jobs.draft_texts({folder / "10_a/two.png": "new", folder / "5_b/three.png": "too"}, loaded))
    assert contents(folder)["10_a/two.txt"] == b"new"
    assert contents(folder)["5_b/three.txt"] == b"too"
    with pytest.raises(DataError, match="absent.png: is none of the loaded pictures"):
        caption_jobs.draft_texts({folder / "absent.png": "new"}, loaded)


def test_cleaning_is_a_draft_of_what_is_switched_on(folder):
    (folder / "10_a/two.txt").write_text("shirt, white_shirt, highres", encoding="utf-8")
    loaded = load(folder)
    found = caption_jobs.clean(CleanOptions(), loaded)
    switched = [replace(each, on=each.rule == "meta") for each in found]
    made = caption_jobs.draft_clean(switched, loaded)
    assert [change.after for change in caption_jobs.changes(made)] == ["shirt, white_shirt"]
    counts = caption_jobs.tag_counts(made, loaded)
    assert [(count.tag, count.removed, count.added) for count in counts] == [("highres", 1, 0)]
    assert caption_jobs.clean(CleanOptions(), loaded, Selection(query="long_hair")) == ()


@pytest.mark.parametrize(
    ("data", "encoding", "after"),
    [
        ("é, a\r\nb, c\r\n".encode(), "utf-8", "x, é, a\r\nb, c\r\n"),
        ("é, a\n".encode("utf-8-sig"), "utf-8-sig", "x, é, a\n"),
        ("é, a".encode("utf-16"), "utf-16", "x, é, a"),
        ("白い髪, 猫".encode("cp932"), "cp932", "x, 白い髪, 猫"),
    ],
)
def test_any_encoding_is_read_and_utf8_is_written(tmp_path, data, encoding, after):
    picture(tmp_path / "a.png", caption=None)
    (tmp_path / "a.txt").write_bytes(data)
    loaded = load(tmp_path)
    assert loaded.files[tmp_path / "a.txt"].encoding == encoding
    made = caption_jobs.draft(AddOptions("x"), loaded)
    assert [problem.severity for problem in made.problems] == (["warning"] if encoding == "cp932" else [])
    apply(made)
    assert (tmp_path / "a.txt").read_bytes() == after.encode()
    undo(tmp_path)
    assert (tmp_path / "a.txt").read_bytes() == data


def test_a_file_that_cannot_be_read_is_told_and_left_alone(folder):
    (folder / "10_a/one.txt").write_bytes(b"\x00\x01\x02")
    loaded = load(folder)
    (problem,) = loaded.problems
    assert problem.where.endswith("one.txt")
    assert "is no text in any known encoding" in problem.message
    apply(caption_jobs.draft(AddOptions("x"), loaded))
    assert contents(folder)["10_a/one.txt"] == b"\x00\x01\x02"


def test_a_caption_of_two_pictures_changes_once_and_that_is_told(tmp_path):
    picture(tmp_path / "a.png", caption="red")
    picture(tmp_path / "a.jpg", caption="red", seed=1)
    loaded = load(tmp_path)
    assert len(loaded.files) == 1
    made = caption_jobs.draft(AddOptions("x"), loaded, Selection((tmp_path / "a.png",)))
    (problem,) = made.problems
    assert "belongs to a.jpg as well" in problem.message
    apply(made)
    assert (tmp_path / "a.txt").read_bytes() == b"x, red"


@pytest.mark.parametrize("other", ["changed", "removed", "written"])
def test_a_draft_made_on_an_older_text_is_refused(folder, other):
    """Two browser tabs load; the second one's edit must not undo the first one's."""
    mine, theirs = load(folder), load(folder)
    late = caption_jobs.draft(AddOptions("late"), mine)
    if other == "changed":
        apply(caption_jobs.draft(RemoveOptions("hat"), theirs))
        name = "two.txt: was changed"
    elif other == "removed":
        (folder / "10_a/one.txt").unlink()
        name = r"one.txt: does not exist any more|one.txt: was removed"
    else:
        apply(caption_jobs.draft_texts({folder / "5_b/three.png": "theirs"}, theirs))
        name = r"three.txt: exists already|three.txt: was written"
    before = contents(folder)
    with pytest.raises(DataError, match=name):
        apply(late)
    assert contents(folder) == before
    apply(caption_jobs.draft(AddOptions("late"), load(folder)))
    assert all(text.startswith(b"late") for path, text in contents(folder).items() if path.endswith(".txt"))


def test_a_draft_on_an_undone_change_is_refused(folder):
    apply(caption_jobs.draft(AddOptions("x"), load(folder)))
    late = caption_jobs.draft(AddOptions("late"), load(folder), Selection(query="hat"))
    undo(folder)
    with pytest.raises(DataError, match="was changed after its caption was loaded"):
        apply(late)


def test_an_undo_over_somebody_elses_text_is_refused(folder):
    apply(caption_jobs.draft(AddOptions("x"), load(folder)))
    (folder / "10_a/one.txt").write_text("by hand", encoding="utf-8")
    before = contents(folder)
    with pytest.raises(DataError, match="one.txt: was changed meanwhile"):
        undo(folder)
    assert contents(folder) == before


def test_what_another_tab_changed_is_named(folder):
    mine = load(folder)
    assert caption_jobs.stale(mine) == ()
    apply(caption_jobs.draft(RemoveOptions("hat"), load(folder)))
    (folder / "10_a/one.txt").unlink()
    (folder / "5_b/three.txt").write_bytes(b"")
    assert [path.name for path in caption_jobs.stale(mine)] == ["one.txt", "two.txt", "three.txt"]


def test_what_taggers_know_decides_about_characters_and_typing_errors(folder):
    labels = (Label("hatsune miku", 4), Label("hat", 0))
    kept = Kept("toy", "0" * 64, labels)
    digest = sha256(folder / "10_a/one.png")
    kept.keep(digest, np.array([0.9, 0.4], np.float32))
    write(folder / ".lora-trainer/scores", kept)
    facts = caption_jobs.tagger_facts(folder)
    assert facts.characters == {"hatsune miku"}
    assert facts.known == {"hatsune miku", "hat"}
    look = caption_jobs.scores_of(folder)
    assert look(folder / "10_a/one.png") == pytest.approx({"hatsune miku": 0.9, "hat": 0.4})
    assert look(folder / "10_a/two.png") is None
    picked = caption_jobs.selected(load(folder), Selection(query="score:hat>0.3", scores=look))
    assert [file.path.name for file in picked] == ["one.txt"]


def test_two_at_once_are_told(folder):
    made = caption_jobs.draft(AddOptions("x"), load(folder))
    with Journal(folder), pytest.raises(RunConflict):
        apply(made)


CHOSEN = st.sampled_from([
    AddOptions("mona"), AddOptions("a, b", "last", move=True), AddOptions("x", "index", 2), RemoveOptions("a"),
    RemoveOptions("*_hair", "wildcard"), ReplaceOptions("(a)", r"\1\1", "regex"), SortOptions(), SetOptions("new\r\n"),
    *(EDITS[name].options() for name in ("dedupe", "case", "spelling", "brackets")),
])  # fmt: skip
TEXTS = st.none() | st.text("ab ,\n\r_|é", max_size=20) | st.sampled_from(["long_hair, A (b)", "A girl is in the sun."])


@settings(max_examples=25, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=3), st.lists(CHOSEN, max_size=4))
def test_any_edits_taken_back_leave_the_original_bytes(texts, chosen):
    root = Path(tempfile.mkdtemp())
    try:
        for number, text in enumerate(texts):
            picture(root / f"{number}.png", size=(2, 2), caption=None, seed=number)
            if text is not None:
                (root / f"{number}.txt").write_bytes(text.encode())
        states = [contents(root)]
        for each in chosen:
            made = caption_jobs.draft(each, load(root))
            if made.operations:
                apply(made)
                states.append(contents(root))
                assert states[-1] != states[-2]
        for state in reversed(states[:-1]):
            undo(root)
            assert contents(root) == state
    finally:
        shutil.rmtree(root)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("AB"), st.sampled_from(["load", "edit"])), max_size=10))
def test_of_two_sessions_none_loses_an_edit(steps):
    """Whatever the order, each edit is either in the captions in the end, or its session was told that it is not."""
    root = Path(tempfile.mkdtemp())
    try:
        picture(root / "a.png", size=(2, 2), caption="start")
        sessions = {name: load(root) for name in "AB"}
        done = ["start"]
        for number, (name, action) in enumerate(steps):
            if action == "load":
                sessions[name] = load(root)
                continue
            made = caption_jobs.draft(AddOptions(f"{name}{number}", "last"), sessions[name])
            fresh = sessions[name].files[root / "a.txt"].text == ", ".join(done)
            if fresh:
                apply(made)
                done.append(f"{name}{number}")
            else:
                with pytest.raises(DataError, match=r"a\.txt: was changed"):
                    apply(made)
            assert (root / "a.txt").read_text(encoding="utf-8") == ", ".join(done)
    finally:
        shutil.rmtree(root)
