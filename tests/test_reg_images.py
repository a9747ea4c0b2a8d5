"""Which regularization images belong to a dataset: texts, names, weights, and what is said about them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from lib_lora_trainer.app import reg_images, reg_jobs
from lib_lora_trainer.app.reg_jobs import Request, as_source
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ProblemsFound
from lib_lora_trainer.base.events import Note
from lib_lora_trainer.config.data import SourceConfig
from lib_lora_trainer.config.regularization import RegularizationConfig, SourceMarks
from lib_lora_trainer.dataset.scan import scan
from reg_cases import config, dataset
from tool_cases import picture


def listed(run, options=RegularizationConfig(), folder=None, tmp_path=None):  # noqa: B008 a frozen value
    """Return the images of a run by name, and what is said about them."""
    *told, images = reg_jobs.preview(Request(run, options, folder or tmp_path / "reg"), Control())
    return {image.name: image for image in images}, [event.text for event in told if isinstance(event, Note)]


def test_the_list_shows_each_caption_beside_what_is_left_of_it(tmp_path):
    root = dataset(tmp_path / "train")
    other = picture(tmp_path / "b" / "x.png", caption="mikori, hat, red_hair").parent
    run = config(root, other, prefix="best, mikori", suffix="end")
    options = RegularizationConfig(remove=("*_hair",), sources=(SourceMarks(str(other), ("hat", "/^best$/")),))
    images, _ = listed(run, options, tmp_path=tmp_path)
    assert {name: (image.trained, image.caption) for name, image in images.items()} == {
        "train/mikori/one": ("best, mikori, mikori, 1girl, red_hair, smile, end", "best, 1girl, smile, end"),
        "train/mikori/two": ("best, mikori, mikori, 1girl, red_hair, smile, end", "best, 1girl, smile, end"),
        "train/mikori/three": ("best, mikori, 1girl, mikori, hat (large), end", "best, 1girl, hat (large), end"),
        "train/other/four": ("best, mikori, mikori, forest, AND:2, end", "best, forest, AND:2, end"),
        "b/x": ("best, mikori, mikori, hat, red_hair, end", "end"),
    }
    assert not (tmp_path / "reg").exists()


def test_several_images_of_a_picture_have_numbers_seeds_and_wildcards_of_their_own(tmp_path):
    root = picture(tmp_path / "set" / "a.png", (96, 96), caption="mikori, {red|blue|green|white} dress, |||hat").parent
    options = RegularizationConfig(per_image=8)
    images, _ = listed(config(root, wildcards=True, shuffle=True, dropout=0.5), options, tmp_path=tmp_path)
    assert list(images) == ["set/a", *(f"set/a.{number}" for number in range(2, 9))]
    captions = {image.caption for image in images.values()}
    assert len(captions) > 2 and captions <= {f"{colour} dress, hat" for colour in ("red", "blue", "green", "white")}
    assert len({reg_images.seed_of(image, options, 0) for image in images.values()}) == 8
    again, _ = listed(config(root, wildcards=True), options, tmp_path=tmp_path)
    assert again == images


def test_pictures_of_one_stem_and_folders_of_one_word_stay_apart(tmp_path):
    root = tmp_path / "set"
    for name in ("3_a/x.png", "3_a/x.jpg", "5_a/x.png", "5_a/y_10_10_8_8.png"):
        picture(root / name, (96, 96), caption="hat")
    images, _ = listed(config(root), tmp_path=tmp_path)
    assert list(images) == ["set/a/x.jpg", "set/a/x.png", "set/5_a/x", "set/5_a/y"]
    picture(root / "5_a" / "x.2.png", (96, 96), caption="hat")
    _, said = listed(config(root), RegularizationConfig(per_image=2), tmp_path=tmp_path)
    assert any("2 images would have the name of another one: set/5_a/x.2" in text for text in said)


@pytest.mark.parametrize("prompts", ["class", "words"])
def test_classes_and_words_are_taken_in_turns(tmp_path, prompts):
    root = tmp_path / "set"
    for number in range(12):
        picture(root / f"{number:02d}.png", (96, 96), caption="Mona_Taco")
    run = replace(config(root), triggers=("Mona_Taco",))
    texts = ("mona", "taco") if prompts == "class" else ()
    options = RegularizationConfig(
        prompts=prompts, texts=texts, templates=("a {photo|drawing} of {}", "{}"), per_image=4
    )
    images, said = listed(run, options, tmp_path=tmp_path)
    captions = Counter(image.caption for image in images.values())
    assert set(captions) == {
        "mona",
        "taco",
        *(f"a {kind} of {word}" for kind in ("photo", "drawing") for word in ("mona", "taco")),
    }
    assert captions["mona"] == captions["taco"] == 12  # each picture has each text once
    assert not any("still contain" in text for text in said)
    with pytest.raises(ProblemsFound, match=r"regularization.texts: is empty"):
        listed(config(root), RegularizationConfig(prompts=prompts), tmp_path=tmp_path)


def test_pictures_without_words_get_no_image_and_the_others_more_weight(tmp_path):
    root = tmp_path / "set"
    for number in range(4):
        picture(root / "10_a" / f"{number}.png", (96, 96), caption="mikori, hat" if number else "mikori")
    run = config(root)
    images, said = listed(run, tmp_path=tmp_path)
    assert [name for name, image in images.items() if not image.caption] == ["set/a/0"]
    assert any("nothing is left of 1 captions" in text and "set/a/0" in text for text in said)
    assert any(
        "3 images stand against 40 exposures of set/10_a" in text and "more often than a picture" in text
        for text in said
    )
    found = scan(run.data, run.triggers)
    ((concept, count, times),) = reg_images.weights(found, tuple(images.values())).values()
    assert (concept.name, count, times) == ("set/10_a", 3, 13.333)
    filled, _ = listed(run, RegularizationConfig(when_empty="1girl"), tmp_path=tmp_path)
    assert filled["set/a/0"].caption == "1girl"
    enough, said = listed(run, RegularizationConfig(when_empty="1girl", per_image=10), tmp_path=tmp_path)
    assert len(enough) == 40 and not any("stand against" in text for text in said)
    _, said = listed(run, RegularizationConfig(remove=("hat",)), tmp_path=tmp_path)
    assert any(text.startswith("regularization.remove: nothing is left of 4") for text in said)


def test_triggers_left_inside_are_told(tmp_path):
    root = picture(tmp_path / "set" / "a.png", (96, 96), caption="mikori_dress, hat").parent
    _, said = listed(config(root), tmp_path=tmp_path)
    assert any("1 captions still contain 'mikori'" in text for text in said)


def test_mistakes_are_told_together_before_a_picture_is_read(tmp_path):
    root = dataset(tmp_path / "train")
    options = RegularizationConfig(remove=("/(/",), sources=(SourceMarks(str(tmp_path)),))
    with pytest.raises(ProblemsFound) as caught:
        listed(config(root), options, folder=root / "reg")
    assert [problem.where for problem in caught.value.problems] == [
        "regularization.remove[0]", "regularization.sources[0].path", "out",
    ]  # fmt: skip
    with pytest.raises(ProblemsFound, match=r"regularization.steps: 0 is too small"):
        listed(config(root), RegularizationConfig(steps=0), tmp_path=tmp_path)
    with pytest.raises(ProblemsFound, match="does not exist"):
        listed(config(tmp_path / "nowhere"), tmp_path=tmp_path)


def test_the_source_has_the_resolution_that_all_pictures_have(tmp_path):
    run = config(tmp_path / "a", tmp_path / "b")
    own = tuple(replace(source, resolution=64) for source in run.data.sources)
    reg = SourceConfig("r", regularization=True)
    assert as_source(tmp_path, replace(run, data=replace(run.data, sources=(*own, reg)))).resolution == 64
    assert (
        as_source(tmp_path, replace(run, data=replace(run.data, sources=(own[0], run.data.sources[1])))).resolution
        is None
    )
    made = as_source(tmp_path, run)
    assert (made.regularization, made.repeats, made.keep_tokens, made.prefix, made.suffix) == (True, 1, 0, "", "")


def test_the_largest_of_several_buckets_is_taken(tmp_path):
    root = picture(tmp_path / "set" / "a.png", (300, 150), caption="hat").parent
    run = config(root)
    images, _ = listed(replace(run, data=replace(run.data, more_resolutions=(128, 64))), tmp_path=tmp_path)
    assert images["set/a"].size == (160, 96)
