"""What a trial asks for: traits from captions or from the tagger, outfits apart, scenes that are in no picture."""

from __future__ import annotations

import numpy as np
import pytest

from lib_lora_trainer.base.errors import ProblemsFound
from lib_lora_trainer.config.data import DataConfig
from lib_lora_trainer.evaluate.pick_options import PickOptions, shots, usual_side
from lib_lora_trainer.evaluate.pick_subject import Example, Looking, Scene, prompt, subject, with_scenes
from lib_lora_trainer.tagging.labels import GENERAL, RATING, Label

NAMES = ("1girl", "aqua hair", "horns", "red dress", "black coat", "forest", "beach", "smile")
LOOKING = Looking((Label("general", RATING), *(Label(name, GENERAL) for name in NAMES)), 0.35)


def example(caption: str, shown: str, before: str = "") -> Example:
    """Return a picture; a rating is always shown, and never a trait."""
    tags = shown.split(", ")
    scores = np.array([0.99, *(0.9 if name in tags else 0.1 for name in NAMES)], np.float32)
    return Example(tuple(caption.split(", ")), scores, tuple(before.split(", ")) if before else ())


PLAIN = [
    example("mikori, 1girl, forest", "1girl, aqua hair, horns, forest"),
    example("mikori, 1girl, beach", "1girl, aqua hair, horns, beach"),
    example("mikori, 1girl, beach, smile", "1girl, aqua hair, beach, smile"),
    example("mikori, 1girl, forest", "1girl, aqua hair, smile, forest"),
]


def test_traits_are_what_the_pictures_show_and_their_captions_do_not_say():
    found, notes = subject(PLAIN, ("mikori",), (), LOOKING)
    (part,) = found.parts
    assert (part.words, dict(part.traits), part.pictures) == (("mikori",), {"aqua hair": 1.0, "horns": 0.5}, 4)
    assert found.ceiling == pytest.approx(0.75) and notes == ()


def test_who_is_shown_is_no_trait_and_no_scene_asks_for_a_trait():
    silent = [
        example("mikori, forest", "1girl, aqua hair, forest"),
        example("mikori, beach", "1girl, aqua hair, beach"),
    ]
    found, _ = subject(silent, ("mikori",), (), LOOKING)
    assert tuple(found.parts[0].traits) == ("aqua hair",)  # every caption leaves 1girl out
    named = [
        example("mikori, 1girl, smile, forest", "aqua hair, smile, forest"),
        example("mikori, 1girl, smile, forest", "aqua hair, smile, forest"),
        example("mikori, 1girl, beach", "aqua hair, beach"),
        example("mikori, 1girl, beach", "aqua hair, beach"),
    ]
    asked = with_scenes(subject(named, ("mikori",), ("smile",), LOOKING)[0], named, LOOKING, 8)
    assert asked.traits == ("smile",)
    assert {tag for scene in asked.scenes for tag in scene.tags} == {"forest", "beach"}


def test_traits_are_what_pruning_took_out_as_far_as_the_tagger_sees_it():
    pruned = [
        example(", ".join(each.caption), "aqua hair", "mikori, 1girl, Aqua_Hair, horns, forest") for each in PLAIN
    ]
    found, _ = subject(pruned, ("mikori",), (), LOOKING)
    assert dict(found.parts[0].traits) == {"Aqua_Hair": 1.0}  # horns: the tagger does not see them here


def test_given_traits_are_taken_and_those_that_cannot_be_seen_are_told():
    found, notes = subject(PLAIN, ("mikori",), ("horns", "red dress"), LOOKING)
    assert dict(found.parts[0].traits) == {"horns": 0.5}
    assert len(notes) == 1 and "red dress" in str(notes[0])
    with pytest.raises(ProblemsFound, match="does not know wings"):
        subject(PLAIN, ("mikori",), ("wings",), LOOKING)
    with pytest.raises(ProblemsFound, match="has to bring"):
        subject(PLAIN, ("mikori",), ("red dress",), LOOKING)


OUTFITS = [
    *(example("mikori, mkr_red, 1girl, forest", "1girl, aqua hair, red dress, forest") for _ in range(3)),
    *(example("mikori, mkr_black, 1girl, beach", "1girl, aqua hair, black coat, beach") for _ in range(2)),
    example("1girl, beach", "1girl, beach, smile"),
]


def test_outfits_are_parts_with_traits_of_their_own():
    found, _ = subject(OUTFITS, ("mikori", "mkr_red", "mkr_black"), (), LOOKING)
    assert [(part.words, tuple(part.traits)) for part in found.parts] == [
        (("mikori", "mkr_black"), ("aqua hair", "black coat")),
        (("mikori", "mkr_red"), ("aqua hair", "red dress")),
    ]
    assert [found.others(part) for part in found.parts] == [("red dress",), ("black coat",)]
    asked = shots(with_scenes(found, OUTFITS, LOOKING, 2), PickOptions(images=2), 512)
    alone = [shot for shot in asked if shot.kind == "recall"]
    assert [(shot.request.prompt, shot.others) for shot in alone][::2] == [
        (r"mikori, mkr_black", ("red dress",)), (r"mikori, mkr_red", ("black coat",)),
    ]  # fmt: skip


def test_scenes_ask_for_what_varies_and_never_for_traits():
    asked = with_scenes(subject(PLAIN, ("mikori",), (), LOOKING)[0], PLAIN, LOOKING, 12)
    assert asked == with_scenes(subject(PLAIN, ("mikori",), (), LOOKING)[0], PLAIN, LOOKING, 12)
    assert len(asked.scenes) == 12 and {scene.who for scene in asked.scenes} == {("1girl",)}
    assert {tag for scene in asked.scenes for tag in scene.tags} == {"forest", "beach"}  # one caption alone says smile
    found = shots(asked, PickOptions(images=12, seed=7), 1024)
    recall, control, bleed = ([shot for shot in found if shot.kind == kind] for kind in ("recall", "control", "bleed"))
    assert {shot.request.prompt for shot in recall} == {"mikori"} and len(recall) == len(bleed) == 12
    assert [shot.request.seed for shot in recall] == list(range(7, 19)) == [shot.request.seed for shot in bleed]
    for with_it, without in zip(control, bleed, strict=True):
        assert with_it.request.prompt == f"mikori, {without.request.prompt}" and with_it.request.width == 1024
        assert without.tags == ("aqua hair", "horns") and with_it.tags and "mikori" not in without.request.prompt


def test_prompts_take_brackets_as_plain_characters():
    assert prompt(("kayoko (blue archive)",), Scene(("1girl",), ("bow (weapon)",))) == (
        r"kayoko \(blue archive\), 1girl, bow \(weapon\)"
    )


@pytest.mark.parametrize(
    ("resolution", "more", "side"), [(512, (), 512), (700, (), 640), (128, (64,), 128), (512, (768,), 768)]
)
def test_images_are_as_large_as_the_training_was(resolution, more, side):
    assert usual_side(DataConfig(resolution=resolution, more_resolutions=more)) == side
