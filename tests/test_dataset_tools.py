"""Dataset tools: what each makes of pictures, captions and masks, and that all of it is taken back byte for byte."""

from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from dying_files import DIED, DyingFiles, in_child, tree
from lib_lora_trainer.app import dataset_tools
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError, DataError, ProblemsFound, RunConflict
from lib_lora_trainer.base.events import Finished, Phase
from lib_lora_trainer.dataset.exif import ORIENTATION
from lib_lora_trainer.dataset.formats import readable_extensions
from lib_lora_trainer.dataset.journal import Journal, history
from lib_lora_trainer.dataset.pixels import open_grey, open_upright
from lib_lora_trainer.dataset.scan import scan
from lib_lora_trainer.dataset.tools.operations import described
from lib_lora_trainer.dataset.tools.trim import content_box
from test_pixels import grey_png_of_16_bits
from tool_cases import animation, applied, drafted, facts, names, noise, picture, run, settings, undo

pytestmark = pytest.mark.usefixtures("quick")

LONG = "é" * 123 + ".caption.png"  # 258 bytes would be too many: 246 + 8 + 4


def pixels(path):
    return np.asarray(open_upright(path)).tolist()


def with_border(size, box, colour=(255, 255, 255), inside=(200, 30, 30)):
    image = Image.new("RGB", size, colour)
    image.paste(inside, box)
    return image


@pytest.fixture
def root(tmp_path):
    """A dataset with something to do for every tool."""
    root, masks = tmp_path / "データ 😀", tmp_path / "masks"
    picture(root / "10_a" / "photo one.jpg", (96, 64), seed=1)
    picture(root / "10_a" / "かよこ.Webp", (64, 96), seed=2, format="WEBP", lossless=True)
    picture(root / "10_a" / "clear.png", (80, 80), seed=3, mode="RGBA")
    with_border((90, 100), (10, 15, 85, 90)).save(picture(root / "5_b" / "inner" / "framed.png"))
    picture(root / "5_b" / "small.bmp", (20, 20), caption=None)
    animation(root / "5_b" / "moving.gif")
    (root / "5_b" / "multiply.txt").write_text("0.5", encoding="utf-8")
    picture(masks / "10_a" / "photo one.png", (96, 64), caption=None, mode="L")
    picture(masks / "5_b" / "inner" / "framed.png", (90, 100), caption=None, mode="L")
    Image.new("L", (80, 80)).save(picture(masks / "10_a" / "clear.png", caption=None))
    return root


ALL = {
    "convert": {},
    "flatten-alpha": {"colour": "#102030"},
    "trim": {},
    "pad": {},
    "crop": {"resolution": 64, "assume_full_body": True, "by_contrast": True},
    "upscale": {},
    "sort": {},
    "flatten": {},
    "mask": {"reject": True},
    "files": {"action": "exclude", "files": ("10_a/photo one.jpg", "5_b/moving.gif")},
}


@pytest.mark.parametrize("tool", ALL)
def test_every_tool_is_taken_back_byte_for_byte_and_done_again(root, tool):
    masks = root.parent / "masks"
    data, before, masks_before = settings(root, masks), tree(root), tree(masks)
    draft = drafted(tool, data, **ALL[tool])
    assert draft.operations and (tree(root), tree(masks)) == (before, masks_before), "a draft changes nothing"
    assert applied(draft).step == len([each for each in draft.operations if each.kind != "drop"])
    after = tree(root), tree(masks)
    assert after != (before, masks_before)
    undo(root)
    assert (tree(root), tree(masks)) == (before, masks_before)
    list(dataset_tools.redo(root))
    assert (tree(root), tree(masks)) == after
    again = drafted(tool, data, **ALL[tool]) if tool != "files" else None
    assert again is None or tool == "crop" or not again.operations, "what is done needs nothing more"


