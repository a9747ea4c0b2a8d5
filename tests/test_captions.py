"""Tags, per-exposure captions and tag counts."""

import json
import random
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_lora_trainer.captions.stats import tag_frequency
from lib_lora_trainer.captions.tags import join, split
from lib_lora_trainer.captions.variants import Moment, effective, is_fixed, reasons_varying, vary
from lib_lora_trainer.captions.wildcards import one_line, resolve
from lib_lora_trainer.config.data import CaptionConfig, SourceConfig

REFERENCE = json.loads((Path(__file__).parent / "reference" / "captions.json").read_text(encoding="utf-8"))
START = Moment(0.0, 0, 100, 1)
END = Moment(1.0, 100, 100, 5)
PLAIN = CaptionConfig(shuffle=False, keep_tokens=0)
TEXT = st.text(st.characters(blacklist_characters=",|;", blacklist_categories=("Cs",)), min_size=1)
TAGS = st.lists(TEXT, max_size=12)
LONG = join(f"t{number}" for number in range(12))


def at(step: int, steps: int = 100) -> Moment:
    return Moment(step / steps, step, steps, 1)


def test_split_and_join():
    assert split(" sks ,1girl,, blue hair , ") == ("sks", "1girl", "blue hair")
    assert split("") == split(" , ,") == ()
    assert split("猫, 🐱, ネコ") == ("猫", "🐱", "ネコ")
    assert join(("sks", "blue hair")) == "sks, blue hair"
    assert join(()) == ""


def test_the_first_tags_stay_and_the_rest_moves():
    caption, config = "sks, 1girl, a, b, c, d, e, f", CaptionConfig(keep_tokens=2)
    varied = {vary(caption, config, seed, START) for seed in range(20)}
    assert len(varied) > 15
    assert all(text.startswith("sks, 1girl, ") for text in varied)
    assert vary(caption, config, 3, START) == vary(caption, config, 3, END)
    free = ["a", "b", "c", "d", "e", "f"]
    random.Random(3).shuffle(free)
    assert vary(caption, config, 3, START) == "sks, 1girl, " + ", ".join(free)


@given(tags=TAGS, keep=st.integers(0, 15), seed=st.integers(0, 2**63 - 1))
def test_no_tag_is_lost_or_added(tags, keep, seed):
    before = split(",".join(tags))
    after = split(vary(",".join(tags), CaptionConfig(keep_tokens=keep), seed, START))
    assert Counter(before) == Counter(after)
    assert before[:keep] == after[:keep]


@given(caption=st.text().filter(lambda text: "|||" not in text and ";;;" not in text), seed=st.integers(0, 2**32))
def test_without_shuffling_a_caption_is_untouched(caption, seed):
    assert vary(caption, CaptionConfig(shuffle=False), seed, START) == caption


def test_the_prefix_comes_first_and_is_not_counted():
    config = CaptionConfig(shuffle=True, keep_tokens=1, prefix=" sks ")
    assert vary("1girl, hat", config, 0, START) == "sks, 1girl, hat"
    assert all(vary("1girl, a, b, c", config, seed, START).startswith("sks, 1girl, ") for seed in range(20))
    sentence = "A  girl,standing in the rain.\tShe smiles ."
    assert vary(sentence, replace(PLAIN, prefix="sks"), 0, START) == "sks, " + sentence
    assert vary(sentence, replace(PLAIN, prefix="A photo of sks."), 0, START) == "A photo of sks. " + sentence


def test_the_suffix_comes_last_with_a_comma_of_its_own_or_ours():
    config = CaptionConfig(keep_tokens=1, suffix=" best quality ")
    assert all(vary("sks, a, b, c", config, seed, START).endswith(", best quality") for seed in range(20))
    assert vary("She smiles.", replace(PLAIN, suffix="Best quality."), 0, START) == "She smiles. Best quality."
    assert vary("sks, hat", replace(PLAIN, suffix=", best quality"), 0, START) == "sks, hat, best quality"
    assert vary("", replace(PLAIN, prefix="sks", suffix="best"), 0, START) == "sks, best"


