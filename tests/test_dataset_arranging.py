"""Tools that add crops and enlarge, and those by which pictures change folders; weights, captions and masks stay."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dying_files import tree
from lib_lora_trainer.app import dataset_tools
from lib_lora_trainer.app.dataset_tools import Request
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError, DataError, Problem, ProblemsFound
from lib_lora_trainer.dataset.pixels import open_grey, open_upright
from lib_lora_trainer.dataset.scan import scan
from lib_lora_trainer.dataset.tools.framing import framed, framing_of, window
from lib_lora_trainer.dataset.tools.members import Member, gather
from lib_lora_trainer.dataset.tools.options import UpscaleOptions
from lib_lora_trainer.dataset.tools.pictures import shape_of
from lib_lora_trainer.dataset.tools.subject import Subject, contrast, find
from tool_cases import applied, drafted, facts, names, noise, picture, run, settings, undo

pytestmark = pytest.mark.usefixtures("quick")


def figure(size, box, ground=(250, 250, 250)):
    """Return a picture with a plain ground and a noisy subject in a box."""
    image = Image.new("RGB", size, ground)
    image.paste(noise((box[2] - box[0], box[3] - box[1]), 5).point(lambda value: value // 2), box[:2])
    return image


def weights(data):
    """Return the pictures' repeats by caption, as a scan finds them."""
    return {item.caption: item.repeats for item in scan(data, ()).items}


# --- framings


def test_framings_reach_as_far_down_as_artists_teach():
    """Hand-worked: a body of 750 px from row 100 on, so 100 px a head; the margin is 6 % of what is shown."""
    subject = Subject((400, 100, 600, 850), None, "given")
    size = (1000, 1000)
    assert window(subject, size, "full_body", "full_body")[1::2] == (55, 895)
    assert window(subject, size, "cowboy_shot", "full_body")[1::2] == (100 - 28, 575)
    assert window(subject, size, "upper_body", "full_body")[1::2] == (100 - 20, 425)
    assert window(subject, size, "portrait", "full_body")[1::2] == (100 - 14, 325)
    assert window(subject, size, "close-up", "full_body")[1::2] == (100 - 8, 225)
    # The picture of an upper body shows 3¼ heads in its 750 px.
    assert window(subject, size, "portrait", "upper_body")[3] == 100 + round(750 * 2.25 / 3.25)
    # As wide as the subject and two margins, but not below 0.6 or above 1.5 of the height, and within the picture.
    left, top, right, bottom = window(subject, size, "full_body", "full_body")
    assert right - left == round(0.6 * (bottom - top)) and (left + right) / 2 == 500
    left, top, right, bottom = window(subject, size, "close-up", "full_body")
    assert right - left == 1.5 * (bottom - top) + 0.5 and (left + right) / 2 == 500
    assert window(Subject((0, 100, 200, 850), None, "given"), size, "full_body", "full_body")[0] == 0


@pytest.mark.parametrize(
    ("caption", "framing", "expected"),
    [
        ("sks, full_body, red_hair", "portrait", "sks, portrait, red_hair"),
        ("sks, full body, red hair", "upper_body", "sks, upper body, red hair"),
        ("sks,Full_Body,cowboy_shot", "close-up", "sks,close-up"),
        ("sks, red hair", "cowboy_shot", "sks, red hair, cowboy shot"),
        ("sks, wide_shot", "full_body", "sks, full_body"),
        ("", "portrait", "portrait"),
        ("a, full_body\nb, headshot", "portrait", "a, portrait\nb, portrait"),
    ],
)
def test_framing_tags_are_exchanged_in_their_place_and_spelling(caption, framing, expected):
    assert framed(caption, framing) == expected
    assert framing_of(expected.splitlines()[0]) == framing