def test_all_tools_one_after_the_other_are_taken_back(root):
    masks = root.parent / "masks"
    before, masks_before = tree(root), tree(masks)
    for tool in ("convert", "mask", "flatten-alpha", "trim", "crop", "upscale", "pad", "flatten", "sort"):
        run(tool, settings(root, masks), **ALL[tool])
    found = scan(settings(root, masks), ())
    assert not [problem for problem in found.problems if problem.severity == "error"] and len(found.items) == 8
    while any(entry.state == "applied" for entry in history(root)):
        undo(root)
    assert (tree(root), tree(masks)) == (before, masks_before)


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
@pytest.mark.parametrize(("tool", "stride"), [("convert", 3), ("flatten", 3), ("mask", 1)])
def test_a_tool_killed_at_any_change_leaves_old_or_new(root, tool, stride):
    masks, spare = root.parent / "masks", root.parent / "spare"
    data = settings(root, masks)
    before = tree(root), tree(masks)
    draft = drafted(tool, data, **ALL[tool])
    shutil.copytree(root, spare / "set")
    shutil.copytree(masks, spare / "masks")
    ends, number = set(), 1
    while in_child(lambda n=number: applied(draft, DyingFiles(n))) == DIED:
        list(dataset_tools.recover(root))
        ends.add(bool(history(root)))
        if history(root):
            undo(root)
        assert (tree(root), tree(masks)) == before
        for place, kept in ((root, "set"), (masks, "masks")):
            shutil.rmtree(place)
            shutil.copytree(spare / kept, place)
        number += stride
    assert ends == {False, True}


def test_a_tool_is_refused_while_another_works(root):
    draft = drafted("trim", settings(root))
    with Journal(root), pytest.raises(RunConflict, match="another tool"):
        applied(draft)


def test_a_wish_to_stop_leaves_everything_as_it_was(root):
    before, control = tree(root), Control()
    draft = drafted("convert", settings(root))
    told = []
    for event in dataset_tools.apply(draft, control):
        told.append(event)
        if isinstance(event, Phase) and event.done == 2:
            control.ask("stop")
    assert isinstance(told[-1], Finished) and told[-1].reason == "stopped"
    assert tree(root) == before and history(root) == ()
    request = dataset_tools.Request(settings(root))
    for intention in (dataset_tools.look(request, control), dataset_tools.draft("sort", request, control)):
        *_, last = intention
        assert isinstance(last, Finished) and last.reason == "stopped"


def test_proposals_are_json_and_name_every_change(root):
    draft = drafted("convert", settings(root))
    by_name = {proposal.about.name: described(proposal, draft.root) for proposal in draft.proposals}
    assert by_name["moving.gif"]["before"] == {
        "width": 16, "height": 12, "format": "GIF", "frames": 3, "transparent": False,
    }  # fmt: skip
    assert by_name["moving.gif"]["after"] == {"files": [f"5_b/moving-000{number}.png" for number in (1, 2, 3)]}
    assert by_name["small.bmp"]["operations"] == [
        {"kind": "write", "path": "5_b/small.png"},
        {"kind": "remove", "path": "5_b/small.bmp"},
    ]
    assert by_name["clear.png"]["operations"] == []


# --- convert


def test_training_sees_the_same_pixels_in_a_converted_picture(tmp_path):
    root = tmp_path / "set"
    picture(root / "a.jpg", (40, 30), seed=1)
    turned = Image.Exif()
    turned[ORIENTATION] = 6
    noise((40, 30), 2).save(picture(root / "turned.jpg"), exif=turned)
    noise((40, 30), 3, "CMYK").save(picture(root / "cmyk.jpg"))
    noise((40, 30), 4, "RGBA").save(picture(root / "clear.webp"), lossless=True)
    noise((40, 30), 5).quantize(16).save(picture(root / "few.gif"), transparency=3)
    noise((40, 30), 6).save(picture(root / "b.bmp"))
    expected = {path.stem: pixels(path) for path in root.iterdir() if path.suffix != ".txt"}
    run("convert", settings(root))
    assert {path.suffix for path in root.iterdir() if path.is_file()} == {".png", ".txt"}
    assert {path.stem: pixels(path) for path in root.glob("*.png")} == expected
    assert np.asarray(open_upright(root / "turned.png")).shape == (40, 30, 3)


def test_what_training_cannot_read_is_converted(tmp_path):
    root = tmp_path / "set"
    first, second = noise((20, 30), 1), noise((10, 12), 2)
    picture(root / "other.png")
    first.save(root / "page.tif")
    first.save(root / "pages.tiff", save_all=True, append_images=[second])
    (root / "pages.txt").write_text("two", encoding="utf-8")
    first.save(root / "t.tga")
    Image.fromarray(np.array([[0, 65535, 32768]], dtype=np.uint16)).save(root / "deep.tif")
    run("convert", settings(root))
    assert pixels(root / "page.png") == pixels(root / "t.png") == pixels(root / "pages-0001.png")
    assert np.asarray(open_upright(root / "pages-0002.png")).shape == (12, 10, 3)
    assert (root / "pages-0002.txt").read_text(encoding="utf-8") == "two" and not (root / "pages.txt").exists()
    assert np.asarray(open_upright(root / "deep.png"))[0, :, 0].tolist() == [0, 255, 128]


