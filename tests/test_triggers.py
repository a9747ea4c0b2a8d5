"""Triggers: what speaks against a word, names for outfits and their variants."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.captions.outfit import Garment, garments, outfit_trigger, variants
from lib_lora_trainer.captions.triggers import advice, errors, initials, suggestion

OUTFITS = json.loads((Path(__file__).parent / "golden" / "prune" / "outfits.json").read_text("utf-8"))


@pytest.mark.parametrize("case", OUTFITS, ids=lambda case: case["about"])
def test_outfit_trigger(case):
    assert outfit_trigger(case["counts"]) == case["expected"]
    assert errors(case["expected"] or "x") == ()


def test_the_most_visible_come_first_and_the_rest_is_left_out():
    counts = {"black gloves": 9, "white shirt": 2, "red coat": 1, "blue skirt": 9, "green hat": 5, "purple socks": 5}
    assert outfit_trigger(counts) == "Red_coat_White_shirt_Blue_skirt_Green_hat"
    assert outfit_trigger(counts, 1) == "Red_coat"


def test_tags_of_one_noun_are_one_garment():
    found = garments({"vest": 3, "Frilled_Vest": 5, "brown vest": 5, "red vest": 1, "long sleeves": 9, "shoes": 9})
    assert found == (Garment("vest", ("brown", "red"), ("frilled",), 0, 5),)


def test_variants_share_a_base_and_its_repeats():
    assert variants("Red_coat", ("winter", "summer night"), 10) == (("Red_coat_winter", 5), ("Red_coat_summer_night", 5))
    assert variants("Red_coat", ("a", "b", "c"), 1) == (("Red_coat_a", 0.333), ("Red_coat_b", 0.333), ("Red_coat_c", 0.333))
    for seasons in ((), ("a", "a"), ("a", " ")):
        with pytest.raises(ConfigError, match="variants"):
            variants("Red_coat", seasons, 3)


@pytest.mark.parametrize("word", ["mkrtr", "kayoko (blue archive)", "Brwn_vst"])
def test_rare_words_pass(word):
    assert advice(word) == ()


@pytest.mark.parametrize(
    ("word", "severity", "said"),
    [
        ("red dress", "warning", "is a tag that models know, about dress"),
        ("Mona_Taco", "warning", "contains taco, which models draw"),
        ("MonaTaco", "warning", "contains taco"),
        ("zq", "warning", "is short"),
        ("1234", "warning", "is a number"),
        ("a, b", "error", "has ','"),
        ("<lora:x>", "error", "has '<'"),
        ("", "error", "is empty"),
    ],
)
def test_what_speaks_against_a_word(word, severity, said):
    found = advice(word)
    assert any(problem.severity == severity and said in problem.message for problem in found), found
    assert all(problem.fix for problem in found)


def test_a_word_that_tags_share_is_told_with_a_way_out():
    found = advice("zzaim at viewer", ["looking at viewer", "aiming", "zzaim at viewer"])
    assert [problem.message for problem in found if "shares" in problem.message] == [
        "shares a word with looking at viewer, whose features mix with it."
    ]
    assert any("zav" in problem.fix for problem in found)


def test_suggestions_are_words_that_no_model_knows():
    assert initials("aiming at viewer") == "aav"  # G4's own name for it
    assert suggestion("mikori") == "mkr"
    for word in ("hat", "sky", "art", "red", "by", "b", "star_light", "kayoko (blue archive)"):
        made = suggestion(word)
        assert not any("know" in problem.message or "short" in problem.message for problem in advice(made)), made