def test_empty_captions():
    assert vary("", CaptionConfig(), 1, START) == ""
    assert vary("", CaptionConfig(prefix="sks"), 1, START) == "sks"
    assert vary("", CaptionConfig(shuffle=False, prefix="sks"), 1, START) == "sks"
    assert vary(" , ", CaptionConfig(prefix="sks"), 1, START) == "sks"


def test_captions_are_dropped_as_often_as_asked_with_prefix_and_suffix():
    config = replace(PLAIN, dropout=0.3, prefix="sks", suffix="best")
    empty = sum(vary("hat", config, seed, START) == "" for seed in range(2000))
    assert abs(empty - 600) < 3 * (2000 * 0.3 * 0.7) ** 0.5
    every = replace(PLAIN, dropout_every_epochs=3)
    assert [vary("hat", every, 0, replace(START, epoch=epoch)) for epoch in range(1, 7)] == ["hat", "hat", ""] * 2


def test_tags_are_dropped_as_often_as_asked_and_kept_ones_never():
    config = replace(PLAIN, keep_tokens=1, tag_dropout=0.25)
    varied = [split(vary("sks, a, b, c, d", config, seed, START)) for seed in range(1000)]
    assert all(tags[0] == "sks" for tags in varied)
    assert abs(sum(len(tags) - 1 for tags in varied) - 3000) < 3 * (4000 * 0.25 * 0.75) ** 0.5
    assert all(list(tags) == sorted(tags, key=["sks", "a", "b", "c", "d"].index) for tags in varied)


def test_separators_keep_what_stands_before_and_behind():
    config, caption = CaptionConfig(keep_tokens=1), "sks, 1girl ||| a, b, c, d ||| best, x"
    varied = {vary(caption, config, seed, START) for seed in range(30)}
    assert len(varied) > 12
    assert all(text.startswith("sks, 1girl, ") and text.endswith(", best, x") for text in varied)
    assert all(Counter(split(text)) == Counter(["sks", "1girl", "a", "b", "c", "d", "best", "x"]) for text in varied)
    together = {vary("sks, red hair;;;blue eyes, a, b", config, seed, START) for seed in range(30)}
    assert all("red hair,blue eyes" in text for text in together) and len(together) == 6
    assert vary("A girl . ||| In the rain", PLAIN, 0, START) == "A girl . In the rain"
    assert vary("hat", replace(PLAIN, prefix="sks ||| 1girl"), 0, START) == "sks, 1girl, hat"


