"""Prune proposals: the guides' worked example, what each kind and rigidity does, protections, false detections."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_lora_trainer.captions.lexicon import key
from lib_lora_trainer.captions.prune import caption_values, propose, pruned, switched
from lib_lora_trainer.captions.prune_values import (
    KINDS,
    CaptionValues,
    ImageTags,
    Line,
    Trained,
    Trigger,
    parse,
    text_of,
)
from lib_lora_trainer.demo import world

GOLDEN = Path(__file__).parent / "golden" / "prune"
ONE = CaptionValues(1, "|||", written=False)


def images(*captions: str) -> tuple[ImageTags, ...]:
    return tuple(parse(f"{number}.png", caption, "|||") for number, caption in enumerate(captions))


def trained(kind="character", rigidity="static", word="mkr", more=(), kept=()) -> Trained:
    return Trained((Trigger(word, kind, tuple(more)),), rigidity, tuple(kept))


def leaving(plan) -> set[str]:
    return {each.tag for each in plan.proposals if each.on}


def verdicts(plan) -> dict[str, str]:
    return {each.tag: each.verdict for each in plan.proposals}


def test_kayoko():
    golden = json.loads((GOLDEN / "kayoko.json").read_text("utf-8"))
    captions = images(*golden["captions"])
    plan = propose("kayoko", captions, trained(word=golden["trigger"]))
    by_verdict = {verdict: {each.tag for each in plan.proposals if each.verdict == verdict} for verdict in ("swallow", "remove")}
    assert by_verdict["swallow"] == set(golden["pruned"])
    assert by_verdict["remove"] == set(golden["removed"])
    assert {each.trigger for each in plan.proposals if each.verdict == "swallow"} == {golden["trigger"]}
    assert [text_of(made, "|||") for made in pruned(plan, captions, ONE)] == golden["expected"]
    assert plan.problems == ()


PROTECTED = ("large breasts", "1girl", "solo", "from behind", "upper body", "black footwear", "barefoot")


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_guides_protect_stays_whatever_is_trained(kind):
    plan = propose("a", images(*[", ".join(PROTECTED)] * 4), trained(kind))
    assert leaving(plan) == set()
    assert {each.tag for each in plan.proposals if "never" in each.reason} == set(PROTECTED)


# Everything here is in every picture, so that only the kind decides.
EVERYTHING = (
    "long hair, blue eyes, blush, cat ears, hairclip, white shirt, black skirt, thighhighs, sitting, waving, smile, gun, "
    "weapon, assault rifle, chair, outdoors, forest, night, monochrome, kayoko (blue archive), highres, english text"
)


@pytest.mark.parametrize(
    ("kind", "gone"),
    [
        ("character", "long hair, blue eyes, blush, cat ears, hairclip, kayoko (blue archive), highres"),
        ("outfit", "white shirt, black skirt, thighhighs, highres"),
        ("pose", "sitting, waving, kayoko (blue archive), highres"),
        ("object", "gun, weapon, assault rifle, kayoko (blue archive), highres"),
        ("style", "night, monochrome, highres"),
        ("background", "outdoors, forest, night, chair, highres"),
    ],
)
def test_what_each_kind_prunes(kind, gone):
    plan = propose("a", images(*[EVERYTHING] * 4), trained(kind))
    assert leaving(plan) == set(gone.split(", "))


def test_background_says_why_person_tags_stay():
    plan = propose("a", images(*["long hair, dress, forest"] * 3), trained("background"))
    reasons = {each.tag: each.reason for each in plan.proposals}
    assert "person tags stay" in reasons["long hair"] and "person tags stay" in reasons["dress"]


class TestRigidity:
    captions = images(*["long hair, blue eyes, shirt, highres"] * 3)

    def test_fluid_keeps_all_and_adds_the_trigger(self):
        plan = propose("a", self.captions, trained(rigidity="fluid", more=("eyes",)))
        assert leaving(plan) == set()
        assert text_of(pruned(plan, self.captions, ONE)[0], "|||") == "mkr, long hair, blue eyes, shirt, highres"
        assert verdicts(plan)["long hair"] == "swallow"  # offered, switched off

    def test_triggerless_changes_nothing(self):
        plan = propose("a", self.captions, Trained((), "triggerless"))
        assert leaving(plan) == set() and plan.problems == ()
        assert pruned(plan, self.captions, caption_values([plan], "|||")) == self.captions

    @pytest.mark.parametrize("more", ["eyes", "blue_eyes"])
    def test_semi_static_prunes_what_is_chosen_and_what_says_nothing(self, more):
        plan = propose("a", self.captions, trained(rigidity="semi-static", more=(more,)))
        assert leaving(plan) == {"blue eyes", "highres"}
        assert verdicts(plan)["long hair"] == "swallow"

    def test_several_triggers_share_out_the_tags(self):
        both = Trained((Trigger("mkr", "character"), Trigger("Red_dress", "outfit")), "multi-trigger")
        plan = propose("a", self.captions, both)
        assert {each.tag: each.trigger for each in plan.proposals if each.on and each.trigger} == {
            "long hair": "mkr", "blue eyes": "mkr", "shirt": "Red_dress",
        }  # fmt: skip
        assert text_of(pruned(plan, self.captions, caption_values([plan], "|||"))[0], "|||") == "mkr, Red_dress"

    @pytest.mark.parametrize(
        ("about", "said"),
        [
            (Trained((Trigger("a", "pose"),), "triggerless"), "without trigger"),
            (Trained((Trigger("abc", "pose"),), "multi-trigger"), "several are needed"),
            (Trained((), "static"), "has 0 triggers"),
            (Trained((Trigger("abc", "pose"),), "semi-static"), "nothing is chosen"),
            (Trained((Trigger("a,b", "pose"),), "static"), "','"),
            (Trained((Trigger(" ", "pose"),), "static"), "is empty"),
        ],
    )
    def test_contradictions_are_told(self, about, said):
        assert any(said in problem.message for problem in propose("a", self.captions, about).problems)


def test_chosen_tags_win_over_protection_and_kept_ones_over_pruning():
    captions = images(*["long hair, blue eyes, boots"] * 3)
    plan = propose("a", captions, trained(more=("boots",), kept=("hair length",)))
    assert leaving(plan) == {"blue eyes", "boots"}


def test_what_varies_stays_and_what_is_overlooked_goes():
    styles = [f"{style}, aqua hair" for style in ("ponytail, bangs", "ponytail", "twintails, bangs", "twintails")]
    plan = propose("a", images(*styles, "short hair", "hair ribbon"), trained())
    assert leaving(plan) == {"aqua hair", "bangs"}
    reasons = {each.tag: each.reason for each in plan.proposals}
    assert reasons["twintails"] == "varies, as ponytail does: it stays promptable (2 of 6 pictures)"
    assert "overlooked" in reasons["bangs"]  # 2 of 6, beside both of the others
    assert "too rare" in reasons["short hair"] and "too rare" in reasons["hair ribbon"]


def test_what_half_of_the_pictures_have_goes_whatever_the_others_have():
    plan = propose("a", images(*["aqua hair"] * 6, *["red hair"] * 4), trained())
    assert verdicts(plan) == {"aqua hair": "swallow", "red hair": "keep"}


def test_a_rare_tag_is_no_rival():
    plan = propose("a", images(*["purple eyes, hat"] * 9, *["hat"] * 10, "red eyes, hat"), trained())
    assert verdicts(plan)["purple eyes"] == "swallow"  # overlooked where it is missing, as red eyes are an accident


def test_a_rare_pose_contradicts_nothing_that_is_trained():
    plan = propose("a", images(*["standing"] * 19, "sitting"), trained())
    assert verdicts(plan) == {"standing": "keep", "sitting": "keep"}
    assert verdicts(propose("a", images(*["standing"] * 19, "sitting"), trained("pose")))["sitting"] == "remove"


def test_a_style_implies_only_what_most_pictures_have():
    captions = images(*["monochrome, 1girl"] * 4, *["1girl"] * 6)
    assert verdicts(propose("a", captions, trained("style")))["monochrome"] == "keep"
    assert verdicts(propose("a", captions[:7], trained("style")))["monochrome"] == "swallow"


def test_the_toy_worlds_character_is_pruned_as_its_bundled_captions_are():
    draw = Random(1)
    captions = images(*[", ".join(world.tags(world.sample_character(draw))) for _ in range(24)])
    scarf = "striped scarf"  # a garment, which only its owner knows to belong to the character
    plan = propose("a", captions, trained())
    assert leaving(plan) == set(world.CHARACTER_TRAITS) - {scarf}
    assert "choose it if it belongs" in next(each.reason for each in plan.proposals if each.tag == scarf)
    plan = propose("a", captions, trained(word=world.TRIGGER, more=(scarf,)))
    assert leaving(plan) == set(world.CHARACTER_TRAITS)
    made = {text_of(each, "|||") for each in pruned(plan, captions, ONE)}
    kept = [group for name, group in world.GROUPS.items() if name not in ("hair_color", "eyes", "accessory")]
    for caption in made:
        first, *rest = caption.split(", ")
        assert first == world.TRIGGER and len(rest) == len(kept)
        assert all(tag in group for tag, group in zip(rest, kept, strict=True))


def test_what_stands_only_beside_others_may_be_theirs():
    captions = images("1girl, blue eyes", "2girls, blue eyes, red eyes", "2girls, blue eyes, red eyes")
    plan = propose("a", captions, trained())
    assert leaving(plan) == {"blue eyes"}
    assert "may be another's" in next(each.reason for each in plan.proposals if each.tag == "red eyes")


class TestFalseDetections:
    captions = images(*["blue eyes, shirt"] * 19, "red eyes, shirt, sword")

    def test_by_low_score(self):
        scores = {f"{number}.png": {"blue_eyes": 0.9, "sword": 0.36, "red eyes": 0.8} for number in range(20)}
        plan = propose("a", self.captions, trained(), scores)
        found = {each.tag: each for each in plan.proposals}
        assert found["sword"].verdict == "remove" and found["sword"].on and found["sword"].score == pytest.approx(0.36)
        assert found["red eyes"].verdict == "keep"  # the tagger is sure: it was seen
        assert found["blue eyes"].verdict == "swallow" and found["sword"].example == "19.png"

    def test_by_contradiction_where_no_tagger_has_looked(self):
        plan = propose("a", self.captions, trained())
        assert verdicts(plan) == {"blue eyes": "swallow", "red eyes": "remove", "shirt": "keep", "sword": "keep"}
        assert "contradicts blue eyes" in next(each.reason for each in plan.proposals if each.tag == "red eyes")

    def test_nothing_is_rare_in_a_small_folder(self):
        plan = propose("a", self.captions[-5:], trained())
        assert verdicts(plan)["red eyes"] == "keep"

    def test_misrecognized_character(self):
        plan = propose("a", images(*["long hair"] * 19, "long hair, other (game)"), trained())
        assert verdicts(plan)["other (game)"] == "remove"


def test_the_example_is_the_picture_the_tagger_is_surest_of():
    captions = images(*["blue eyes"] * 3)
    plan = propose("a", captions, trained(), {"0.png": {"blue eyes": 0.5}, "2.png": {"blue eyes": 0.9}, "x": {}})
    assert plan.proposals[0].example == "2.png" and plan.proposals[0].score == pytest.approx(0.7)


def test_objects_that_contradict_the_object_go_and_other_things_stay():
    captions = images(*["gun, rifle, table"] * 3, "gun, sniper rifle", "sword")
    plan = propose("a", captions, trained("object"))
    assert verdicts(plan) == {"gun": "swallow", "rifle": "swallow", "sniper rifle": "swallow", "sword": "remove", "table": "keep"}


def test_switches():
    captions = images("long hair, shirt")
    plan = switched(propose("a", captions, trained()), {"Long_Hair": False, "shirt": True, "nothing": True})
    assert leaving(plan) == {"shirt"}
    assert text_of(pruned(plan, captions, ONE)[0], "|||") == "mkr, long hair"


def test_keep_tokens_and_separator_follow_the_triggers():
    captions = images("blue eyes, shirt")
    both = Trained((Trigger("mkr", "character"), Trigger("Red_dress", "outfit")), "multi-trigger")
    one, two = propose("a", captions, trained()), propose("b", captions, both)
    assert caption_values([one], "|||").settings() == {"data.caption.keep_tokens": 1, "data.caption.separator": "|||"}
    assert caption_values([two, two], "|||") == CaptionValues(2, "|||", written=False)
    mixed = caption_values([one, two], "")
    assert mixed == CaptionValues(2, "|||", written=True)
    assert text_of(pruned(one, captions, mixed)[0], "|||") == "mkr ||| shirt"
    # An empty set of triggers needs no separator.
    plain = propose("c", captions, Trained((), "triggerless"))
    assert text_of(pruned(plain, captions, mixed)[0], "|||") == "blue eyes, shirt"


def test_triggers_move_to_the_front_once_and_separators_stay():
    captions = images("a, b ||| MKR, blue eyes ||| c", "blue_eyes, mkr, a\nmkr, sentence with words", "")
    plan = propose("x", captions, trained())
    assert [text_of(made, "|||") for made in pruned(plan, captions, ONE)] == [
        "mkr, a, b |||  ||| c", "mkr, a\nmkr, sentence with words", "mkr",
    ]  # fmt: skip


def test_an_empty_folder_is_told():
    plan = propose("a", (), trained())
    assert plan.proposals == () and "no captions" in plan.problems[0].message


BREAKS = ",|\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
TAG = st.text(st.characters(blacklist_characters=BREAKS), min_size=1).map(str.strip).filter(bool)


@given(st.lists(st.lists(TAG, max_size=5), max_size=6), st.sampled_from(KINDS))
def test_only_what_is_switched_on_leaves(tags, kind):
    captions = tuple(ImageTags(str(number), (Line(tuple(line)),)) for number, line in enumerate(tags))
    plan = propose("a", captions, trained(kind))
    made = pruned(plan, captions, ONE)
    gone = plan.leaving | {"mkr"}
    for before, after in zip(captions, made, strict=True):
        assert after.lines[0].tags == ("mkr", *(tag for tag in before.lines[0].tags if key(tag) not in gone))
        assert parse(after.image, text_of(after, "|||"), "|||") == after
