"""Blocks and rules as people write them: what they mean, and what is said when they are wrong."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_lora_trainer.adapters import blocks, rules
from lib_lora_trainer.adapters.targets import Layer
from lib_lora_trainer.base.errors import ConfigError, ProblemsFound
from lib_lora_trainer.config.adapter import AdapterConfig

FAMILIES = ("sd1", "sd2", "sdxl")


def unet(path: str) -> Layer:
    return Layer("unet", path, 8, 8)


def found(*lines: str, family: str = "sd1", **settings: object) -> list[str]:
    return [str(problem) for problem in rules.problems(AdapterConfig(rules=lines, **settings), family)]


def test_the_orders_are_those_of_lora_block_weight():
    assert " ".join(blocks.ORDERS[12]) == "BASE IN04 IN05 IN07 IN08 MID OUT00 OUT01 OUT02 OUT03 OUT04 OUT05"
    assert " ".join(blocks.ORDERS[17]) == (
        "BASE IN01 IN02 IN04 IN05 IN07 IN08 MID OUT03 OUT04 OUT05 OUT06 OUT07 OUT08 OUT09 OUT10 OUT11"
    )
    assert " ".join(blocks.ORDERS[20]) == (
        "BASE IN00 IN01 IN02 IN03 IN04 IN05 IN06 IN07 IN08 MID OUT00 OUT01 OUT02 OUT03 OUT04 OUT05 OUT06 OUT07 OUT08"
    )
    assert blocks.ORDERS[26][10:16] == ("IN09", "IN10", "IN11", "MID", "OUT00", "OUT01")
    assert {count: len(order) for count, order in blocks.ORDERS.items()} == {12: 12, 17: 17, 20: 20, 26: 26}


@pytest.mark.parametrize(
    ("path", "block"),
    [
        ("input_blocks.0.0", "IN00"),
        ("input_blocks.11.0.in_layers.2", "IN11"),
        ("middle_block.1.proj_in", "MID"),
        ("output_blocks.0.0.emb_layers.1", "OUT00"),
        ("output_blocks.10.1.transformer_blocks.0.attn1.to_q", "OUT10"),
        ("time_embed.0", ""),
        ("label_emb.0.2", ""),
        ("out.0", ""),
        ("out.2", ""),
    ],
)
def test_a_layer_is_in_the_block_of_its_path(path, block):
    assert blocks.block_of(unet(path), "sd1") == block


def test_text_encoders_are_the_base_and_foreign_blocks_are_refused():
    for part in ("te", "te1", "te2"):
        assert blocks.block_of(Layer(part, "text_model.encoder.layers.0.mlp.fc1", 8, 8), "sdxl") == "BASE"
    with pytest.raises(ConfigError, match="IN09; sdxl has IN00 to IN08, MID, OUT00 to OUT08"):
        blocks.block_of(unet("input_blocks.9.0.op"), "sdxl")


@pytest.mark.parametrize(
    ("text", "family", "expected"),
    [
        ("IN04-07,MID,OUT03-06", "sd1", "IN04 IN05 IN06 IN07 MID OUT03 OUT04 OUT05 OUT06"),
        ("in4 - in07", "sd1", "IN04 IN05 IN06 IN07"),
        ("IN04\uff0d\uff10\uff15\uff0cＭＩＤ、out03\u3000OUT05", "sd1", "IN04 IN05 MID OUT03 OUT05"),
        ("OUT11", "sd2", "OUT11"),
        ("IN08-OUT01", "sdxl", "IN08 MID OUT00 OUT01"),
        ("IN", "sdxl", "IN00 IN01 IN02 IN03 IN04 IN05 IN06 IN07 IN08"),
        ("te, m00", "sdxl", "BASE MID"),
        ("out mid base", "sdxl", "BASE MID OUT00 OUT01 OUT02 OUT03 OUT04 OUT05 OUT06 OUT07 OUT08"),
        ("IN03-03", "sd1", "IN03"),
        ("1,0,0,1,0,0,0,1,0,0,0,0,0,0,0,0,-0.5", "sd1", "BASE IN04 MID OUT11"),
        ("0 0 0 0.25 0 0 0 0 0 1e-3 0 .0", "sdxl", "IN07 OUT03"),
        ("0,0,1,0,0,0,0,0,0,0,0,1,0,0,0,0,0,0,0,0", "sdxl", "IN01 OUT00"),
        ("0,1,0,0,0,0,0,0,0,0,0,0,1,0,1,0,0,0,0,0,0,0,0,0,0,1", "sd2", "IN00 IN11 OUT00 OUT11"),
    ],
)
def test_texts_name_blocks(text, family, expected):
    assert blocks.parse(text, family) == set(expected.split())


@pytest.mark.parametrize("family", FAMILIES)
def test_all_and_nothing_name_every_block(family):
    everything = {"sd1": 26, "sd2": 26, "sdxl": 20}[family]
    assert len(blocks.parse("", family)) == len(blocks.parse("  ", family)) == everything
    assert blocks.parse("all", family) == blocks.parse(",".join("1" * everything), family) == set(blocks.names(family))


@pytest.mark.parametrize(
    ("text", "family", "message"),
    [
        ("IN07-04", "sd1", "'IN07-04' runs backwards. Write the smaller block first: IN04-IN07."),
        ("OUT03-IN04", "sd1", "runs backwards"),
        (
            "IN12",
            "sd1",
            "'IN12' does not exist in sd1. The blocks of sd1 are IN00 to IN11, MID, OUT00 to OUT11 and BASE",
        ),
        ("IN04-09", "sdxl", "'IN04-09' does not exist in sdxl. The blocks of sdxl are IN00 to IN08"),
        ("MID01", "sd1", "'MID01' is no block"),
        ("INALL", "sd1", "'INALL' is no block"),
        ("IN-MID", "sd1", "'IN-MID' is no block"),
        ("IN04-", "sd1", "'IN04-' is no block"),
        ("1,R,0", "sd1", "'1' is no block"),
        (",", "sd1", "',' names no block"),
        ("1,1,1", "sd1", "it has 3 numbers; for sd1 write 17 .BASE, IN01, IN02, .* or 26 .all blocks"),
        (",".join("1" * 17), "sdxl", "it has 17 numbers, which is a vector for SD1 and SD2; for sdxl write 12 .*or 20"),
        (",".join("1" * 12), "sd2", "it has 12 numbers, which is a vector for SDXL; for sd2 write 17"),
    ],
)
def test_mistakes_are_named_with_what_exists(text, family, message):
    with pytest.raises(ConfigError, match=message):
        blocks.parse(text, family)


PIECES = st.lists(
    st.sampled_from(["IN", "OUT", "MID", "04", "7", "-", ",", " ", "1", "0", ".5", "TE", "：", "、", "É"])
)
VECTORS = st.lists(st.floats()).map(lambda numbers: ",".join(map(str, numbers)))


@given(st.one_of(st.text(), PIECES.map("".join), VECTORS), st.sampled_from(FAMILIES))
def test_any_text_gives_blocks_of_the_family_or_a_config_error(text, family):
    with suppress(ConfigError):
        assert blocks.parse(text, family) <= set(blocks.names(family))


def test_rules_hold_what_they_say():
    rule = rules.parse("IN04-05, te: rank=8 Alpha = 4.5, conv_rank=2;conv_alpha=1 lr=0.5 method=LoKr on")
    assert rule.blocks == {"BASE", "IN04", "IN05"} and rule.pattern is None
    assert (rule.rank, rule.alpha, rule.conv_rank, rule.conv_alpha) == (8, 4.5, 2, 1.0)
    assert (rule.rate, rule.method, rule.switch) == (0.5, "lokr", "on")
    assert rules.parse("MID: lr=0").rate == 0.0
    off = rules.parse("ＯＵＴ09-11\uff1a off")
    assert (off.switch, off.rank, off.rate, off.method) == ("off", None, None, None)
    assert off.blocks == {"OUT09", "OUT10", "OUT11"}


def test_patterns_are_searched_in_part_and_path():
    query = unet("input_blocks.4.1.transformer_blocks.0.attn1.to_q")
    for pattern, fit in (
        (r"attn1\.to_q", True),
        (r"^unet\.input_blocks\.4\.", True),
        (r"to_q$", True),
        (r"^input_blocks", False),
        (r"^te", False),
        (r"a/:b|attn1", True),
    ):
        rule = rules.parse(f" /{pattern}/ : conv_rank=4 method=lokr ")
        assert rule.pattern is not None and rule.pattern.pattern == pattern
        assert (rule.conv_rank, rule.method) == (4, "lokr")
        assert rules.fits(rule, query, "sd1") is fit
    assert rules.fits(rules.parse("/ＡＴＴＮ|attn1/\uff1a off"), query, "sd1"), "a pattern is taken as it is"


@pytest.mark.parametrize(
    ("line", "messages"),
    [
        ("IN04 rank=8", ["'IN04 rank=8' is no rule. Write for instance `IN04-07: rank=8 lr=0.5`"]),
        (": rank=8", ["': rank=8' is no rule."]),
        ("IN04:", ["says nothing about its layers. Add one of: rank=8, alpha=4, conv_rank=4"]),
        ("IN04: size=3", ["'size=3' is no option. Options are rank=8, alpha=4"]),
        ("IN04: rank", ["'rank' is no option."]),
        ("IN04: off=1", ["'off=1' is no option."]),
        ("IN04: rank=0", ["'rank=0' is not allowed. Give a whole number from 1 to 1024."]),
        ("IN04: rank=2.5", ["'rank=2.5' is not allowed. Give a whole number from 1 to 1024."]),
        ("IN04: conv_rank=" + "9" * 5000, ["is not allowed. Give a whole number from 1 to 1024."]),
        ("IN04: alpha=nan", ["'alpha=nan' is not allowed. Give a number from 0.001 to 4096."]),
        ("IN04: alpha=1e999", ["'alpha=1e999' is not allowed."]),
        ("IN04: lr=1001", ["'lr=1001' is not allowed. Give a factor of the learning rate from 0 to 1000."]),
        ("IN04: lr=-1", ["'lr=-1' is not allowed."]),
        ("IN04: method=lora2", ["'method=lora2': no such method. Choose one of: lora, locon, loha"]),
        ("IN04: off rank=4", ["off leaves nothing for rank to act on. Remove off, or the rest."]),
        ("IN04: on off", ["off leaves nothing for on to act on."]),
        ("IN04: rank=4 rank=5", ["rank: given more than once. Keep one."]),
        ("/attn[/: off", ["/attn[/ is not a regular expression: unterminated character set"]),
        ("/(?L)a/: off", ["/(?L)a/ is not a regular expression"]),
        ("/a{99999999999999999999}/: off", ["is not a regular expression"]),
        ("//: off", ["the pattern is empty. Write /pattern/, or ALL for every layer."]),
        ("/attn: off", ["'/attn: off' has a pattern without an end. Write /pattern/: options."]),
        ("IN99-01: rank=x speed=2", ["'IN99-01' does not exist in sd1.", "'rank=x' is not allowed.", "'speed=2' is no option."]),
    ],
)  # fmt: skip
def test_every_mistake_of_a_rule_is_told_with_what_is_allowed(line, messages):
    told = found("TE: lr=0.5", "", line)
    assert len(told) == len(messages)
    for message, expected in zip(told, messages, strict=True):
        assert message.startswith("adapter.rules[2]: ")
        assert expected in message
    with pytest.raises(ProblemsFound) as caught:
        rules.parse(line, where="here")
    assert [problem.where for problem in caught.value.problems] == ["here"] * len(messages)


def test_problems_are_collected_over_blocks_and_rules_and_depend_on_the_family():
    lines = ("IN04-07: rank=8", "OUT09-11: off", "", "/(/: off")
    assert found(*lines[:3], family="sd1") == found(family="sdxl") == []
    told = found(*lines, family="sdxl", blocks="IN10")
    assert [line.partition(":")[0] for line in told] == ["adapter.blocks", "adapter.rules[1]", "adapter.rules[3]"]
    with pytest.raises(ConfigError) as caught:
        rules.read(AdapterConfig(rules=lines, blocks="IN10"), "sdxl")
    assert str(caught.value) == "\n".join(told)
    assert len(rules.read(AdapterConfig(rules=lines[:3]), "sd1")) == 2


def test_rules_that_change_nothing_are_told():
    layers = [unet("input_blocks.1.0.in_layers.2"), unet("input_blocks.2.0.in_layers.2")]
    lines = ("IN01: rank=4", "/attn3/: off", "", "IN: lr=0.5", "IN02: rank=2")
    told = rules.idle(layers, AdapterConfig(rules=lines), "sd1")
    assert [(problem.severity, problem.where) for problem in told] == [
        ("warning", "adapter.rules[0]"),
        ("warning", "adapter.rules[1]"),
    ]
    assert "later rules fit the same layers" in told[0].message
    assert "fits no layer" in told[1].message


PARTS = ["IN04", "-", "07", "/", "(", "[", "a", "\\", ":", "：", "=", " ", "rank", "lr", "off", "on", "1", "*"]
OPTIONS = st.lists(st.sampled_from(PARTS)).map("".join)


@given(st.one_of(st.text(), OPTIONS, OPTIONS.map("IN04:{}".format)), st.sampled_from(FAMILIES))
def test_any_line_gives_a_rule_or_its_problems(line, family):
    told = rules.problems(AdapterConfig(rules=(line,)), family)
    assert all(problem.severity == "error" and problem.where == "adapter.rules[0]" for problem in told)
    assert all(problem.message for problem in told)
    if not told and line.strip():
        rule = rules.parse(line, family)
        given_values = (rule.rank, rule.alpha, rule.conv_rank, rule.conv_alpha, rule.rate, rule.method)
        assert rule.switch or any(value is not None for value in given_values)
        assert isinstance(rule.pattern, re.Pattern) or rule.blocks <= set(blocks.names(family))
