"""Which tags a picture gets from scores: hand-worked cases for thresholds, several taggers, rules, order and spelling."""

from __future__ import annotations

import pytest

from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.captions.emphasis import parse
from lib_lora_trainer.tagging import options, rules, spelling
from lib_lora_trainer.tagging.choose import Opinion, largest_gap, rating, tags
from lib_lora_trainer.tagging.models import CATALOGUE, Model, known
from lib_lora_trainer.tagging.options import TagOptions
from lib_lora_trainer.tagging.scores import Scored

GENERAL = {"1girl": 0.98, "hat": 0.6, "long hair": 0.4, "^_^": 0.36, "smile": 0.3, "rain": 0.02}
CHARACTER = {"kayoko (blue archive)": 0.9, "aru (blue archive)": 0.5}
RATING = {"sensitive": 0.7, "general": 0.2, "questionable": 0.1, "explicit": 0.0}


def opinion(general=None, character=None, names=(), about=None, rated=None):
    general, character = general or {}, character or {}
    scored = Scored("t", general, character, rated or {})
    return Opinion(scored, about or Model("t"), frozenset((*general, *character, *names)))


def one(**changes):
    return tags([opinion(GENERAL, CHARACTER, rated=RATING)], TagOptions(**changes))


def test_characters_come_first_and_each_kind_has_its_own_threshold():
    assert one() == ("kayoko (blue archive)", "1girl", "hat", "long hair", "^_^")
    assert one(character_threshold=0.5)[:2] == ("kayoko (blue archive)", "aru (blue archive)")
    assert one(general_threshold=0.6) == ("kayoko (blue archive)", "1girl", "hat")
    assert one(character_first=False) == ("1girl", "kayoko (blue archive)", "hat", "long hair", "^_^")


def test_a_tagger_has_its_own_threshold_unless_the_user_sets_one():
    about = known("SmilingWolf/wd-eva02-large-tagger-v3")
    assert about is not None and about.general == 0.5296
    said = [opinion(GENERAL, about=about)]
    assert tags(said, TagOptions()) == ("1girl", "hat")
    assert tags(said, TagOptions(general_threshold=0.4)) == ("1girl", "hat", "long hair")


def test_the_catalogue_has_every_model_with_a_threshold_of_its_own():
    assert len(CATALOGUE) == 12 and len({model.name for model in CATALOGUE}) == 12
    assert {model.general for model in CATALOGUE} >= {0.2606, 0.2614, 0.2653, 0.2682, 0.3537, 0.3685, 0.371, 0.3771}


def test_the_largest_gap_is_cut_in_its_middle():
    assert largest_gap([0.9, 0.1, 0.8, 0.05]) == pytest.approx(0.45)
    assert largest_gap([0.5]) == 1.0 and largest_gap([]) == 1.0
    # 0.98 | 0.6 is the largest gap among general tags, 0.9 | 0.5 among characters.
    assert one(cut="largest-gap") == ("kayoko (blue archive)", "1girl")
    low = [opinion(GENERAL, {"a": 0.12, "b": 0.01})]
    assert tags(low, TagOptions(cut="largest-gap")) == ("1girl",), "characters below 0.15 are noise"


def test_union_intersection_and_mean_of_two_taggers():
    first = opinion({"hat": 0.9, "rain": 0.5, "cat": 0.4})
    second = opinion({"hat": 0.8, "rain": 0.1, "dog": 0.7}, names=["cat"])
    both = [first, second]
    assert tags(both, TagOptions()) == ("hat", "dog", "rain", "cat")
    # dog is unknown to the first, so it has no say about it; cat is known to the second, which does not see one.
    assert tags(both, TagOptions(combine="intersection")) == ("hat", "dog")
    # rain: (0.5 + 0.1) / 2 = 0.3 < 0.35; cat: (0.4 + 0) / 2.
    assert tags(both, TagOptions(combine="mean")) == ("hat", "dog")
    # Thresholds 0.5296 and 0.2606 have the mean 0.3951; dog is compared with the second one's alone.
    models = [known("wd-eva02-large-tagger-v3"), known("wd-vit-large-tagger-v3")]
    assert all(models)
    mixed = [
        opinion({"hat": 0.5, "rain": 0.3}, about=models[0]),
        opinion({"hat": 0.3, "rain": 0.48, "dog": 0.27}, about=models[1]),
    ]
    assert tags(mixed, TagOptions(combine="mean")) == ("hat", "dog")
    assert tags(mixed, TagOptions(combine="intersection")) == ("dog",)
    assert tags(mixed, TagOptions()) == ("hat", "rain", "dog")


