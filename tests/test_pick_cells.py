"""From images to a cell: drawn figures in the place of generated ones, looked at by the toy tagger."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lib_lora_trainer.base.errors import ConfigError, DataError
from lib_lora_trainer.demo import world
from lib_lora_trainer.demo.run import TAGGER
from lib_lora_trainer.evaluate import measures, pick_cells, pick_files
from lib_lora_trainer.evaluate.findings import judge
from lib_lora_trainer.evaluate.pick import Cell, Trial
from lib_lora_trainer.evaluate.pick_cells import Place, Reference, Seen
from lib_lora_trainer.evaluate.pick_options import PickOptions, shots
from lib_lora_trainer.evaluate.pick_page import page
from lib_lora_trainer.evaluate.pick_report import Report, content
from lib_lora_trainer.evaluate.pick_store import Store, key_of
from lib_lora_trainer.evaluate.pick_subject import Looking, Part, Scene, Subject
from lib_lora_trainer.hosts.values import ImageRequest, MadeImage, ModelInfo
from lib_lora_trainer.tagging import wd14

RED, BLACK = (replace(world.CHARACTER, outfit=outfit, ornaments=()) for outfit in ("red dress", "black coat"))
STRANGER = replace(world.CHARACTER, hair_color="brown hair", eyes="blue eyes", outfit="white shirt", ornaments=())
SUBJECT = Subject(
    (
        Part(("mkr_red",), {"aqua hair": 1.0, "red dress": 1.0}),
        Part(("mkr_black",), {"aqua hair": 1.0, "black coat": 1.0}),
    ),
    tuple(Scene(("1girl",), ("beach",)) for _ in range(4)),
)
SHOTS = shots(SUBJECT, PickOptions(images=4), world.SIDE)
MODEL = ModelInfo("h", "sd1", "epsilon", "t", "n", "f", "", "", ("te",), 0.18, 1, "float32", "cpu")


@pytest.fixture(scope="module")
def tagger() -> wd14.Tagger:
    return wd14.load(TAGGER)


def seen(tagger: wd14.Tagger, *figures: world.Figure) -> tuple[Seen, ...]:
    """Return an image for each shot: of the first outfit alone, the second alone, scenes with and without a trigger."""
    images = [world.draw(figure, seed) for figure in figures for seed in range(4)]
    return tuple(map(Seen, images, wd14.probabilities(tagger, images)))


def reference(tagger: wd14.Tagger, base: tuple[Seen, ...]) -> Reference:
    places = [*world.BACKGROUNDS[:4], world.CHARACTER.background]
    figures = [replace(figure, background=place) for figure in (RED, BLACK) for place in places]
    dataset = [world.draw(figure, seed) for figure in figures for seed in (10, 11)]
    vectors = tuple(measures.thumbnail(image, (world.SIDE, world.SIDE)) for image in dataset)
    images = tuple(each.image for each in base)
    mean = wd14.probabilities(tagger, dataset).mean(axis=0)
    span = pick_cells.span_of(images, [measures.traces(image) for image in dataset])
    return Reference(Looking(tagger.labels, 0.35), vectors, measures.apart(vectors), mean, span, images)


@pytest.fixture(scope="module")
def cells(tagger) -> tuple[Cell, Cell, Cell]:
    """Return the base model's cell, one in which outfits are apart, and one in which both triggers bring the red one."""
    beach = replace(STRANGER, background="beach")
    base = seen(tagger, STRANGER, STRANGER, beach, beach)
    about = reference(tagger, base)
    right = seen(tagger, RED, BLACK, replace(RED, background="beach"), beach)
    mixed = seen(tagger, RED, RED, replace(RED, background="beach"), beach)
    places = (Place(), Place("right", 1, 1, 1.0), Place("mixed", 1, 1, 1.0))
    made = [pick_cells.cell(*each, about) for each in zip(places, [SHOTS] * 3, (base, right, mixed), strict=True)]
    return made[0], made[1], made[2]


def mean(values: tuple[float, ...]) -> float:
    return sum(values) / len(values)


def test_cells_say_what_the_images_show(cells):
    base, right, mixed = cells
    assert (len(right.recall), len(right.control), len(right.bleed), len(right.mixed)) == (8, 4, 4, 8)
    assert mean(base.recall) <= 0.1 and mean(right.recall) >= 0.9 and mean(right.control) >= 0.9
    assert mean(right.bleed) == mean(right.mixed) == 0
    # Half of the shots ask for the black coat: of its two traits only the hair comes, and the red dress instead.
    assert mean(mixed.recall) == pytest.approx(0.75, abs=0.07) and mean(mixed.mixed) == pytest.approx(0.5, abs=0.07)
    assert right.traits["aqua hair"] >= 0.9 and mixed.traits["black coat"] <= 0.1
    assert base.change == 0 < right.change and right.similarity > base.similarity
    assert not any(right.defects)


