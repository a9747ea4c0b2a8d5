"""Tags, per-exposure captions and tag counts."""

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from lib_lora_trainer.captions.stats import tag_frequency
from lib_lora_trainer.captions.tags import join, split
from lib_lora_trainer.captions.variants import vary
from lib_lora_trainer.config.data import CaptionConfig

TAGS = st.lists(st.text(st.characters(blacklist_characters=",", blacklist_categories=("Cs",)), min_size=1), max_size=12)


def test_split_and_join():
    assert split(" sks ,1girl,, blue hair , ") == ("sks", "1girl", "blue hair")
    assert split("") == split(" , ,") == ()
    assert split("猫, 🐱, ネコ") == ("猫", "🐱", "ネコ")
    assert join(("sks", "blue hair")) == "sks, blue hair"
    assert join(()) == ""


def test_the_first_tags_stay_and_the_rest_moves():
    caption, config = "sks, 1girl, a, b, c, d, e, f", CaptionConfig(keep_tokens=2)
    varied = {vary(caption, config, seed) for seed in range(20)}
    assert len(varied) > 15
    assert all(text.startswith("sks, 1girl, ") for text in varied)
    assert vary(caption, config, 3) == vary(caption, config, 3)
    free = ["a", "b", "c", "d", "e", "f"]
    random.Random(3).shuffle(free)
    assert vary(caption, config, 3) == "sks, 1girl, " + ", ".join(free)


@given(tags=TAGS, keep=st.integers(0, 15), seed=st.integers(0, 2**63 - 1))
def test_no_tag_is_lost_or_added(tags, keep, seed):
    before = split(",".join(tags))
    after = split(vary(",".join(tags), CaptionConfig(keep_tokens=keep), seed))
    assert Counter(before) == Counter(after)
    assert before[:keep] == after[:keep]


@given(caption=st.text(), seed=st.integers(0, 2**32))
def test_without_shuffling_a_caption_is_untouched(caption, seed):
    assert vary(caption, CaptionConfig(shuffle=False), seed) == caption


def test_the_prefix_comes_first_and_is_not_counted():
    config = CaptionConfig(shuffle=True, keep_tokens=1, prefix=" sks ")
    assert vary("1girl, hat", config, 0) == "sks, 1girl, hat"
    assert all(vary("1girl, a, b, c", config, seed).startswith("sks, 1girl, ") for seed in range(20))
    sentence = "A  girl,standing in the rain.\tShe smiles ."
    assert vary(sentence, CaptionConfig(shuffle=False, prefix="sks"), 0) == "sks, " + sentence
    assert vary(sentence, CaptionConfig(shuffle=False, prefix="A photo of sks."), 0) == "A photo of sks. " + sentence


def test_empty_captions():
    assert vary("", CaptionConfig(), 1) == ""
    assert vary("", CaptionConfig(prefix="sks"), 1) == "sks"
    assert vary("", CaptionConfig(shuffle=False, prefix="sks"), 1) == "sks"
    assert vary(" , ", CaptionConfig(prefix="sks"), 1) == "sks"


def test_tag_frequency_counts_lower_case_per_concept():
    counted = tag_frequency({"10_a": ["SKS, hat", "sks,  Hat , bow", "sks"], "b": ["", "Über"], "c": []})
    assert counted == {"10_a": {"sks": 3, "hat": 2, "bow": 1}, "b": {"über": 1}, "c": {}}
    assert list(counted["10_a"]) == ["sks", "hat", "bow"]
