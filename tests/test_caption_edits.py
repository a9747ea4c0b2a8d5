"""Edits of captions: golden cases, what must not change, and options that make no sense."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_lora_trainer.captions import diffs, edits, tags
from lib_lora_trainer.captions.edits import EDITS, Facts, edited
from lib_lora_trainer.captions.edits_options import AddOptions, RemoveOptions, ReplaceOptions, SortOptions
from lib_lora_trainer.captions.text import Marks, is_prose, parse

CASES = json.loads((Path(__file__).parent / "golden/captions/edits.json").read_text(encoding="utf-8"))
MARKS = st.builds(Marks, st.sampled_from(["|||", "", "$"]), st.sampled_from(["", ";;;"]), st.booleans(), st.booleans())
CAPTIONS = st.one_of(
    st.text(), st.text("ab ,|\n\r;(){}[]\\_.:\u2028\u0085A"),
    st.lists(st.sampled_from(["a girl", "long_hair", "the", " is", ",", ", ", "\n", "|||", ";;;", ".", "(", "}", ""])).map("".join),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_golden(case):
    chosen = EDITS[case["edit"]].options(**case["options"])
    assert edits.problems(chosen) == ()
    marks, facts = Marks(**case.get("marks", {})), Facts(**case.get("facts", {}))
    assert edited(case["before"], chosen, marks, facts) == case["after"]


def test_every_edit_has_a_golden_case_that_changes_something():
    assert {case["edit"] for case in CASES if case["before"] != case["after"]} == set(EDITS)


@given(CAPTIONS, MARKS)
def test_a_parsed_caption_is_written_as_it_was(text, marks):
    assert parse(text, marks).text == text


@given(st.text("ab ,\t_().;:", max_size=30))
def test_tags_are_split_as_everywhere(text):
    caption = parse(text)
    assert caption.kind in ("prose", "empty") or caption.tags == tags.split(text)


@given(CAPTIONS, MARKS)
def test_an_edit_that_finds_nothing_changes_no_byte(text, marks):
    for chosen in (RemoveOptions("zzz"), ReplaceOptions("zzz", "y"), RemoveOptions("q*q", "wildcard")):
        assert edited(text, chosen, marks) == text


@given(st.text("ab ,|\n_", max_size=40), st.integers(0, 9))
def test_removing_a_tag_leaves_the_others(text, number):
    caption = parse(text)
    if caption.tags:
        name = caption.tags[number % len(caption.tags)]
        left = parse(edited(text, RemoveOptions(name))).tags
        assert left == tuple(tag for tag in caption.tags if parse(tag).keys != parse(name).keys)


@given(st.text("abc ,|\n_", max_size=40), st.sampled_from(["alphabet", "group"]), st.booleans(), st.integers(0, 3))
def test_sorting_keeps_every_tag(text, by, reverse, keep):
    done = edited(text, SortOptions(by, reverse, keep))
    assert sorted(parse(done).tags) == sorted(parse(text).tags)
    assert len(done) == len(text)


@given(st.text("ab ,|\n_", max_size=40), st.sampled_from(["first", "last", "index"]), st.integers(1, 5))
def test_an_added_tag_is_there_once_and_others_stay(text, place, position):
    done = parse(edited(text, AddOptions("new tag", place, position)))
    assert [tag for tag in done.tags if tag != "new tag"] == list(parse(text).tags)
    assert done.tags.count("new tag") == 1
    assert edited(done.text, AddOptions("new tag")) == done.text


PROSE = {
    "A girl with white hair, sitting on a bench, smiling at the camera": True,
    "a photo of a cat": True,
    "A girl stands there.": True,
    "白い髪の少女。": True,
    "1girl, solo, long_hair": False,
    "hand on own hip, looking at viewer, hair over one eye": False,
    "1girl, sitting, the legend of zelda: breath of the wild, pointy ears": False,
    "holding sword with both hands, a": False,
    "": False,
}


@pytest.mark.parametrize(("text", "expected"), PROSE.items())
def test_sentences_are_told_from_tags(text, expected):
    assert is_prose(text) is expected


@pytest.mark.parametrize(
    ("chosen", "where", "words"),
    [
        (RemoveOptions(" "), "find", "is empty"),
        (AddOptions(""), "tags", "is empty"),
        (RemoveOptions("(", "regex"), "find", "unterminated"),
        (ReplaceOptions("a", r"\2", "regex"), "find", "invalid group"),
        (AddOptions("a", "middle"), "place", "first, last, index"),
        (AddOptions("a", "index", 0), "position", "too small"),
    ],
)
def test_options_that_make_no_sense(chosen, where, words):
    (problem,) = edits.problems(chosen)
    assert problem.where == where
    assert words in f"{problem.message} {problem.fix}"


def test_a_diff_marks_words():
    change = diffs.Change(Path("a.txt"), "1girl, long hair, smile", "mona, 1girl, white hair")
    assert [(span.kind, span.text) for span in change.spans()] == [
        ("added", "mona, "), ("same", "1girl, "), ("removed", "long"), ("added", "white"), ("same", " hair"),
        ("removed", ", smile"),
    ]  # fmt: skip


@given(st.text("ab ,\n", max_size=30), st.text("ab ,\n", max_size=30))
def test_both_texts_stand_in_a_diff(before, after):
    spans = diffs.spans(before, after)
    assert "".join(span.text for span in spans if span.kind != "added") == before
    assert "".join(span.text for span in spans if span.kind != "removed") == after


def test_tags_that_come_and_go_are_counted_and_moved_ones_are_not():
    before = {Path("a"): "x, y", Path("b"): "x, z", Path("c"): "y"}
    after = {Path("a"): "y, w", Path("b"): "z", Path("c"): "y"}
    changed = diffs.changes(before, after)
    assert [change.path.name for change in changed] == ["a", "b"]
    counts = [(count.tag, count.removed, count.added) for count in diffs.tag_counts(changed)]
    assert counts == [("x", 2, 0), ("w", 0, 1)]
