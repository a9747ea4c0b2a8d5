"""Clean-up rules: the guides' examples and others as golden cases, switches, and the distance of two words."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_lora_trainer.captions.cleaning.propose import ORDER, RULES, proposals
from lib_lora_trainer.captions.cleaning.values import CleanFacts, CleanOptions, applied
from lib_lora_trainer.captions.cleaning.words import distance
from lib_lora_trainer.captions.text import parse

CASES = json.loads((Path(__file__).parent / "golden/captions/cleaning.json").read_text(encoding="utf-8"))
OFF = dict.fromkeys(RULES, False)


def captions_of(texts, times=1):
    """Return parsed captions; the first as often as is said."""
    return {Path(f"{n}.txt"): parse(text) for n, text in enumerate([*texts[:1] * times, *texts[1:]])}


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_golden(case):
    rules = case.get("rules", [case.get("rule")])
    more = {name: tuple(value) for name, value in case.get("options", {}).items()}
    facts = {name: value for name, value in case.get("facts", {}).items() if name != "board_scores"}
    votes = case.get("facts", {}).get("board_scores", [])
    scores = {Path(f"{n}.txt"): vote for n, vote in enumerate(votes) if vote is not None}
    times = case.get("times", 1)
    captions = captions_of(case["before"], times)
    look = CleanFacts(**{name: frozenset(value) for name, value in facts.items()}, board_scores=scores)
    found = proposals(captions, CleanOptions(**{**OFF, **dict.fromkeys(rules, True), **more}), look)
    after = [caption.text for caption in applied(captions, found).values()]
    assert after == [*case["after"][:1] * times, *case["after"][1:]]
    assert [each.what for each in found if not each.on] == case.get("off", [])
    changed = {path for path, text in zip(captions, after, strict=True) if captions[path].text != text}
    assert changed == {path for each in found if each.on for path in each.files}
    assert all(each.rule in rules and each.why for each in found)


def test_every_rule_is_a_switch_with_a_golden_case():
    switches = {field.name for field in fields(CleanOptions) if field.type == "bool"}
    assert switches == set(RULES) == {name for name, _ in ORDER}
    assert {case["rule"] for case in CASES if "rule" in case} == switches


def test_a_rule_that_is_off_proposes_nothing():
    captions = captions_of(["shirt, white shirt, highres, tiara, circlet"])
    assert {each.rule for each in proposals(captions)} == {"meta", "synonyms", "redundancy"}
    assert proposals(captions, CleanOptions(**OFF)) == ()


def test_a_proposal_that_is_switched_off_leaves_its_tags():
    captions = captions_of(["shirt, white shirt, highres"])
    found = [replace(each, on=each.rule != "meta") for each in proposals(captions)]
    assert [caption.text for caption in applied(captions, found).values()] == ["white shirt, highres"]


def test_a_proposal_on_what_another_leaves_does_nothing_without_it():
    captions = captions_of(["1girl|shirt|white shirt"])
    found = proposals(captions)
    assert [each.rule for each in found] == ["dumps", "redundancy"]
    assert [caption.text for caption in applied(captions, found).values()] == ["1girl, white shirt"]
    without = [replace(found[0], on=False), found[1]]
    assert [caption.text for caption in applied(captions, without).values()] == ["1girl|shirt|white shirt"]


def test_proposals_name_their_files_and_reasons():
    captions = captions_of(["shirt, white_shirt", "a", "white_shirt, shirt"])
    (found,) = proposals(captions)
    assert found.what == "Remove shirt, keep white_shirt"
    assert [path.name for path in found.files] == ["0.txt", "2.txt"]


TAGS = [
    "shirt",
    "white_shirt",
    "highres",
    "a|b",
    "score:20",
    "tiara",
    "circlet",
    "&amp;",
    "white dress",
    "long dress",
    "|||",
    "\n",
]


@given(st.lists(st.lists(st.sampled_from(TAGS)).map(", ".join), max_size=6))
def test_cleaning_twice_changes_no_more(texts):
    every = CleanOptions(**dict.fromkeys(RULES, True))
    captions = captions_of(texts)
    for _ in range(2):
        captions, before = applied(captions, proposals(captions, every)), captions
    assert {path: caption.tags for path, caption in captions.items()} == {p: c.tags for p, c in before.items()}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [("", "", 0), ("hair", "hair", 0), ("hair", "hiar", 1), ("hair", "har", 1), ("hair", "chair", 1), ("kitten", "sitting", 3),
     ("ca", "abc", 3)],
)  # fmt: skip
def test_distance(one, other, expected):
    assert distance(one, other, 9) == distance(other, one, 9) == expected
    assert distance(one, other, 1) == min(expected, 2)