@pytest.mark.parametrize("kind", ["gif", "png", "webp"])
def test_every_frame_becomes_a_picture_with_the_caption_and_the_mask(tmp_path, kind):
    root, masks = tmp_path / "set", tmp_path / "masks"
    animation(root / f"x.{kind}", frames=4)
    Image.new("L", (16, 12), 200).save(picture(masks / "x.png", caption=None))
    run("convert", settings(root, masks))
    stems = [f"x-000{number}" for number in range(1, 5)]
    assert names(root) == {f"{stem}.{ending}" for stem in stems for ending in ("png", "txt")}
    assert names(masks) == {f"{stem}.png" for stem in stems}
    reds = [open_upright(root / f"{stem}.png").getpixel((3, 3))[0] for stem in stems]
    assert reds == pytest.approx([60, 120, 180, 240], abs=6)
    found = scan(settings(root, masks), ())
    assert {(item.caption, item.mask is not None) for item in found.items} == {("moving", True)}


def test_colliding_names_get_their_own_and_everybody_keeps_the_caption(tmp_path):
    root = tmp_path / "set"
    for number, name in enumerate(("a.png", "a.jpg", "a.webp", "b.gif", "b.jpg")):
        picture(root / name, caption="shared" if name.startswith("a") else "b's", seed=number)
    (root / "a-2.txt").write_text("an orphan", encoding="utf-8")
    before = {name: pixels(root / name) for name in ("a.png", "a.jpg", "b.jpg")}
    run("convert", settings(root))
    assert names(root) == {
        "a.png", "a.txt", "a-2.txt", "a-3.png", "a-3.txt", "a-4.png", "a-4.txt", "b.png", "b.txt", "b-2.png", "b-2.txt",
    }  # fmt: skip
    assert pixels(root / "a.png") == before["a.png"] and pixels(root / "a-3.png") == before["a.jpg"]
    assert {item.caption for item in scan(settings(root), ()).items} == {"shared", "b's"}


def test_names_of_255_bytes_are_shortened_only_where_they_must(tmp_path):
    root = tmp_path / "set"
    stem = "é" * 125 + "x"
    picture(root / f"{stem}.gif", caption="long")
    picture(root / f"{stem}.jpg", caption="long")
    run("convert", settings(root))
    made = sorted(names(root))
    assert len(made) == 4 and f"{stem}.png" in made and all(len(name.encode()) <= 255 for name in made)
    assert {item.caption for item in scan(settings(root), ()).items} == {"long"}


def test_captions_of_faces_in_names_stay(tmp_path):
    root = tmp_path / "set"
    picture(root / "p_10_10_5_5.jpg", caption=None)
    (root / "p.txt").write_text("a face", encoding="utf-8")
    run("convert", settings(root))
    assert names(root) == {"p_10_10_5_5.png", "p.txt"}


def test_only_chosen_formats_are_converted_and_broken_files_are_named(tmp_path):
    root = tmp_path / "set"
    picture(root / "a.jpg"), picture(root / "b.WEBP", format="WEBP")
    (root / "c.webp").write_bytes(b"no picture")
    draft = run("convert", settings(root), formats=("webp",))
    assert {name for name in names(root) if not name.endswith("txt")} == {"a.jpg", "b.png", "c.webp"}
    assert ["c.webp: is not a picture" in str(problem) for problem in draft.problems] == [True]


def test_what_has_no_decoder_here_says_which_package_brings_one(tmp_path):
    root = tmp_path / "set"
    picture(root / "a.png")
    for suffix in (".avif", ".jxl"):
        (root / f"b{suffix}").write_bytes(b"whatever")
    told = {problem.where[-4:]: problem.fix for problem in drafted("convert", settings(root)).problems}
    for suffix, package in ((".avif", "pillow-avif-plugin"), (".jxl", "pillow-jxl-plugin")):
        assert suffix in readable_extensions() or package in told[f"b{suffix}"[-4:]]


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_frames_are_decoded_once_each_and_the_file_is_not_kept_open(tmp_path, kind, monkeypatch):
    root, opened, really = tmp_path / "set", [], Image.open
    animation(root / f"x.{kind}", frames=4)
    draft = drafted("convert", settings(root))
    monkeypatch.setattr(Image, "open", lambda *file, **details: opened.append(file) or really(*file, **details))
    applied(draft)
    assert len(opened) == 1 and len(list(root.glob("*.png"))) == 4


