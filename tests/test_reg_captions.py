"""Captions of regularization images: what is cut out, what stays as it is, and how the rest becomes a prompt."""

from __future__ import annotations

import pytest

from lib_lora_trainer.captions import emphasis
from lib_lora_trainer.captions.reduced import as_prompt, contains, cut, mark_problems, matches, reduced, words_of


@pytest.mark.parametrize(
    ("caption", "triggers", "marks", "left"),
    [
        ("mikori, 1girl, smile", ["mikori"], [], "1girl, smile"),
        ("1girl,  smile,hat", ["mikori"], [], "1girl,  smile,hat"),  # nothing goes: byte for byte
        ("Mona_Taco, hat", ["mona taco"], [], "hat"),
        ("mona taco, hat", ["Mona_Taco"], [], "hat"),
        ("a photo of mona taco wearing a hat", ["mona_taco", "mona"], [], "a photo of wearing a hat"),
        ("mona_taco_dress, hat", ["mona_taco"], [], "mona_taco_dress, hat"),  # another tag; `contains` finds it
        ("mikori", ["mikori"], [], ""),
        ("mikori!, hat", ["mikori"], [], "hat"),  # what only punctuation is left of goes
        ("mikori, red dress, hat", ["mikori, red dress"], [], "hat"),  # a trigger of two tags
        ("kayoko (blue archive), horns", ["kayoko (blue archive)"], [], "horns"),
        (r"kayoko \(blue archive\), horns", ["kayoko (blue archive)"], [], "horns"),
        ("美琴は走る, 空", ["美琴"], [], "は走る, 空"),
        ("Red Eyes, black_hair, hat", [], ["red_eyes"], "black_hair, hat"),
        ("black_hair, long hair, hairband", [], ["*_hair"], "hairband"),
        ("a1, a22, b1", [], ["a?"], "a22, b1"),
        ("what?, whats", [], [r"what\?"], "whats"),
        ("red dress, blue dress, dressing", [], [r"/^(red|blue) /"], "dress, dress, dressing"),
        ("red dress, hat", [], ["/.*dress.*/"], "hat"),
        ("hat, :3, smile", [], ["hat"], ":3, smile"),
        ("", ["mikori"], ["*"], ""),
    ],
)
def test_triggers_and_marks_go_and_the_rest_stays(caption, triggers, marks, left):
    assert reduced(caption, cut(triggers, marks), weighted=False) == left


@pytest.mark.parametrize(
    ("caption", "left"),
    [
        ("(mikori:1.2), hat", "hat"),
        ("(mikori, hat:1.2), smile", "(hat:1.2), smile"),
        ("((mikori)), [hat]", "[hat]"),
        ("a (mikori:1.3) girl, hat", "a girl, hat"),
        ("(red eyes, smile), hat", "(smile), hat"),
        (r"(mikori \(series\):1.1), hat", r"( \(series\):1.1), hat"),
        ("(smile, hat:1.2)", "(smile, hat:1.2)"),
    ],
)
def test_brackets_that_weight_words_keep_what_is_left(caption, left):
    assert reduced(caption, cut(["mikori"], ["red_eyes"]), weighted=True) == left.replace("( ", "(")


def test_marks_that_are_no_expression_are_named():
    (problem,) = mark_problems(["hat", "/(/", "*"], "regularization.remove")
    assert problem.severity == "error" and problem.where == "regularization.remove[1]" and "'/(/'" in problem.message


def test_names_are_found_with_and_without_wildcards():
    assert matches("set/one.2", "set/one.2") and matches("Set/one", "set/*") and matches("a[1]", "a[1]")
    assert not matches("set/one", "one") and not matches("onee", "one")


def test_words_of_triggers_and_triggers_left_inside():
    assert words_of(["Mona_Taco"]) == ("mona", "taco")
    assert words_of(["OyamaMihari", "Red1_dress2_Red3_hat"]) == ("oyama", "mihari", "red", "dress", "hat")
    assert words_of(["mikori"]) == () and words_of(["mona taco, mona"]) == ("taco",)
    assert contains("Mona Taco dress", "mona_taco") and contains("mona_taco_dress", "mona_taco")
    assert not contains("mona, taco", "mona_taco")


@pytest.mark.parametrize(
    "caption",
    [
        "name_(series), hat",
        "a [b] (c:1.2)",
        r"back\slash \(x\)",
        "16:9, ratio 16:9",
        "this AND that",
        "a BREAK b",
        "plain",
    ],
)
def test_a_prompt_is_read_as_the_caption_it_comes_from(caption):
    """The text that the WebUI's syntax leaves is the caption's own, one piece of weight 1; CLIP knows no capitals."""
    ((text, weight),) = emphasis.parse(as_prompt(caption, weighted=False))
    assert (text.lower(), weight) == (caption.lower(), 1.0)


def test_a_prompt_with_weights_keeps_them():
    assert as_prompt("(hat:1.2) BREAK x", weighted=True) == "(hat:1.2) BREAK x"
    assert emphasis.parse(as_prompt("(hat:1.2), ratio 16:9", weighted=True)) == (("hat", 1.2), (", ratio 16:9", 1.0))
