"""Every tag of the golden file is in its group, however it is spelled, and colours and modifiers come apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib_lora_trainer.captions import lexicon
from lib_lora_trainer.captions.lexicon import Parts, group_of, groups, key, parts_of
from lib_lora_trainer.demo import world

GOLDEN: dict[str, str] = json.loads((Path(__file__).parent / "golden" / "prune" / "groups.json").read_text("utf-8"))
EXPECTED = [(tag, name) for name, tags in GOLDEN.items() for tag in tags.split(", ")]
# The tags that the guides name: G4's worked example, and the cleaning and pruning rules of G3 and G4.
GUIDES = (
    "white_hair, horns, black_hair, halo, red_eyes, ponytail, two-tone_hair, bangs, long_hair, hair_between_eyes, wings, "
    "sidelocks, blush, multicolored_hair, kayoko (blue archive), shirt, white_shirt, white_dress, turtleneck_dress, bow, "
    "black_back_bow, armor, pauldron, gorget, tiara, circlet, aiming, aiming at viewer, gun, weapon, assault rifle, 1girl, "
    "monochrome, night, shadow, highres, virtual youtuber, full_body, cowboy_shot, upper_body, portrait, close-up, meme, "
    "parody, uncensored, high quality, best quality, masterpiece, taco"
)


def test_the_golden_file_is_large_and_names_every_group():
    assert len(EXPECTED) >= 300
    assert len({tag for tag, _ in EXPECTED}) == len(EXPECTED)
    assert set(GOLDEN) == {group.name for group in groups()}


@pytest.mark.parametrize(("tag", "name"), EXPECTED)
def test_group(tag, name):
    for spelling in (tag, tag.replace(" ", "_"), tag.upper(), tag.replace("(", r"\(").replace(")", r"\)")):
        found = group_of(spelling)
        assert found is not None and found.name == name, spelling


@pytest.mark.parametrize("tag", ["", " ", "mikori", "zqxv kwj", "a red thing that nobody names"])
def test_unknown_words_have_no_group(tag):
    assert group_of(tag) is None


@pytest.mark.parametrize(("tags", "lowest"), [(world.TAGGER_TAGS, 1.0), (GUIDES.split(", "), 1.0)])
def test_coverage(tags, lowest):
    unknown = [tag for tag in tags if group_of(tag) is None]
    assert 1 - len(unknown) / len(tags) >= lowest, unknown


def test_the_toy_worlds_groups_are_told_apart():
    families = {
        "person": "count", "hair_color": "trait", "hair_style": "trait", "eyes": "trait", "expression": "expression",
        "outfit": "garment", "pose": "pose", "background": "place",
    }  # fmt: skip
    for name, family in families.items():
        assert {group_of(tag).family for tag in world.GROUPS[name]} == {family}


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("white shirt", Parts("shirt", ("white",))),
        ("frilled_light_blue_vest", Parts("vest", ("light blue",), ("frilled",))),
        ("black pleated skirt", Parts("skirt", ("black",), ("pleated",))),
        ("lace-trimmed black panties", Parts("panties", ("black",), ("lace-trimmed",))),
        ("floral print kimono", Parts("kimono", (), ("floral print",))),
        ("two-tone dress", Parts("dress", ("two-tone",))),
        ("school uniform", Parts("school uniform")),
        ("red", Parts("red")),
        ("blue", Parts("blue")),
        ("", Parts("")),
    ],
)
def test_parts(tag, expected):
    assert parts_of(tag) == expected


def test_a_colour_alone_makes_no_hair_colour():
    assert group_of("hair").name == "hair style"
    assert group_of("wet white hair").name == "hair style"  # no colour alone before it
    assert group_of("white hair").name == "hair colour"


def test_no_entry_is_in_two_groups():
    content = json.loads((Path(lexicon.__file__).with_name("lexicon.json")).read_text("utf-8"))
    seen: dict[str, str] = {}
    for name, about in content["groups"].items():
        for entry in {*about.get("tags", "").split(", "), *about.get("nouns", "").split(", ")} - {""}:
            assert seen.setdefault(key(entry), name) == name, entry
    assert len(seen) > 2500
    assert set(content["qualifiers"].values()) <= set(content["groups"])