def test_the_token_warm_up_grows_from_its_start_to_all_tags():
    config = replace(PLAIN, keep_tokens=1, warmup=0.5, warmup_tags=2)
    caption = "sks, " + LONG
    counts = [len(split(vary(caption, config, 0, at(step)))) - 1 for step in range(100)]
    assert counts[:50] == [2 + step * 10 // 50 for step in range(50)]
    assert counts[50:] == [12] * 50
    by_steps = replace(config, warmup=50.0)
    assert [len(split(vary(caption, by_steps, 0, at(step)))) - 1 for step in range(100)] == counts
    assert vary(caption, config, 0, at(25)) == "sks, t0, t1, t2, t3, t4, t5, t6"
    many = join(f"t{number}" for number in range(50))  # 0.29 / 0.5 · 50 is a little below 29 in floating point
    assert len(split(vary(many, replace(PLAIN, warmup=0.5, warmup_tags=0), 0, at(29)))) == 29


OPTIONS = {
    "shuffle": True,
    "tag_dropout": 0.4,
    "warmup": 0.9,
    "wildcards": True,
    "dropout": 0.3,
    "prefix": "{p|q}",
    "suffix": "last",
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("others", ["none", "all"])
def test_switching_an_option_changes_no_draw_of_another(option, others):
    """What is left out, chosen and first stays the same; an option adds its own change and no other."""
    base = replace(PLAIN, **({} if others == "none" else {k: v for k, v in OPTIONS.items() if k != option}))
    more = replace(base, **{option: OPTIONS[option]})
    caption = LONG if option == "wildcards" else LONG + ", {x|y|z}"
    for seed in range(60):
        without, having = vary(caption, base, seed, at(30)), vary(caption, more, seed, at(30))
        if option == "dropout":
            assert having in (without, "")
        elif option in ("prefix", "suffix"):
            assert split(without) == (split(having)[1:] if option == "prefix" else split(having)[:-1])
        elif option == "shuffle":
            assert Counter(split(without)) == Counter(split(having))
        elif option == "wildcards":
            assert without.removeprefix("{p|q}") == having.removeprefix("p").removeprefix("q")
        else:  # fewer tags, in the same order among each other
            order = split(without)
            assert list(split(having)) == [tag for tag in order if tag in split(having)]


def test_every_draw_is_its_own():
    configs = [replace(PLAIN, **{name: value}) for name, value in (("dropout", 0.5), ("tag_dropout", 0.5))]
    dropped = [vary("a", configs[0], seed, START) == "" for seed in range(200)]
    thinned = [vary("a", configs[1], seed, START) == "" for seed in range(200)]
    assert 60 < sum(one == two for one, two in zip(dropped, thinned, strict=True)) < 140


def test_wildcards_choose_evenly_and_each_on_its_own():
    config = replace(PLAIN, wildcards=True)
    chosen = Counter(vary("{a|b|c}, {1|2}", config, seed, START) for seed in range(1200))
    assert set(chosen) == {f"{letter}, {number}" for letter in "abc" for number in "12"}
    assert all(abs(count - 200) < 60 for count in chosen.values())
    assert {vary("one, {a}\n\n two ", config, seed, START) for seed in range(20)} == {"one, a", "two"}
    assert vary("one\ntwo", PLAIN, 0, START) == "one\ntwo"


@pytest.mark.parametrize(
    ("text", "possible"),
    [
        ("{a|b} c", {"a c", "b c"}),
        ("{a|}", {"a", ""}),
        ("{a|{b|c} d}", {"a", "b d", "c d"}),
        ("{a|{b|c}}", {"a", "b", "c"}),
        ("{x|{y|{z|w}}}", {"x", "y", "z", "w"}),
        ("{{a|b}}", {"{a|b}"}),
        ("{x|{{y}}}", {"x", "{y}"}),
        ("{{{a|b}", {"{a", "{b"}),
        ("{x|{y|{{z}}}}", {"x", "y", "{z}"}),
        ("{}", {"{}"}),
        ("a | b } c", {"a | b } c"}),
        ("{a|b, {c|d}", {"{a|b, c", "{a|b, d"}),
        ("{a|b", {"{a|b"}),
        ("", {""}),
    ],
)
def test_wildcard_syntax(text, possible):
    assert {resolve(text, seed) for seed in range(80)} == possible


@given(text=st.text("{}|a ", max_size=12), seed=st.integers(0, 2**40))
def test_any_braces_can_be_read(text, seed):
    assert set(resolve(text, seed)) <= set(text)
    assert one_line(text, seed) == text


def test_a_wildcard_keeps_its_choice_when_another_changes():
    for seed in range(40):
        assert resolve("{a|b} {c|d}", seed)[-1] == resolve("{e|f|g} {c|d}", seed)[-1]


def test_with_emphasis_brackets_keep_their_tags_together():
    caption = "sks, (blue eyes, red hair:1.2), a, b"
    varied = {vary(caption, CaptionConfig(emphasis=True), seed, START) for seed in range(40)}
    assert len(varied) == 6
    assert all("(blue eyes, red hair:1.2)" in text for text in varied)
    assert any("(blue eyes, red hair:1.2)" not in vary(caption, CaptionConfig(), seed, START) for seed in range(40))


def test_a_source_overrides_what_it_names():
    general = CaptionConfig(prefix="p", keep_tokens=3, dropout=0.1, tag_dropout=0.2, suffix="s")
    assert effective(general, SourceConfig()) == general
    own = SourceConfig(shuffle=False, keep_tokens=0, prefix="", suffix="", caption_dropout=0.0, tag_dropout=0.0)
    made = effective(general, own)
    assert made == CaptionConfig(shuffle=False, keep_tokens=0)
    named = {field.name for field in fields(SourceConfig)} & {field.name for field in fields(CaptionConfig)}
    assert named == {"shuffle", "keep_tokens", "prefix", "suffix", "tag_dropout"}


def test_what_varies_is_named():
    assert reasons_varying(PLAIN) == () and is_fixed(PLAIN)
    assert reasons_varying(CaptionConfig()) == ("shuffle",)
    every = replace(
        PLAIN, shuffle=True, dropout=0.1, dropout_every_epochs=2, tag_dropout=0.1, warmup=0.1, wildcards=True
    )
    names = reasons_varying(every)
    assert names == ("shuffle", "dropout", "dropout_every_epochs", "tag_dropout", "warmup", "wildcards")
    assert all(not is_fixed(replace(PLAIN, **{name: getattr(every, name)})) for name in names)


@given(
    caption=st.text("ab,{|}; \n"),
    prefix=st.sampled_from(["", "{p|q}", "p|||q"]),
    keep=st.integers(0, 3),
    separator=st.sampled_from(["|||", ""]),
    emphasis=st.booleans(),
)
def test_a_fixed_caption_never_varies(caption, prefix, keep, separator, emphasis):
    config = CaptionConfig(shuffle=False, prefix=prefix, keep_tokens=keep, separator=separator, emphasis=emphasis)
    assert is_fixed(config)
    assert len({vary(caption, config, seed, moment) for seed in range(4) for moment in (START, END)}) == 1


COMMA = "a comma, not a bare space, between prefix or suffix and caption: the bare space glues two tags into one"
EMPTY = "empty tags are left out: they are commas without a word"
MARK = "the keep separator is a mark and never reaches the text encoder"
LINES = "all lines count where no wildcards are on, not the first alone"
DIFFERENCES = {
    "prefix": ("photo of, sks, 1girl, a, b, c, d, e, f, g, h", COMMA),
    "suffix": ("sks, 1girl, a, b, c, d, e, f, g, h, best quality", COMMA),
    "tags joined, empty ones": ("sks, a", EMPTY),
    "three separators": ("sks, a, b, c", MARK),
    "separator without tag options": ("sks, a, b", MARK),
    "several lines": ("first, a\nsecond, b", LINES),
}
NAMES = {
    "caption_prefix": "prefix",
    "caption_suffix": "suffix",
    "caption_dropout_rate": "dropout",
    "caption_dropout_every_n_epochs": "dropout_every_epochs",
    "caption_tag_dropout_rate": "tag_dropout",
    "enable_wildcard": "wildcards",
    "token_warmup_min": "warmup_tags",
    "token_warmup_step": "warmup",
    "keep_tokens": "keep_tokens",
    "keep_tokens_separator": "separator",
    "secondary_separator": "secondary_separator",
}


@pytest.mark.parametrize("case", REFERENCE["cases"], ids=lambda case: case["name"])
def test_captions_are_those_of_sd_scripts_but_for_named_differences(case):
    config = replace(PLAIN, **{NAMES[name]: value for name, value in case["options"].items()})
    now = case["moment"]
    moment = Moment(now["step"] / now["steps"], now["step"], now["steps"], now["epoch"])
    ours = vary(case["caption"], config, 5, moment)
    if case["name"] in DIFFERENCES:
        assert ours == DIFFERENCES[case["name"]][0] != case["result"]
    else:
        assert ours == case["result"]


def test_every_named_difference_is_a_reference_case():
    assert REFERENCE["commit"].startswith("48d368f")
    assert set(DIFFERENCES) <= {case["name"] for case in REFERENCE["cases"]}


def test_tag_frequency_counts_lower_case_per_concept():
    counted = tag_frequency({"10_a": ["SKS, hat", "sks,  Hat , bow", "sks"], "b": ["", "Über"], "c": []})
    assert counted == {"10_a": {"sks": 3, "hat": 2, "bow": 1}, "b": {"über": 1}, "c": {}}
    assert list(counted["10_a"]) == ["sks", "hat", "bow"]