def test_a_picture_that_changes_before_the_draft_is_done_stops_it(tmp_path):
    root = tmp_path / "set"
    picture(root / "a.jpg", (40, 30)), picture(root / "b.jpg", (40, 30))
    draft = drafted("convert", settings(root))
    noise((41, 30)).save(root / "b.jpg")
    before = tree(root)
    with pytest.raises(DataError, match=r"b\.jpg: is 41×30 pixels now, but was 40×30"):
        applied(draft)
    assert tree(root) == before


# --- transparency


def test_over_white_training_sees_the_same_pixels(tmp_path):
    root = tmp_path / "set"
    picture(root / "a.png", (40, 30), mode="RGBA", seed=1)
    picture(root / "b.webp", (40, 30), mode="RGBA", seed=2, lossless=True)
    deep = np.array([[0, 9000, 65535]], dtype=">u2")
    (root / "deep.png").write_bytes(grey_png_of_16_bits(deep, transparent=9000))
    expected = {path.stem: pixels(path) for path in root.iterdir() if path.suffix != ".txt"}
    run("flatten-alpha", settings(root))
    assert {path.stem: pixels(path) for path in root.glob("*.png")} == expected
    assert {Image.open(path).mode for path in root.glob("*.png")} == {"RGB"}


def test_a_colour_shows_where_it_was_transparent_and_the_transparency_can_become_the_mask(tmp_path):
    root, masks = tmp_path / "set", tmp_path / "masks"
    image = Image.new("RGBA", (2, 1), (200, 100, 0, 255))
    image.putpixel((1, 0), (200, 100, 0, 51))  # a fifth of it covers
    image.save(picture(root / "1_x" / "a.png"))
    masks.mkdir()
    run("flatten-alpha", settings(root, masks), colour="#0000ff", keep_as_mask=True)
    result = open_upright(root / "1_x" / "a.png")
    assert [result.getpixel((x, 0)) for x in (0, 1)] == [(200, 100, 0), (40, 20, 204)]
    assert [open_grey(masks / "1_x" / "a.png").getpixel((x, 0)) for x in (0, 1)] == [255, 51]
    assert scan(settings(root, masks), ()).items[0].mask == masks / "1_x" / "a.png"


def test_what_cannot_be_is_said_before_anything_is_looked_at(root):
    with pytest.raises(ConfigError, match="colour: 'whitish' is no colour"):
        drafted("flatten-alpha", settings(root), colour="whitish")
    with pytest.raises(ConfigError, match="keep_as_mask"):
        drafted("flatten-alpha", settings(root), keep_as_mask=True)
    with pytest.raises(ProblemsFound, match="tolerance"):
        drafted("trim", settings(root), tolerance=101.0)
    with pytest.raises(ProblemsFound, match="does not exist"):
        drafted("trim", settings(root / "none"))
    (root / "none").mkdir()
    with pytest.raises(DataError, match="contains no pictures"):
        drafted("trim", settings(root / "none"))
    draft = drafted("flatten-alpha", settings(root, source={"alpha_masks": True}))
    assert ["is lost" in str(problem) for problem in draft.problems] == [True, False]


# --- trim and pad


def test_borders_are_trimmed_as_imagemagick_does(tmp_path):
    """Hand-worked: the fuzz of 20 % is 51 of 255; grey 51 darker than white is border, 52 darker is not."""
    image = with_border((100, 80), (20, 10, 90, 70), inside=(204, 204, 204))
    assert content_box(image, 20) is None
    image.paste((203, 203, 203), (30, 20, 80, 60))
    assert content_box(image, 20) == (30, 20, 80, 60)
    image.putpixel((95, 75), (255, 255, 255 - 88))  # √(88² / 3) = 50.8
    assert content_box(image, 20) == (30, 20, 80, 60)
    image.putpixel((95, 75), (255, 255, 255 - 89))  # √(89² / 3) = 51.4
    assert content_box(image, 20) == (30, 20, 96, 76)
    assert content_box(image, 0) == (20, 10, 96, 76)


def test_each_side_has_the_colour_of_its_corner(tmp_path):
    """The left and upper borders are black, the right one white, the lower one red."""
    image = Image.new("RGB", (60, 60), (0, 0, 255))
    image.paste((0, 0, 0), (0, 0, 5, 60))
    image.paste((0, 0, 0), (0, 0, 60, 4))
    image.paste((255, 255, 255), (53, 0, 60, 60))
    image.paste((255, 0, 0), (0, 58, 60, 60))
    # Black reaches neither the whole left column (red below) nor the whole top row (white at the right).
    assert content_box(image, 20) == (0, 0, 60, 58)
    image.paste((0, 0, 0), (0, 0, 60, 4))
    image.paste((0, 0, 0), (0, 0, 5, 60))
    assert content_box(image, 20) == (5, 4, 60, 60)


