"""What is said about a dataset: where training puts each picture, what its masks are like, what is monochrome."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from dying_files import tree
from lib_lora_trainer.app import dataset_tools
from lib_lora_trainer.app.dataset_tools import Request
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.config.data import SourceConfig
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.config.training import TrainingConfig
from lib_lora_trainer.dataset import order
from lib_lora_trainer.dataset.pixels import open_grey
from lib_lora_trainer.dataset.scan import scan
from lib_lora_trainer.dataset.tools.bucket_report import preview, report
from lib_lora_trainer.dataset.tools.mask_check import judge
from lib_lora_trainer.dataset.tools.monochrome import is_monochrome, looked_at, problems, shares
from lib_lora_trainer.dataset.views import views
from lib_lora_trainer.train.batches import Material, load, mine, steps
from lib_lora_trainer.train.cache import LatentCache, to_tensor
from picture_lease import PictureLease, Waiting
from tool_cases import drafted, names, noise, picture, run, settings, undo

pytestmark = pytest.mark.usefixtures("quick")

SIZES = ((96, 64), (64, 96), (200, 60), (61, 333), (30, 20), (64, 64), (128, 128), (90, 100))


@pytest.fixture
def root(tmp_path):
    for number, size in enumerate(SIZES):
        picture(tmp_path / "set" / f"{number}.png", size, seed=number)
    return tmp_path / "set"


# --- buckets


@pytest.mark.parametrize("details", [{}, {"no_upscale": True}, {"bucket": False}, {"more_resolutions": (96,)}])
def test_the_report_is_image_by_image_what_training_loads(root, details):
    data = settings(root, cache="none", **details)
    config = RunConfig(data=data, training=TrainingConfig(epochs=1, batch_size=2))
    found = scan(data, ())
    said = report(found, data)
    lease, seen = PictureLease(), views(found, data)
    latents = LatentCache(data, root, lease)
    list(latents.fill(found.items, seen, Waiting()))
    material = Material(found.items, seen, latents, order.length(seen, config))
    loaded = {}
    with latents:
        for step in steps(material, config):
            for first, batch in mine(step, 0, 1):
                lease.encoded.clear()
                shown = load(batch, step, first, material, config)
                for name, size, pixels, example in zip(
                    shown.names, shown.sizes, lease.encoded, batch.examples, strict=True
                ):
                    loaded[example.view] = (name, size, pixels)
    assert len(loaded) == len(said.placed)
    for index, view in enumerate(said.placed):
        name, size, pixels = loaded[index]
        told = view.facts()
        assert name == view.path.name and torch.equal(to_tensor(preview(view)), pixels)
        assert (told["height"], told["width"]) == size.original
        assert told["bucket"] == f"{size.target[1]}x{size.target[0]}" == f"{pixels.shape[3]}x{pixels.shape[2]}"
        assert tuple(told["crop"]) == (size.crop[1], size.crop[0])
        assert view.cut_off == pytest.approx(
            1 - size.target[0] * size.target[1] / (told["scaled"][0] * told["scaled"][1])
        )


def test_shares_and_factors_are_those_worked_by_hand(tmp_path):
    """At 64² in steps of 32 the buckets are 32×128, 32×96, 64×64, 96×32 and 128×32."""
    root = tmp_path / "set"
    picture(root / "a.png", (300, 100)), picture(root / "b.png", (32, 32)), picture(root / "c.png", (200, 100))
    data = settings(root, bucket_step=32)
    wide, small, between = (view.facts() for view in report(scan(data, ()), data).placed)
    assert (wide["bucket"], wide["scaled"], wide["crop"], wide["cut_off"]) == ("96x32", [96, 32], [0, 0], 0)
    assert wide["factor"] == 0.32 and wide["must_be_upscaled"] is False
    assert (small["bucket"], small["factor"], small["must_be_upscaled"]) == ("64x64", 2.0, True)
    assert (between["bucket"], between["scaled"], between["crop"], between["cut_off"]) == (
        "64x64",
        [128, 64],
        [32, 0],
        0.5,
    )


@pytest.mark.parametrize("details", [{}, {"bucket": False}, {"no_upscale": True}])
def test_the_list_to_upscale_is_the_one_that_a_scan_warns_of(root, details):
    data = settings(root, **details)
    found = scan(data, ())
    lacking = sorted(view.path.name for view in report(found, data).lacking)
    wanted = sorted(
        f"{number}.png"
        for number, (width, height) in enumerate(SIZES)
        if (width * height < 64**2 if data.bucket else min(width, height) < 64)
    )
    assert lacking == wanted
    warned = [problem.message for problem in found.problems if problem.where == "data.resolution"]
    assert len(warned) == 1 and all(name in warned[0] for name in lacking)


def test_many_buckets_are_advised_against_with_a_step_that_holds(tmp_path):
    root = tmp_path / "set"
    for number in range(12):
        root.mkdir(exist_ok=True)
        Image.new("RGB", (300 + 40 * number, 500)).save(root / f"{number}.png")
    data = settings(root, resolution=256, bucket_minimum=128, bucket_maximum=512, bucket_step=16)
    found = scan(data, ())
    said = report(found, data)
    assert len(said.histogram) > 5 and sum(said.histogram.values()) == 12
    (problem,) = said.problems
    assert problem.where == "data.bucket_step" and f"{len(said.histogram)} buckets" in problem.message
    step = int(problem.fix.removeprefix("Set it to ").partition(" ")[0])
    coarser = report(found, replace(data, bucket_step=step))
    assert len(coarser.histogram) <= 5 and f"for {len(coarser.histogram)} buckets" in problem.fix
    assert not report(found, replace(data, bucket_step=step)).problems


# --- masks


def drawn(*shapes, size=(100, 100), ground=0):
    image = Image.new("L", size, ground)
    for box, shade in shapes:
        ImageDraw.Draw(image).ellipse(box, fill=shade)
    return image


@pytest.mark.parametrize(
    ("mask", "verdict"),
    [
        (drawn(((20, 20, 80, 80), 255)), "good"),
        (drawn(((20, 20, 80, 80), 255), ((40, 40, 60, 60), 0)), "holes"),
        (drawn(((20, 20, 80, 80), 255), ((40, 40, 60, 60), 128)), "holes"),
        (drawn(((20, 20, 80, 80), 255), ((60, 40, 95, 60), 0)), "good"),  # a dent is open to the outside
        (drawn(((20, 20, 80, 80), 255), ((49, 49, 51, 51), 0)), "good"),  # a speck
        (drawn(((-50, -50, 150, 150), 255), ((30, 30, 60, 60), 90)), "holes"),  # the subject fills the picture
        (drawn(ground=0), "black"),
        (drawn(ground=255), "white"),
        (drawn(((20, 20, 80, 80), 200)), "no white"),
        (drawn(((400, 400, 1600, 1600), 255), ((800, 800, 1200, 1200), 0), size=(2000, 2000)), "holes"),
    ],
)
def test_masks_are_judged(mask, verdict):
    judged = judge(mask, 0.01)
    assert judged.verdict == verdict
    if verdict == "good" and mask.size == (100, 100):
        assert judged.learned == pytest.approx((np.asarray(mask) >= 230).mean())


def test_holes_are_measured():
    hollow = drawn(((10, 10, 90, 90), 255), ((30, 30, 70, 70), 0))
    assert judge(hollow, 1.0).verdict == "good"
    assert judge(hollow, 0.0).holes == pytest.approx(0.25, abs=0.02)  # half the radius is a quarter of the area


def test_bad_masks_are_named_and_rejected_only_on_request(tmp_path):
    root, masks = tmp_path / "set", tmp_path / "masks"
    for name in ("good", "black", "shape", "broken", "none"):
        picture(root / "1_x" / f"{name}.png", (100, 100))
    drawn(((20, 20, 80, 80), 255)).save(picture(masks / "1_x" / "good.png", caption=None))
    drawn().save(picture(masks / "1_x" / "black.png", caption=None))
    picture(masks / "1_x" / "shape.png", (100, 60), caption=None)
    (masks / "1_x" / "broken.png").write_bytes(b"no mask")
    data = settings(root, masks)
    draft = drafted("mask", data)
    assert draft.operations == ()
    assert {each.about.stem: each.before["verdict"] for each in draft.proposals} == {
        "good": "good", "black": "black", "shape": "shape", "broken": "unreadable", "none": "missing",
    }  # fmt: skip
    severities = {problem.where.rpartition("/")[2]: problem.severity for problem in draft.problems}
    assert severities == {"black.png": "warning", "shape.png": "error", "broken.png": "error"}
    before = tree(masks)
    run("mask", data, reject=True)
    assert names(masks) == {"1_x/good.png"}
    undo(root)
    assert tree(masks) == before


def test_masks_are_taken_over_checked_and_as_grey_png(tmp_path):
    root, masks, other = tmp_path / "set", tmp_path / "masks", tmp_path / "other"
    for name in ("a", "b", "c", "d"):
        picture(root / "1_x" / f"{name}.png", (100, 100))
    drawn(((10, 10, 90, 90), 255)).save(picture(masks / "1_x" / "b.png", caption=None))
    hollow = drawn(((20, 20, 80, 80), 255), ((40, 40, 60, 60), 0))
    drawn(((20, 20, 80, 80), 255)).convert("RGB").save(picture(other / "1_x" / "a.bmp", caption=None))
    drawn(((20, 20, 80, 80), 255)).save(picture(other / "b.png", caption=None))
    hollow.save(picture(other / "c.png", caption=None))
    data = settings(root, masks)
    before = tree(masks)
    draft = run("mask-import", data, folder=str(other))
    assert names(masks) == {"1_x/a.png", "1_x/b.png"} and tree(masks)["1_x/b.png"] == before["1_x/b.png"]
    assert np.array_equal(open_grey(masks / "1_x" / "a.png"), drawn(((20, 20, 80, 80), 255)))
    assert ["holes inside" in str(problem) for problem in draft.problems] == [True]
    undo(root)
    run("mask-import", data, folder=str(other), replace=True, holes=100.0)
    assert names(masks) == {"1_x/a.png", "1_x/b.png", "1_x/c.png"}
    assert np.array_equal(open_grey(masks / "1_x" / "b.png"), drawn(((20, 20, 80, 80), 255)))
    undo(root)
    assert tree(masks) == before
    for wrong in ("", str(masks), str(root), str(tmp_path / "none")):
        with pytest.raises(ConfigError, match="folder"):
            drafted("mask-import", data, folder=wrong)
    with pytest.raises(ConfigError, match="no folder for masks"):
        drafted("mask-import", settings(root), folder=str(other))


# --- monochrome


def tinted(image, colour):
    """Return a grey picture printed in a colour on white."""
    grey = np.asarray(image.convert("L")).astype(float)[..., None] / 255
    return Image.fromarray((255 * grey + np.array(colour) * (1 - grey)).astype(np.uint8))


def test_grey_and_tinted_pictures_are_monochrome_and_pale_colours_are_not():
    page = Image.linear_gradient("L").convert("RGB")
    pale = page.copy()
    pale.paste(Image.new("RGB", (128, 256), (255, 230, 225)), (0, 0))
    pale.paste(Image.new("RGB", (128, 256), (225, 230, 255)), (128, 0))
    stamp = page.copy()
    stamp.paste((200, 0, 0), (10, 10, 30, 30))  # 0.6 % of the page
    assert is_monochrome(page) and is_monochrome(tinted(page, (112, 66, 20))) and is_monochrome(stamp)
    assert is_monochrome(Image.new("RGB", (50, 50), (244, 236, 216))), "empty paper"
    assert not is_monochrome(pale) and not is_monochrome(noise((80, 80)))
    assert not is_monochrome(tinted(page, (255, 0, 0))), "strong red is a colour"


def test_a_concept_with_mostly_monochrome_pictures_is_warned_of(tmp_path):
    root, reg = tmp_path / "set", tmp_path / "reg"
    for number in range(4):
        picture(root / "1_colour" / f"{number}.png", seed=number)
        image = noise((64, 48), number)
        (image.convert("L") if number < 3 else image).save(picture(root / "1_manga" / f"{number}.jpg"))
        image.convert("L").save(picture(reg / "1_grey" / f"{number}.png"))
    data = settings(root)
    data = replace(data, sources=(*data.sources, SourceConfig(str(reg), regularization=True)))
    found = scan(data, ())
    share = shares(found, dict(looked_at(found)))
    assert share == {"set/1_colour": 0.0, "set/1_manga": 0.75}
    (problem,) = problems(share)
    assert problem.where == "set/1_manga" and "75%" in problem.message and "negative" in problem.fix
    assert problems({"x": 0.5}) == () and "above 80%" in problems({"x": 0.9})[0].fix
    *_, balance = dataset_tools.balance(Request(data, dataset_tools.Goal()), Control())
    assert problem in balance.problems
