"""Block weights: golden texts and what they stand for, presets files, SDXL's presets, elements."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest

from lib_lora_trainer.adapters import blocks
from lib_lora_trainer.base.errors import ConfigError, DataError
from lib_lora_trainer.workshop import elements, places, presets, vectors
from lib_lora_trainer.workshop.places import Place
from lib_lora_trainer.workshop.vectors import Draws, Vector

GOLDEN = Path(__file__).parent / "golden" / "lbw"
ROWS = json.loads((GOLDEN / "vectors.json").read_text(encoding="utf-8"))
THEIRS = "NONE:0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0\r\n# mine\r\nFACE : 1,0,0,0,0,0,0,0,1,1,1,0,0,0,0,0,0\r\nno preset\r\n"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['family']}: {row['text']}")
def test_golden_texts(row):
    known = presets.parse_file(row.get("presets", ""))
    if "error" in row:
        with pytest.raises(ConfigError) as found:
            presets.choose(row["text"], row["family"], known)
        assert row["error"] in str(found.value)
        return
    vector = presets.choose(row["text"], row["family"], known, Draws(x=row.get("x", 1.0)))
    wanted = {block: row["blocks"].get(block, 0) for block in blocks.names(row["family"])}
    assert dict(zip(blocks.names(row["family"]), vector.values, strict=True)) == pytest.approx(wanted)


def test_the_orders_are_lora_block_weights():
    xl = "BASE IN04 IN05 IN07 IN08 M00 OUT00 OUT01 OUT02 OUT03 OUT04 OUT05"
    assert vectors.order(12) == tuple(xl.split())
    sd = "BASE IN01 IN02 IN04 IN05 IN07 IN08 M00 OUT03 OUT04 OUT05 OUT06 OUT07 OUT08 OUT09 OUT10 OUT11"
    assert vectors.order(17) == tuple(sd.split())
    assert vectors.order(20)[:2] == ("BASE", "IN00")
    assert vectors.order(20)[-1] == "OUT08"
    assert [len(vectors.order(count)) for count in (12, 17, 20, 26)] == [12, 17, 20, 26]
    with pytest.raises(ConfigError, match="no vector has 61 numbers"):
        vectors.order(61)


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_a_written_vector_reads_back_exactly(family):
    generator = random.Random(4)
    for _ in range(50):
        short, full = vectors.lengths(family)
        every = [generator.choice([0.0, 1.0, generator.uniform(-2, 2), generator.random() * 1e-9]) for _ in range(full)]
        vector = Vector(family, tuple(every))
        assert vectors.parse(vectors.write(vector), family) == vector
        assert vectors.complement(vectors.complement(vectors.flat(0.25, family))) == vectors.flat(0.25, family)
        named = vectors.from_numbers(every[:short], family)
        assert vectors.numbers(named, short) == tuple(every[:short])
        assert vectors.parse(vectors.write(named, short), family) == named
    with pytest.raises(ConfigError, match=r"do not name IN00.*Write"):
        vectors.write(vectors.flat(1.0, family), vectors.lengths(family)[0])


def test_a_short_vector_leaves_the_other_blocks_out():
    vector = vectors.from_numbers([1.0] * 17, "sd1")
    off = [block for block in blocks.names("sd1") if not vector.of(block)]
    assert off == ["IN00", "IN03", "IN06", "IN09", "IN10", "IN11", "OUT00", "OUT01", "OUT02"]
    assert vector.of("") == 1


def test_seventeen_numbers_are_no_vector_for_sdxl():
    with pytest.raises(ConfigError, match="for SD1 and SD2"):
        vectors.from_numbers([1.0] * 17, "sdxl")


def test_random_weights_can_be_repeated():
    text = ",".join(["R", "U"] * 8 + ["X"])
    first, again = (vectors.parse(text, "sd1", Draws(seed=3)) for _ in range(2))
    assert first == again != vectors.parse(text, "sd1", Draws(seed=4))
    drawn = [vectors.numbers(vectors.parse(text, "sd1", Draws(seed)), 17) for seed in range(300)]
    ratios, uniform = [row[0] for row in drawn], [row[1] for row in drawn]
    assert 0 <= min(ratios) < 0.02 < 0.98 < max(ratios) <= 1
    assert -0.5 <= min(uniform) < -0.4 < 1.4 < max(uniform) <= 1.5
    assert all(value == round(value, 3) for row in drawn for value in row)
    assert len({row[0] for row in drawn}) > 200
    assert first.of("BASE") != first.of("IN02")  # each block has its own draw


def test_a_presets_file_keeps_lines_that_were_not_changed():
    known = presets.parse_file(THEIRS)
    assert presets.write_file(known) == THEIRS
    assert [line.name for line in known.lines if line.name] == ["NONE", "FACE"]
    vector = presets.choose("FACE", "sd1", known)
    changed = presets.with_preset(known, "FACE", vectors.complement(vector))
    before, after = THEIRS.splitlines(keepends=True), presets.write_file(changed).splitlines(keepends=True)
    assert [index for index in range(4) if before[index] != after[index]] == [2]
    assert after[2].endswith("\r\n")
    assert presets.choose("FACE", "sd1", presets.parse_file("".join(after))) == vectors.complement(vector)
    added = presets.with_preset(presets.parse_file("A:" + ",".join("0" * 17)), "B", vector)
    assert presets.write_file(added).startswith("A:0,0")
    assert presets.parse_file(presets.write_file(added)) == added
    assert "B" in added.names("sd1")


def test_a_preset_of_one_name_can_be_there_for_both_sizes(tmp_path):
    path = tmp_path / "lbwpresets.txt"
    assert presets.read(path) == presets.Presets()
    known = presets.with_preset(presets.Presets(), "HALF", vectors.flat(0.5, "sd1"))
    known = presets.with_preset(known, "HALF", vectors.flat(0.25, "sdxl"))
    presets.save(path, known)
    read = presets.read(path)
    assert presets.choose("HALF", "sd2", read).of("IN11") == 0.5
    assert presets.choose("HALF", "sdxl", read).of("IN08") == 0.25
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"lbwpresets.txt: cannot be read as presets"):
        presets.read(path)


@pytest.mark.parametrize("name", ["", " A", "A:B", "A,B", "#A", "A=1", "NOT A", "A>"])
def test_names_that_a_presets_file_or_prompt_cannot_hold_are_refused(name):
    with pytest.raises(ConfigError, match="cannot be a preset's name"):
        presets.with_preset(presets.Presets(), name, vectors.flat(1.0, "sd1"))


def test_the_presets_of_sd1_are_lora_block_weights():
    texts = {
        "NONE": "0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0",
        "ALL": "1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1",
        "INS": "1,1,1,1,0,0,0,0,0,0,0,0,0,0,0,0,0",
        "IND": "1,0,0,0,1,1,1,0,0,0,0,0,0,0,0,0,0",
        "INALL": "1,1,1,1,1,1,1,0,0,0,0,0,0,0,0,0,0",
        "MIDD": "1,0,0,0,1,1,1,1,1,1,1,1,0,0,0,0,0",
        "OUTD": "1,0,0,0,0,0,0,0,1,1,1,1,0,0,0,0,0",
        "OUTS": "1,0,0,0,0,0,0,0,0,0,0,0,1,1,1,1,1",
        "OUTALL": "1,0,0,0,0,0,0,0,1,1,1,1,1,1,1,1,1",
        "ALL0.5": ",".join(["0.5"] * 17),
    }
    assert {name: vectors.write(vector, 17) for name, vector in presets.built_in("sd1").items()} == texts
    assert set(presets.built_in("sdxl")) == set(texts)


def test_sdxl_presets_split_the_model():
    own = presets.built_in("sdxl")
    assert own["ALL"] == vectors.flat(1.0, "sdxl")
    for block in blocks.names("sdxl")[1:]:
        parts = [own[name].of(block) for name in ("INS", "IND", "OUTD", "OUTS")] + [float(block == "MID")]
        assert sorted(parts) == [0, 0, 0, 0, 1]
    for whole, parts in (("INALL", ("INS", "IND")), ("OUTALL", ("OUTD", "OUTS"))):
        summed = [max(values) for values in zip(*(own[part].values for part in parts), strict=True)]
        assert own[whole].values == tuple(summed)


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("IN05-OUT05:attn:0", Place(False, "IN08", "input_blocks_8_1_transformer_blocks_0_attn1_to_q"), 0),
        ("IN05-OUT05:attn:0", Place(False, "IN04", "input_blocks_4_1_transformer_blocks_0_attn1_to_q"), 0.7),
        ("IN05-OUT05:attn:0", Place(False, "IN08", "input_blocks_8_0_in_layers_2"), 0.7),
        ("NOT IN05-OUT05::2", Place(True, "BASE", "text_model_encoder_layers_0_mlp_fc1"), 2),
        ("NOT IN05-OUT05::2", Place(False, "MID", "middle_block_1_proj_in"), 0.7),
        (":NOT attn proj:0", Place(False, "MID", "middle_block_1_proj_in"), 0.7),
        (":NOT attn proj:0", Place(False, "MID", "middle_block_0_in_layers_2"), 0),
        ("::1,M00::0.5", Place(False, "MID", "middle_block_0_in_layers_2"), 0.5),
        ("M00::0.5\n::1", Place(False, "MID", "middle_block_0_in_layers_2"), 1),
        ("OUT BASE:ff:.25", Place(False, "OUT07", "output_blocks_7_1_transformer_blocks_0_ff_net_2"), 0.25),
    ],
)
def test_elements_take_the_place_of_the_blocks_weight(text, place, expected):
    directives = elements.parse(text)
    assert elements.weight(directives, place, 0.7) == expected
    assert elements.parse(elements.write(directives)) == directives


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("IN05:attn", "'IN05:attn' has 2 parts. Write BLOCKS:ELEMENTS:ratio"),
        ("IN05:attn:half", "its ratio 'half' is no number"),
        ("IN12:attn:1", "'IN12' is no block"),
        ("OUT05-IN05:attn:1", "'OUT05-IN05' runs backwards. Write IN05-OUT05."),
        ("", "no elements were given"),
    ],
)
def test_mistakes_in_elements_are_named(text, message):
    with pytest.raises(ConfigError) as found:
        elements.parse(text)
    assert message in str(found.value)


def test_elemental_presets_are_separated_by_empty_lines():
    text = "ONE:IN05:attn:0\r\nOUT03:proj:1\r\n\r\nTWO:::0.5\r\n\r\n\r\nplain words\r\n"
    entries = elements.parse_file(text)
    assert entries == {"ONE": "IN05:attn:0\nOUT03:proj:1", "TWO": "::0.5"}
    assert len(elements.choose("ONE", entries)) == 2
    assert elements.choose("IN05:attn:0", entries) == elements.parse("IN05:attn:0")
    with pytest.raises(ConfigError, match="'THREE' is no elemental preset. There are ONE, TWO"):
        elements.choose("THREE", entries)


def test_both_systems_of_names_are_at_the_same_place():
    pairs = {
        "down_blocks_0_resnets_1_conv1": "input_blocks_2_0_in_layers_2",
        "down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q": "input_blocks_4_1_transformer_blocks_0_attn1_to_q",
        "down_blocks_0_downsamplers_0_conv": "input_blocks_3_0_op",
        "mid_block_attentions_0_proj_out": "middle_block_1_proj_out",
        "mid_block_resnets_1_time_emb_proj": "middle_block_2_emb_layers_1",
        "up_blocks_0_upsamplers_0_conv": "output_blocks_2_1_conv",
        "up_blocks_3_attentions_2_proj_in": "output_blocks_11_1_proj_in",
        "conv_in": "input_blocks_0_0",
        "time_embedding_linear_2": "time_embed_2",
        "out_0": "out_0",
    }
    wanted = ["IN02", "IN04", "IN03", "MID", "MID", "OUT02", "OUT11", "IN00", "", ""]
    for (theirs, ours), block in zip(pairs.items(), wanted, strict=True):
        found = [places.place_of(f"lora_unet_{name}", "sd1") for name in (theirs, ours)]
        assert found == [Place(False, block, ours)] * 2
    assert places.place_of("lora_te2_text_model_encoder_layers_0_mlp_fc1", "sdxl").block == "BASE"
    for key, message in (("lora_unet_up_blocks_3_resnets_0_conv1", "sdxl"), ("unet.x", "kohya's format")):
        with pytest.raises(DataError, match=message):
            places.place_of(key, "sdxl")


@pytest.mark.parametrize(
    ("metadata", "name", "shape", "family"),
    [
        ({"ss_base_model_version": "sdxl_base_v1-0"}, "x.alpha", (), "sdxl"),
        ({"ss_v2": "True"}, "x.alpha", (), "sd2"),
        ({}, "lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha", (), "sdxl"),
        ({}, "lora_unet_input_blocks_7_1_transformer_blocks_9_attn1_to_q.alpha", (), "sdxl"),
        ({}, "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_down.weight", (4, 2048), "sdxl"),
        ({}, "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight", (4, 1024), "sd2"),
        ({}, "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight", (4, 768), "sd1"),
    ],
)
def test_the_family_is_read_off_the_file(metadata, name, shape, family):
    assert places.family_of({name: None}, metadata, {name: shape}) == family


def test_every_pair_of_a_presets_names_is_different():
    for family in ("sd1", "sdxl"):
        own = presets.built_in(family)
        assert all(one != other for one, other in itertools.combinations(own.values(), 2))