def test_transparent_borders_are_borders_whatever_colour_hides_in_them(tmp_path):
    image = noise((40, 40), 1, "RGBA")
    values = np.asarray(image).copy()
    values[..., 3] = 0
    values[10:30, 5:35, 3] = 255
    assert content_box(Image.fromarray(values), 20) == (5, 10, 35, 30)


def test_a_trimmed_picture_keeps_its_pixels_and_its_mask_is_cut_alike(tmp_path):
    root, masks = tmp_path / "set", tmp_path / "masks"
    inside = noise((70, 80), 7)
    image = Image.new("RGB", (100, 120), (0, 0, 0))
    image.paste(inside, (20, 30))
    image.putpixel((20, 30), (250, 250, 250)), image.putpixel((89, 109), (250, 250, 250))
    image.save(picture(root / "a.png"))
    mask = Image.new("L", (50, 60))
    mask.paste(255, (10, 15, 45, 55))
    mask.save(picture(masks / "a.png", caption=None))
    draft = run("trim", settings(root, masks), tolerance=5.0)
    assert facts(draft)["a.png"] == {"width": 70, "height": 80, "box": [20, 30, 90, 110]}
    assert pixels(root / "a.png") == np.asarray(image.crop((20, 30, 90, 110))).tolist()
    cut = open_grey(masks / "a.png")
    assert cut.size == (70, 80) and cut.getextrema() == (143, 255), "only the scaled border of it is grey"


def test_nothing_is_trimmed_to_nothing(tmp_path):
    root = tmp_path / "set"
    Image.new("RGB", (90, 90), (9, 9, 9)).save(picture(root / "plain.png"))
    with_border((90, 90), (40, 40, 50, 50)).save(picture(root / "dot.png"))
    picture(root / "full.png", (90, 90))
    draft = drafted("trim", settings(root))
    assert draft.operations == ()
    assert sorted(problem.where.rpartition("/")[2] for problem in draft.problems) == ["dot.png", "plain.png"]
    assert drafted("trim", settings(root), shortest=10).operations[0].path.name == "dot.png"


@pytest.mark.parametrize("fault", ["shape", "shared", "jpeg", "broken"])
def test_a_mask_that_cannot_follow_keeps_its_picture_as_it_is(tmp_path, fault):
    root, masks = tmp_path / "set", tmp_path / "masks"
    with_border((100, 120), (20, 20, 90, 100)).save(picture(root / "a.png"))
    mask = picture(masks / ("a.jpg" if fault == "jpeg" else "a.png"), (100, 120), caption=None, mode="L")
    if fault == "shape":
        Image.new("L", (100, 100)).save(mask)
    if fault == "shared":
        with_border((100, 120), (20, 20, 90, 100)).save(root / "a.bmp")
    if fault == "broken":
        mask.write_bytes(mask.read_bytes()[:500])
    draft = drafted("trim", settings(root, masks))
    assert draft.operations == () and str(draft.problems[0]).startswith(str(mask))


def test_padding_keeps_the_pixels_in_the_middle_and_masks_the_bars(tmp_path):
    root, masks = tmp_path / "set", tmp_path / "masks"
    original = np.asarray(Image.open(picture(root / "a.png", (31, 20))))
    Image.new("L", (31, 20), 255).save(picture(masks / "a.png", caption=None))
    picture(root / "square.png", (20, 20))
    picture(root / "clear.png", (10, 20), mode="RGBA")
    draft = run("pad", settings(root, masks), colour="rgb(1, 2, 3)")
    assert set(facts(draft)) == {"a.png", "clear.png"}
    padded = np.asarray(open_upright(root / "a.png"))
    assert padded.shape == (31, 31, 3) and (padded[5:25] == original).all()
    assert (padded[:5] == (1, 2, 3)).all() and (padded[25:] == (1, 2, 3)).all()
    mask = np.asarray(open_grey(masks / "a.png"))
    assert (mask[5:25] == 255).all() and not mask[:5].any() and not mask[25:].any()
    assert Image.open(root / "clear.png").getpixel((0, 0)) == (1, 2, 3, 255)