def test_two_outfits_that_bleed_are_diagnosed(cells):
    base, right, mixed = cells
    kinds = {finding.kind for finding in judge(Trial(base, (mixed,))).findings}
    assert "outfits-bleed" in kinds and "bleed" not in kinds
    assert not {"outfits-bleed", "bleed"} & {finding.kind for finding in judge(Trial(base, (right,))).findings}


def test_damaged_images_and_copies_are_counted(tagger):
    base = seen(tagger, STRANGER, STRANGER, STRANGER, STRANGER)
    about = reference(tagger, base)
    black = [Seen(Image.new("RGB", (world.SIDE, world.SIDE)), base[0].scores)] * 4
    copied = [Seen(world.draw(figure, 10), base[0].scores) for figure in (RED, BLACK, RED, BLACK)]
    found = pick_cells.cell(Place("x", 1, 1, 1.0), SHOTS, (*copied, *base[4:12], *black), about)
    assert sum(found.defects) == 4 and found.defects[-4:] == (1.0,) * 4
    assert found.copies == (1.0,) * 4 + (0.0,) * 4


def test_the_report_is_plain_data_and_the_page_escapes_what_it_shows(cells, tmp_path):
    base, right, mixed = cells
    trial = Trial(base, (replace(right, label="<b>one"), replace(mixed, label="two", step=2, epoch=2)))
    store = Store(tmp_path, "tagger")
    keys = []
    for number in range(3):
        keys.append(tuple(f"{number}-{shot}" for shot in range(len(SHOTS))))
        for key, shot in zip(keys[-1], SHOTS, strict=True):
            store.put_image(key, MadeImage(Image.new("RGB", (8, 8)), "text", shot.request))
    report = Report(trial, judge(trial), SHOTS, SUBJECT, keys, PickOptions())
    plain = json.loads(json.dumps(content(report)))
    assert plain["recommended"]["file"] == "<b>one" and len(plain["cells"]) == 2
    assert plain["cells"][0]["recall"]["images"] == 8 and plain["base"]["quality"] is None
    text = page(report, store)
    assert "&lt;b&gt;one" in text and "<b>one" not in text
    assert text.count("<details") == 3 and text.count("<figure>") == 3 * (4 + 3 + 2)
    store.image(keys[0][0]).unlink()
    assert page(report, store).count("<figure>") == 3 * 9 - 1


def test_what_is_kept_is_found_by_everything_that_decides_it(tmp_path):
    request = ImageRequest("mikori", seed=3)
    key = key_of("digest", 1.0, request, MODEL, "fp32")
    others = {
        key_of("other", 1.0, request, MODEL, "fp32"), key_of("digest", 0.9, request, MODEL, "fp32"),
        key_of("digest", 1.0, replace(request, seed=4), MODEL, "fp32"), key_of("digest", 1.0, request, MODEL, "fp16"),
        key_of("digest", 1.0, request, replace(MODEL, sha256="x"), "fp32"), key_of("", 1.0, request, MODEL, "fp32"),
    }  # fmt: skip
    assert len(others) == 6 and key not in others and key_of("digest", 1.0, request, MODEL, "fp32") == key
    store, row = Store(tmp_path, "one"), np.array([0.25, 0.5], np.float32)
    assert store.load_image(key) is None and store.load_scores(key, 2) is None
    store.put_scores(key, row)
    assert np.array_equal(store.load_scores(key, 2), row) and store.load_scores(key, 3) is None
    assert Store(tmp_path, "two").load_scores(key, 2) is None
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="start again"):
        Store(tmp_path / "file", "one").put_scores(key, row)


def test_files_are_in_the_order_of_their_training_and_equal_moments_count_once(tmp_path):
    import torch

    from lib_lora_trainer.save import weights

    def file(name: str, **about: str):
        path = tmp_path / f"{name}.safetensors"
        weights.write(path, {"x": torch.zeros(1)}, about)
        return path

    late = file("m-000010", ss_steps="100", ss_epoch="10", ss_session_id="1")
    final = file("m", ss_steps="100", ss_epoch="10", ss_session_id="1")
    early = file("m-000002", ss_steps="20", ss_epoch="2", ss_session_id="1")
    assert [each.label for each in pick_files.ordered([late, final, early])] == ["m-000002", "m"]
    silent = [file("b"), file("a", note="1")]
    assert [(each.label, each.step) for each in pick_files.ordered(silent)] == [("b", 1), ("a", 2)]
    with pytest.raises(ConfigError, match="no adapter"):
        pick_files.ordered([])
    (tmp_path / "broken.safetensors").write_bytes(b"x")
    with pytest.raises(DataError, match="broken"):
        pick_files.ordered([tmp_path / "broken.safetensors"])
