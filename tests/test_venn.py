"""The Venn check: which triggers learn the same, where pruned tags land, what more pictures would settle."""

from __future__ import annotations

import pytest

from lib_lora_trainer.captions.prune_values import ImageTags, Line, parse
from lib_lora_trainer.captions.venn import Landing, check, relation, settled_by


def images(*captions: str, prefix: str = "") -> tuple[ImageTags, ...]:
    return tuple(parse(f"{prefix}{number}.png", caption, "|||") for number, caption in enumerate(captions))


def messages(venn, severity):
    return [f"{problem.where} {problem.message}" for problem in venn.findings if problem.severity == severity]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("abc", "abc", "same"), ("ab", "abc", "within"), ("abc", "ab", "around"), ("ab", "bc", "overlapping"),
        ("ab", "cd", "apart"), ("", "", "apart"), ("", "a", "apart"), ("abcdefghijk", "abcdefghij", "almost"),
    ],
)  # fmt: skip
def test_relation(first, second, expected):
    assert relation(frozenset(first), frozenset(second)) == expected


# Two outfits of one character; aqua hair is pruned everywhere, each outfit's clothes only where it is worn.
BEFORE = images(
    "aqua hair, red dress, smile", "aqua hair, red dress", "aqua hair, black coat, gloves", "aqua hair, black coat",
)  # fmt: skip
AFTER = images("mkr, Red, smile", "mkr, Red", "mkr, Black", "mkr, Black")


def test_matrix_and_pairs():
    venn = check(("mkr", "Red", "Black"), AFTER, BEFORE)
    assert venn.matrix == ((4, 2, 2), (2, 2, 0), (2, 0, 2)) and venn.images == 4
    assert [(pair.first, pair.second, pair.relation, pair.common) for pair in venn.pairs] == [
        ("mkr", "Red", "around", 2), ("mkr", "Black", "around", 2), ("Red", "Black", "apart", 0),
    ]  # fmt: skip
    assert messages(venn, "error") == []


def test_pruned_everywhere_belongs_to_the_character_and_pruned_in_one_group_to_its_outfit():
    venn = check(("mkr", "Red", "Black"), AFTER, BEFORE)
    assert venn.landings == (
        Landing("aqua hair", ("mkr",), 4, 4, 0),
        Landing("black coat", ("Black",), 2, 2, 0),
        Landing("red dress", ("Red",), 2, 2, 0),
        Landing("gloves", ("Black",), 1, 2, 0),
    )


def test_triggers_of_the_same_pictures_are_an_error_with_a_way_out():
    same = images("mkr, Red", "Red, MKR")
    venn = check(("mkr", "Red"), same, images("aqua hair, red dress", "aqua hair"))
    assert venn.pairs[0].relation == "same"
    assert len(messages(venn, "error")) == 1 and "both will learn the same" in messages(venn, "error")[0]
    assert venn.landings[0] == Landing("aqua hair", ("mkr", "Red"), 2, 2, 0)
    misc = images("mkr, white shirt", prefix="misc")
    settled = settled_by(misc, ("mkr", "Red"), same, ())
    assert [problem.severity for problem in settled] == ["error"]
    assert settled_by(images("mkr, Red", prefix="more"), ("mkr", "Red"), same, ()) == ()


def test_what_is_pruned_without_a_trigger_becomes_a_part_of_everything():
    venn = check(("mkr",), images("mkr", "smile"), images("aqua hair, mkr", "aqua hair, smile"))
    assert venn.landings == (Landing("aqua hair", (), 2, 0, 0),)
    assert any("part of every picture" in text for text in messages(venn, "warning"))


def test_a_tag_that_stands_elsewhere_by_its_name_is_counted_and_anchored():
    before = images("red dress", "red dress")
    venn = check(("Red",), images("Red", "Red"), before)
    assert any("misc folder" in problem.fix for problem in venn.findings)
    misc = images("red dress, 1girl", prefix="misc")
    anchored = check(("Red",), (*images("Red", "Red"), *misc), (*before, *misc))
    assert anchored.landings == (Landing("red dress", ("Red",), 2, 2, 1),)
    assert messages(anchored, "note") == []


def test_other_pictures_without_the_trigger_need_no_misc_folder():
    after = (*images("Red", "Red"), *images("smile", prefix="other"))
    venn = check(("Red",), after, (*images("red dress", "red dress"), *images("smile", prefix="other")))
    assert messages(venn, "note") == []


def test_absent_single_and_nearly_equal_triggers():
    captions = images(*["a, b"] * 10, "a, c")
    venn = check(("a", "b", "c", "d"), captions)
    assert messages(venn, "error") == ["trigger 'd' is in no caption."]
    assert any("'c' is in one picture only" in text for text in messages(venn, "warning"))
    assert any("'a' and 'b' share 10 pictures" in text for text in messages(venn, "warning"))


def test_tags_pruned_from_few_pictures_of_their_trigger_are_told():
    captions = images(*["mkr"] * 5)
    venn = check(("mkr",), captions, images("hat", *[""] * 4))
    assert any("hat are pruned from less than half" in text for text in messages(venn, "warning"))


def test_nothing_at_all():
    venn = check((), (), ())
    assert (venn.matrix, venn.pairs, venn.landings, venn.findings) == ((), (), (), ())
    assert check(("a",), (ImageTags("x", (Line(()),)),)).matrix == ((0,),)