def test_one_large_picture_becomes_crops_with_captions_and_masks(tmp_path):
    root, masks = tmp_path / "set", tmp_path / "masks"
    box = (150, 40, 250, 360)
    figure((400, 400), box).save(picture(root / "2_x" / "p.png", caption="sks, full_body, hat"))
    mask = Image.new("L", (200, 200))  # at half its picture's size
    mask.paste(255, tuple(side // 2 for side in box))
    mask.save(picture(masks / "2_x" / "p.png", caption=None))
    before = tree(root)
    draft = run("crop", settings(root, masks), resolution=100)
    crops = {crop["framing"]: crop for crop in facts(draft)["p.png"]["crops"]}
    assert list(crops) == ["full_body", "cowboy_shot", "upper_body", "portrait"], "a close-up has too few pixels"
    assert draft.proposals[0].before["subject"] == list(box) and draft.proposals[0].before["found_by"] == "mask"
    for framing, crop in crops.items():
        left, top, right, bottom = crop["box"]
        assert (right - left) * (bottom - top) >= 100**2
        whole = open_upright(root / "2_x" / "p.png")
        made = root / "2_x" / f"p-{framing}.png"
        assert np.array_equal(open_upright(made), whole.crop(crop["box"]))
        assert made.with_suffix(".txt").read_text(encoding="utf-8") == f"sks, {framing}, hat"
        assert open_grey(masks / "2_x" / made.name).size == (right - left, bottom - top)
        assert open_grey(masks / "2_x" / made.name).getpixel((200 - left, 100 - top)) == 255
    assert {name: before[name] for name in before} == {name: tree(root)[name] for name in before}
    found = scan(settings(root, masks), ())
    assert len(found.items) == 5 and all(item.mask for item in found.items)


def test_only_closer_framings_are_made_and_only_of_what_is_known(tmp_path):
    root = tmp_path / "set"
    for name, caption in (("upper", "sks, upper_body"), ("untagged", "sks"), ("none", None)):
        figure((400, 400), (100, 40, 300, 400)).save(picture(root / f"{name}.png", caption=caption))
    draft = drafted("crop", settings(root), resolution=64, by_contrast=True)
    assert [crop["framing"] for crop in facts(draft)["upper.png"]["crops"]] == ["upper_body", "portrait", "close-up"]
    assert set(facts(draft)) == {"upper.png"} and "has no framing tag" in str(draft.problems)
    full = drafted(
        "crop", settings(root), resolution=64, by_contrast=True, assume_full_body=True, framings=("portrait",)
    )
    assert {name: [crop["framing"] for crop in made["crops"]] for name, made in facts(full).items()} == {
        name: ["portrait"] for name in ("none.png", "untagged.png", "upper.png")
    }
    applied(full)
    assert (root / "none-portrait.txt").read_text(encoding="utf-8") == "portrait"
    unknown = drafted("crop", settings(root), resolution=64)
    assert "has neither a mask nor transparency" in str(unknown.problems) and not unknown.operations
    given = {root / "upper.png": (120, 60, 280, 380)}
    boxed = drafted("crop", settings(root), resolution=64, boxes=given)
    assert boxed.proposals[-1].before["subject"] == [120, 60, 280, 380]
    wrong = drafted("crop", settings(root), resolution=64, boxes={root / "upper.png": (120, 60, 401, 380)})
    assert "has no box 120,60,401,380" in str(wrong.problems)


def test_subjects_are_found_by_transparency_and_by_contrast(tmp_path):
    box = (60, 30, 140, 190)
    image = figure((200, 200), box)
    presence = contrast(image)
    rows, columns = np.flatnonzero(presence.any(1)), np.flatnonzero(presence.any(0))
    assert (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) == box
    assert not contrast(Image.new("RGB", (100, 100), (9, 9, 9))).any()
    assert not contrast(Image.linear_gradient("L")).any(), "a gradient is ground"
    alpha = Image.new("L", image.size)
    alpha.paste(255, box)
    image.putalpha(alpha)
    path = picture(tmp_path / "a.png", caption=None)
    image.save(path)
    found = find(Member(path), shape_of(path), None, by_contrast=False)
    assert isinstance(found, Subject) and (found.box, found.found) == (box, "transparency")
    image.putalpha(Image.new("L", image.size, 100))
    image.save(path)
    assert isinstance(find(Member(path), shape_of(path), None, by_contrast=False), Problem)


# --- upscaling


def test_only_what_has_too_few_pixels_is_enlarged_to_what_training_needs(tmp_path):
    root = tmp_path / "set"
    picture(root / "small.png", (40, 30), seed=1)
    picture(root / "tiny.jpg", (10, 33), seed=2)
    picture(root / "enough.png", (64, 64), seed=3)
    picture(root / "large.png", (200, 300), seed=4)
    picture(root / "clear.png", (30, 30), seed=5, mode="RGBA")
    data = settings(root)
    before = tree(root)
    draft = run("upscale", data)
    assert set(facts(draft)) == {"small.png", "tiny.jpg", "clear.png"}
    found = scan(data, ())
    assert not [problem for problem in found.problems if "fewer pixels" in problem.message]
    assert all(item.width * item.height >= 64**2 for item in found.items)
    sizes = {item.path.stem: (item.width, item.height) for item in found.items}
    assert sizes["clear"] == (64, 64) and sizes["small"][0] / sizes["small"][1] == pytest.approx(4 / 3, abs=0.02)
    assert Image.open(root / "clear.png").mode == "RGBA"
    assert not drafted("upscale", data).operations
    undo(root)
    assert tree(root) == before


def test_without_a_model_it_is_lanczos_and_says_so(tmp_path):
    root = tmp_path / "set"
    picture(root / "a.png", (32, 32), seed=1)
    data = settings(root)
    *told, draft = dataset_tools.draft("upscale", Request(data, UpscaleOptions()), Control())
    assert "without adding detail" in told[-1].text and facts(draft)["a.png"]["upscaler"] == "Lanczos"
    expected = noise((32, 32), 1).resize((64, 64), Image.Resampling.LANCZOS)
    applied(draft)
    assert np.array_equal(open_upright(root / "a.png"), expected)


def test_a_given_upscaler_is_used_and_brought_to_the_size(tmp_path):
    root, asked = tmp_path / "set", []
    picture(root / "a.png", (32, 32), seed=1)

    def four_times(image, size):
        asked.append((image.mode, image.size, size))
        return image.resize((128, 128), Image.Resampling.NEAREST)

    run("upscale", settings(root), upscaler=four_times, name="4x-Sharp")
    assert asked == [("RGB", (32, 32), (64, 64))]
    expected = noise((32, 32), 1).resize((128, 128), 0).resize((64, 64), Image.Resampling.LANCZOS)
    assert np.array_equal(open_upright(root / "a.png"), expected)


def test_an_upscaler_that_fails_changes_nothing(tmp_path):
    root = tmp_path / "set"
    picture(root / "a.png", (32, 32)), picture(root / "b.png", (32, 32))
    before = tree(root)

    def broken(image, size):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        run("upscale", settings(root), upscaler=broken)
    assert tree(root) == before and not list((root / ".lora-trainer" / "holding").iterdir())


# --- folders


def test_sorting_by_bucket_is_training_s_own_assignment_and_keeps_weights(tmp_path):
    root, masks = tmp_path / "set", tmp_path / "masks"
    picture(root / "3_x" / "wide.png", (96, 48), caption="wide", seed=1)
    picture(root / "3_x" / "tall.png", (48, 96), caption="tall", seed=2)
    picture(root / "loose.png", (64, 64), caption="loose", seed=3)
    picture(masks / "3_x" / "wide.png", (96, 48), caption=None, mode="L")
    picture(masks / "tall.png", (48, 96), caption=None, mode="L")
    (root / "3_x" / "multiply.txt").write_text("0.5", encoding="utf-8")
    data = settings(root, masks)
    before, seen = weights(data), {view.path.stem: view.facts()["bucket"] for view in report(data).placed}
    run("sort", data)
    assert weights(data) == before == {"wide": 1.5, "tall": 1.5, "loose": 1}
    found = scan(data, ())
    assert {item.path.stem: item.path.parent.name for item in found.items} == seen
    assert {item.caption: item.mask.relative_to(masks).as_posix() for item in found.items if item.mask} == {
        "wide": f"3_x/{seen['wide']}/wide.png",
        "tall": "tall.png",
    }
    assert not drafted("sort", data).operations
    picture(root / "more.png", (64, 64))
    with pytest.raises(ConfigError, match="recursive"):
        drafted("sort", settings(root, source={"recursive": False}))


def report(data):
    *_, made = dataset_tools.buckets(Request(data), Control())
    return made


def test_nested_folders_become_one_level_and_keep_their_weights(tmp_path):
    root, masks = tmp_path / "7_set", tmp_path / "masks"
    layout = {
        "17_characters/fanart/Name/a.png": 17,
        "17_characters/fanart/5_Other/b.png": 5,
        "17_characters/fanart/5_Other/deep/c.png": 5,
        "4_flat/d.png": 4,
        "plain/e.png": 7,
        "plain/half/f.png": 3.5,
        "x/Name/g.png": 7,
        "loose.png": 7,
        "0_off/h.png": None,
    }
    for number, (name, _) in enumerate(layout.items()):
        picture(root / name, caption=name, seed=number)
    picture(masks / "17_characters/fanart/Name/a.png", caption=None, mode="L")
    (root / "plain" / "half" / "multiply.txt").write_text("0.5", encoding="utf-8")
    data = settings(root, masks)
    expected = {name: repeats for name, repeats in layout.items() if repeats is not None}
    before, files = weights(data), tree(root)
    assert before == expected
    run("flatten", data)
    assert weights(data) == expected
    folders = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_dir()} - {".lora-trainer"}
    assert {name for name in folders if not name.startswith(".")} == {
        "17_characters~fanart~Name", "5_characters~fanart~Other", "5_characters~fanart~Other~deep", "4_flat", "7_plain",
        "7_plain~half", "7_x~Name", "0_off",
    }  # fmt: skip
    assert {item.caption for item in scan(data, ()).items if item.mask} == {"17_characters/fanart/Name/a.png"}
    assert not drafted("flatten", data).operations
    undo(root)
    assert tree(root) == files


def test_very_deep_names_fit_and_equal_ones_are_kept_apart(tmp_path):
    root = tmp_path / "set"
    picture(root / "3_a" / "x" / "p.png", caption="first")
    picture(root / "3_b" / "3_a~x" / "p.png", caption="second")
    picture(root / "b" / "3_a~x" / "p.png", caption="third")
    picture(root / "長い" / ("名" * 80) / ("前" * 80) / "p.png", caption="long")
    before = weights(settings(root))
    run("flatten", settings(root))
    assert weights(settings(root)) == before
    made = [path.name for path in root.iterdir() if not path.name.startswith(".")]
    assert len(made) == 4 and all(len(name.encode()) <= 255 for name in made) and "3_b~a~x-2" in made


# --- chosen files


def test_excluded_pictures_are_not_trained_and_come_back_where_they_were(tmp_path):
    root, masks = tmp_path / "set", tmp_path / "masks"
    picture(root / "3_x" / "a.png", caption="a"), picture(root / "3_x" / "b.png", caption="b")
    picture(masks / "3_x" / "a.png", caption=None, mode="L"), picture(masks / "b.png", caption=None, mode="L")
    data = settings(root, masks)
    before = tree(root), tree(masks)
    run("files", data, action="exclude", files=("3_x/a.png", str(root / "3_x" / "b.png")))
    assert scan(data, ()).items == ()
    assert names(root) == {".excluded/3_x/a.png", ".excluded/3_x/a.txt", ".excluded/3_x/b.png", ".excluded/3_x/b.txt"}
    run("files", data, action="include", files=(".excluded/3_x/a.png", ".excluded/3_x/b.png"))
    assert tree(root) == before[0] and tree(masks) == before[1]
    assert {item.caption: bool(item.mask) for item in scan(data, ()).items} == {"a": True, "b": True}
    undo(root), undo(root)
    assert (tree(root), tree(masks)) == before
    with pytest.raises(DataError, match="is no excluded picture"):
        drafted("files", data, action="include", files=("3_x/a.png",))


def test_files_are_moved_copied_and_removed_with_what_is_theirs(tmp_path):
    root, masks = tmp_path / "set", tmp_path / "masks"
    picture(root / "a.png", caption="shared"), picture(root / "a.jpg", caption="shared")
    picture(root / "b.png", caption="b"), picture(root / "2_y" / "b.png", caption="other b")
    (root / "b.caption").write_text("more", encoding="utf-8")
    picture(masks / "b.png", caption=None, mode="L")
    (masks / "2_y").mkdir()
    data = settings(root, masks)
    before = tree(root), tree(masks)
    run("files", data, action="move", files=("a.jpg", "b.png"), to="2_y")
    moved = {"2_y/a.jpg", "2_y/a.txt", "2_y/b-2.png", "2_y/b-2.txt", "2_y/b-2.caption"}
    assert names(root) == {"a.png", "a.txt", "2_y/b.png", "2_y/b.txt", *moved}
    undo(root)
    assert (tree(root), tree(masks)) == before
    run("files", data, action="copy", files=("a.png",), to="5_z/inner")
    assert names(root) >= {"a.png", "a.txt", "5_z/inner/a.png", "5_z/inner/a.txt"}
    undo(root)
    run("files", data, action="remove", files=("a.jpg", "b.png"))
    assert names(root) == {"a.png", "a.txt", "2_y/b.png", "2_y/b.txt"} and not (masks / "b.png").exists()
    run("files", data, action="restore", files=("b.png",))
    assert names(root) == {"a.png", "a.txt", "2_y/b.png", "2_y/b.txt", "b.png"}
    assert tree(root)["b.png"] == before[0]["b.png"]
    undo(root), undo(root)
    assert (tree(root), tree(masks)) == before


def test_a_mask_found_by_name_alone_is_not_lost_where_the_name_is_not_the_only_one(tmp_path):
    root, masks = tmp_path / "set", tmp_path / "masks"
    picture(root / "b.png", caption="masked"), picture(root / "2_y" / "b.png", caption="other")
    picture(masks / "b.png", caption=None, mode="L")
    data = settings(root, masks)
    run("files", data, action="move", files=("b.png",), to="3_z")
    assert {item.caption: item.mask for item in scan(data, ()).items} == {
        "masked": masks / "3_z" / "b.png",
        "other": None,
    }


def test_what_is_no_picture_of_the_dataset_is_named_together(tmp_path):
    root = tmp_path / "set"
    picture(root / "a.png")
    picture(tmp_path / "outside.png")
    with pytest.raises(ProblemsFound) as found:
        drafted("files", settings(root), action="remove", files=("a.png", "a.txt", "../outside.png", "none.png"))
    assert [problem.where.rpartition("/")[2] for problem in found.value.problems] == [
        "a.txt",
        "outside.png",
        "none.png",
    ]
    with pytest.raises(DataError, match="is not in the dataset"):
        drafted("files", settings(root), action="move", files=("a.png",), to="../elsewhere")
    with pytest.raises(DataError, match="no original of it"):
        drafted("files", settings(root), action="restore", files=("a.png",))


def test_members_are_found_with_everything_that_is_theirs(tmp_path):
    root, masks = tmp_path / "set", tmp_path / "set" / "masks"
    for name in ("x/a.png", "x/a.jpg", "b.tif", "c_1_2_3_4.png", ".excluded/no.png", "masks/x/a.png", "masks/b.png"):
        picture(root / name, caption=None)
    for name in ("x/a.txt", "x/a.CAPTION", "b.txt", "c.txt"):
        (root / name).write_text("t", encoding="utf-8")
    dataset = gather(settings(root, masks))
    assert [member.path.relative_to(root).as_posix() for member in dataset.members] == [
        "b.tif", "c_1_2_3_4.png", "x/a.jpg", "x/a.png",
    ]  # fmt: skip
    first, face, one, two = dataset.members
    assert first.captions == (root / "b.txt",) and first.mask == masks / "b.png" and not first.shared
    assert face.captions == (root / "c.txt",)
    assert one.captions == two.captions == (root / "x" / "a.txt", root / "x" / "a.CAPTION")
    assert one.shared == two.shared == {*one.captions, masks / "x" / "a.png"}
