"""Emphasis is read as the WebUI reads it."""

import ast
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_lora_trainer.captions.emphasis import BREAK, parse, split_tags

# What modules/prompt_parser.py parse_prompt_attention of the WebUI 1.10.1 returns.
GOLDEN = [
    ("", (("", 1.0),)),
    ("normal text", (("normal text", 1.0),)),
    ("an (important) word", (("an ", 1.0), ("important", 1.1), (" word", 1.0))),
    ("a [weak] word", (("a ", 1.0), ("weak", 1 / 1.1), (" word", 1.0))),
    ("(hat:1.3), bow", (("hat", 1.3), (", bow", 1.0))),
    ("(hat: -.5 )", (("hat", -0.5),)),
    ("(hat:+2)", (("hat", 2.0),)),
    ("(unbalanced", (("unbalanced", 1.1),)),
    ("[unbalanced", (("unbalanced", 1 / 1.1),)),
    ("a)b]c", (("a)b]c", 1.0),)),
    ("hat:1.3)", (("hat:1.3)", 1.0),)),
    ("[hat:1.3)", (("hat:1.3)", 1 / 1.1),)),
    (r"\(literal\]", (("(literal]", 1.0),)),
    (r"name \(series\), (hat)", (("name (series), ", 1.0), ("hat", 1.1))),
    ("name_(series)", (("name_", 1.0), ("series", 1.1))),
    (r"a\\b \c", ((r"a\b c", 1.0),)),
    ("(unnecessary)(parens)", (("unnecessaryparens", 1.1),)),
    ("(a [b) c]", (("a ", 1.1), ("b", 1.1 / 1.1), (" c", 1 / 1.1))),
    ("a (b) 12:30", (("a ", 1.0), ("b", 1.1), (" 12:30", 1.0))),
    (
        "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
        (
            ("a ", 1.0),
            ("house", 1.5730000000000004),
            (" ", 1.1),
            ("on", 1.0),
            (" a ", 1.1),
            ("hill", 0.55),
            (", sun, ", 1.1),
            ("sky", 1.4641000000000006),
            (".", 1.1),
        ),
    ),
    ("a BREAK b", (("a", 1.0), ("BREAK", -1.0), ("b", 1.0))),
    ("BREAK", (("", 1.0), ("BREAK", -1.0), ("", 1.0))),
    ("(a BREAK b)", (("a", 1.1), ("BREAK", -1.1), ("b", 1.1))),
    ("BREAKFAST, aBREAK", (("BREAKFAST, aBREAK", 1.0),)),
]


@pytest.mark.parametrize(("text", "pieces"), GOLDEN)
def test_pieces_and_weights_are_the_webuis(text, pieces):
    assert parse(text) == pieces


def the_webuis_parser():
    """Return the WebUI's own function, taken out of its file, which imports more than a test needs."""
    path = Path(os.environ["SD_WEBUI_DIR"]) / "modules" / "prompt_parser.py"
    names = {"re_attention", "re_break", "parse_prompt_attention"}
    found = [
        node
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if getattr(node, "name", "") in names
        or (isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in names)
    ]
    assert len(found) == 3
    module = {"re": re}
    exec(compile(ast.Module(found, []), str(path), "exec"), module)
    return module["parse_prompt_attention"]


@pytest.mark.webui
@pytest.mark.filterwarnings("ignore:.*invalid escape")
def test_the_golden_values_are_the_webuis():
    real = the_webuis_parser()
    for text, pieces in GOLDEN:
        assert tuple(map(tuple, real(text))) == pieces


PARTS = st.sampled_from(
    ["(", ")", "[", "]", "\\", ":", ":1.3)", ": -.5 )", ":1)", "BREAK", " BREAK ", "a", "b c", ", ", "\n", "7", ":.)"]
)


@pytest.mark.webui
@pytest.mark.filterwarnings("ignore:.*invalid escape")
def test_any_text_is_read_as_by_the_webui():
    real = the_webuis_parser()

    @given(st.lists(PARTS, max_size=14).map("".join))
    def agree(text):
        try:
            expected = tuple((words, float(weight)) for words, weight in real(text))
        except ValueError:  # a weight that is no number; see the test below
            parse(text)
        else:
            assert parse(text) == expected

    agree()


def test_a_weight_that_is_no_number_is_text():
    assert parse("(hat:1.2.3)") == (("hat:1.2.3", 1.1),)
    assert parse("(hat:.)") == (("hat:.", 1.1),)


@given(st.text(st.characters(blacklist_characters="()[]\\", blacklist_categories=("Cs",)), min_size=1))
def test_text_without_brackets_is_one_piece(text):
    if not re.search(r"\bBREAK\b", text):
        assert parse(text) == ((text, 1.0),)


def test_break_within_brackets_is_no_break():
    assert BREAK in parse("a BREAK b")
    assert BREAK not in parse("(a BREAK b)")


def test_commas_in_brackets_separate_no_tags():
    assert split_tags("a, (b, c:1.2), [d, e], f") == ("a", "(b, c:1.2)", "[d, e]", "f")
    assert split_tags(r"a \(b, c\), d") == (r"a \(b", r"c\)", "d")
    assert split_tags("((a, b), c), d") == ("((a, b), c)", "d")
    assert split_tags("a), b, (c, d") == ("a)", "b", "(c, d")
    assert split_tags(" , ,") == () == split_tags("")
    assert split_tags("a, b\\") == ("a", "b\\")