def test_scores_of_a_union_are_the_highest():
    both = [opinion({"a": 0.5, "b": 0.6}), opinion({"a": 0.9, "b": 0.1})]
    assert tags(both, TagOptions()) == ("a", "b")
    assert tags(both, TagOptions(maximum=1)) == ("a",)
    assert tags(both, TagOptions(combine="intersection", general_threshold=0.1, maximum=1)) == ("a",)


def test_the_rating_is_written_where_it_is_wanted():
    assert one(rating="first")[0] == "sensitive" and one(rating="last")[-1] == "sensitive"
    assert "sensitive" not in one()
    assert one(rating="first", maximum=1) == ("sensitive", "1girl"), "it does not count"
    assert one(rating="last", replace=("sensitive=rating: sensitive",))[-1] == "rating: sensitive"
    assert one(rating="last", exclude=("sensitive",))[-1] == "^_^"
    ratings = [opinion(rated={"general": 0.6, "explicit": 0.4}), opinion(rated={"general": 0.1, "explicit": 0.9})]
    assert rating(ratings) == "explicit" and rating([opinion()]) == ""
    assert tags([opinion({"hat": 0.9})], TagOptions(rating="first")) == ("hat",)


def test_order_maximum_and_spelling():
    assert one(order="alphabet") == ("kayoko (blue archive)", "1girl", "^_^", "hat", "long hair")
    # The two with the highest scores, whatever the order.
    assert one(maximum=2, order="alphabet") == ("kayoko (blue archive)", "1girl")
    assert one(underscores=True) == ("kayoko_(blue_archive)", "1girl", "hat", "long_hair", "^_^")
    assert one(escape=True)[0] == r"kayoko \(blue archive\)"
    assert one(escape=True, underscores=True)[0] == r"kayoko_\(blue_archive\)"


def test_tags_are_left_out_and_replaced_in_any_spelling():
    assert one(exclude=("Long_Hair", r"kayoko \(blue archive\)", "^_^")) == ("1girl", "hat")
    assert one(exclude=("/.*hair|h.t/",)) == ("kayoko (blue archive)", "1girl", "^_^")
    assert one(exclude=("/hai/",)) == one(), "the whole tag has to match"
    assert one(exclude=("kayoko (blue archive)",))[0] == "1girl", "brackets are no group"
    assert one(replace=("hat=black hat, feather", "long hair=")) == (
        "kayoko (blue archive)", "1girl", "black hat", "feather", "^_^",
    )  # fmt: skip
    assert one(replace=(r"/(\w+) hair/=hair, \1",)) == ("kayoko (blue archive)", "1girl", "hat", "hair", "long", "^_^")
    assert one(replace=("^_^=1girl",)) == ("kayoko (blue archive)", "1girl", "hat", "long hair"), "each once"
    assert one(replace=("hat=cap",), exclude=("cap",)) == ("kayoko (blue archive)", "1girl", "long hair", "^_^")
    assert rules.replacement("=_==smile")("=_=") == ("smile",)
    assert rules.replacement("/a=b/=c")("a=b") == ("c",)


@pytest.mark.parametrize("text", ["nothing", "=new", "/(/=x", r"/a/=\2", "  =x"])
def test_replacements_that_make_no_sense_are_refused(text):
    with pytest.raises(ConfigError):
        rules.replacement(text)


def test_every_mistake_in_the_options_is_told_at_once():
    wish = TagOptions(taggers=(), general_threshold=2, exclude=("ok", "/[/"), replace=("nothing",), combine="both")
    assert [problem.where for problem in options.problems(wish)] == [
        "combine", "general_threshold", "taggers", "exclude[1]", "replace[0]",
    ]  # fmt: skip
    assert options.problems(TagOptions()) == []


def test_underscores_become_spaces_except_in_faces_and_come_back():
    names = ("long_hair", "kayoko_(blue_archive)", "(o)_(o)", "<|>_<|>", "||_||", "^_^", ":d", "k-on!")
    spaced = tuple(map(spelling.with_spaces, names))
    assert spaced == ("long hair", "kayoko (blue archive)", "(o)_(o)", "<|>_<|>", "||_||", "^_^", ":d", "k-on!")
    assert tuple(map(spelling.with_underscores, spaced)) == names


@pytest.mark.parametrize("tag", ["kayoko (blue archive)", "(o)_(o)", "a [b] (c:1.2)", "back\\slash", "\\(", "|_|"])
def test_an_escaped_tag_is_plain_text_in_a_prompt_and_comes_back(tag):
    assert parse(spelling.escaped(tag)) == ((tag, 1.0),)
    assert spelling.unescaped(spelling.escaped(tag)) == tag
