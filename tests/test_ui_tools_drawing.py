"""What the page's script draws: crops as boxes that come back adjusted, and masks as pictures that are saved."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

pytest.importorskip("gradio")

from dying_files import tree
from lib_lora_trainer.app import masking
from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.dataset.tools import options
from lib_lora_trainer.dataset.tools.options import FRAMINGS
from lib_lora_trainer.ui import tools_catalog, tools_masks_form
from tool_cases import drafted, names, noise, picture, settings
from tools_page import Panel

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def root(tmp_path):
    """A person in the middle of a white picture, and a picture of which nothing is known."""
    root = tmp_path / "set"
    image = Image.new("RGB", (200, 300), "white")
    image.paste(noise((80, 240), 1), (60, 40))
    picture(root / "person.png", (8, 8), caption="sks, full_body, hat")
    image.save(root / "person.png")
    picture(root / "other.png", (160, 120), caption="sks", seed=2)
    (tmp_path / "masks").mkdir()
    return root


@pytest.fixture
def panel(root, tmp_path):
    made = Panel(tmp_path, settings(root, tmp_path / "masks", bucket_minimum=64))
    made.do("look")
    return made


def croppers(panel):
    """Return each cropper's number, size and boxes by the name of its picture."""
    found = {}
    for figure in re.findall(r"<figure class=\"lora-trainer-cropper\".*?</figure>", panel.shown("shown"), re.DOTALL):
        data = dict(re.findall(r'data-(\w+)="([^"]*)"', figure))
        name = re.search(r"<b title=\"([^\"]+)\"", figure)[1]
        found[name] = (
            data["number"],
            (int(data["width"]), int(data["height"])),
            json.loads(html.unescape(data["boxes"])),
        )
    return found


def preview_crops(panel, **given):
    panel.do("tool", "input", tool=tools_catalog.offer("crop").title)
    panel.options("crop", resolution=64, **{"by-contrast": True, **given})
    panel.do("preview")
    return croppers(panel)


def test_crops_are_boxes_over_their_picture_and_every_framing_has_its_colour(panel):
    shown = preview_crops(panel)
    _, size, boxes = shown["person.png"]
    assert size == (200, 300) and set(boxes) <= set(FRAMINGS) and "upper_body" in boxes
    assert all(0 <= left < right <= 200 and 0 <= top < bottom <= 300 for left, top, right, bottom in boxes.values())
    assert shown["other.png"][2] == {} and "has no framing tag" in panel.shown("shown")
    style = (Path(__file__).parents[1] / "style.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r'\[data-framing="([^"]+)"\] \{ --lora-trainer-frame: (hsl\([^)]*\))', style))
    assert set(colours) == set(FRAMINGS) and len(set(colours.values())) == len(FRAMINGS)


def test_adjusted_boxes_are_cropped_as_they_are_and_untouched_ones_as_proposed(panel, root):
    before = tree(root)
    shown = preview_crops(panel)
    proposed = shown["person.png"][2]
    other = shown["other.png"][0]
    panel.do("apply", adjusted={other: {"portrait": [10, 20, 110.2, 100]}})
    made = Image.open(root / "other-portrait.png")
    assert made.size == (100, 80)
    assert made.tobytes() == noise((160, 120), 2).crop((10, 20, 110, 100)).tobytes()
    assert (root / "other-portrait.txt").read_text(encoding="utf-8") == "sks, portrait"
    left, top, right, bottom = proposed["upper_body"]
    assert Image.open(root / "person-upper_body.png").size == (right - left, bottom - top)
    panel.do("undo")
    assert tree(root) == before
    number = preview_crops(panel)["person.png"][0]
    panel.do("apply", adjusted={number: {"close-up": [60, 40, 140, 120]}})
    assert names(root) - set(before) == {"person-close-up.png", "person-close-up.txt"}
    assert (root / "person-close-up.txt").read_text(encoding="utf-8") == "sks, close-up, hat"


@pytest.mark.parametrize(
    ("adjusted", "told"),
    [
        ({"1": {"portrait": [10, 20, 500, 100]}}, "cannot be cropped to portrait = 10,20,500,100"),
        ({"1": {"portrait": [50, 20, 50, 100]}}, "Give left, top, right and bottom within the picture"),
        ({"1": {"sideways": [0, 0, 9, 9]}}, "Press Preview again"),
        ({"9": {"portrait": [0, 0, 9, 9]}}, "Press Preview again"),
        ({"-1": {"portrait": [0, 0, 9, 9]}}, "Press Preview again"),
        ({"1": {"portrait": [0, 0, 9]}}, "Press Preview again"),
        ({"1": 3}, "Press Preview again"),
        (["x"], "Press Preview again"),
    ],
)
def test_boxes_that_are_none_change_nothing(panel, root, adjusted, told):
    before = tree(root)
    preview_crops(panel)
    panel.do("apply", adjusted=adjusted)
    assert told in panel.said() and tree(root) == before


def test_all_crops_of_a_picture_can_be_taken_away(panel, root):
    before = tree(root)
    number = preview_crops(panel)["person.png"][0]
    panel.do("apply", adjusted={number: {}})
    assert "Nothing has to be changed" in panel.said() and tree(root) == before


def test_given_windows_need_neither_a_tag_nor_a_subject(root):
    windows = {root / "other.png": {"portrait": (0, 0, 40, 40), "full_body": (0, 0, 160, 120)}}
    made = drafted("crop", settings(root), windows=windows, resolution=4096)
    (crops,) = [each.after["crops"] for each in made.proposals if each.after]
    assert [(crop["framing"], crop["box"]) for crop in crops] == [
        ("full_body", [0, 0, 160, 120]),
        ("portrait", [0, 0, 40, 40]),
    ]


def address(image):
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def test_a_mask_is_drawn_saved_and_undone(panel, root, tmp_path):
    panel.do("masks_open")
    assert "1 of 2: other.png (no mask yet" in panel.shown("masks_which")
    assert 'data-width="160" data-height="120"' in panel.shown("masks_editor")
    before = tree(tmp_path / "masks")
    grey = Image.new("RGBA", (160, 120), "black")
    grey.paste("white", (20, 20, 100, 100))
    panel.do("masks_save", masks_drawn=address(grey))
    assert "Saved. 33% of the picture is learned" in panel.shown("masks_said") and panel.refreshed == [1]
    mask = Image.open(tmp_path / "masks" / "other.png")
    assert (
        mask.mode == "L" and mask.size == (160, 120) and mask.getpixel((60, 60)) == 255 and mask.getpixel((5, 5)) == 0
    )
    assert panel.shown("undo") == "Undo: Drew the mask of other.png"
    panel.do("masks_next")
    assert "2 of 2: person.png" in panel.shown("masks_which") and panel.shown("masks_said") == ""
    panel.do("masks_save", masks_drawn=address(Image.new("L", (200, 300))))
    assert "black everywhere" in panel.shown("masks_said")
    panel.do("masks_previous")
    assert 'data-mask="data:image/png' in panel.shown("masks_editor") and "no mask yet" not in panel.shown(
        "masks_which"
    )
    panel.do("undo")
    panel.do("undo")
    assert tree(tmp_path / "masks") == before


def test_only_selected_pictures_are_opened_and_a_large_one_gets_a_smaller_canvas(panel, root, tmp_path):
    noise((3000, 1500), 7).save(root / "large.png")
    panel.values[panel.selection._id] = json.dumps([str(root / "large.png")])
    panel.do("masks_open")
    assert "1 of 1: large.png" in panel.shown("masks_which")
    assert 'data-width="1024" data-height="512"' in panel.shown("masks_editor")
    half = Image.new("L", (1024, 512))
    half.paste(255, (0, 0, 512, 512))
    panel.do("masks_save", masks_drawn=address(half))
    mask = Image.open(tmp_path / "masks" / "large.png")
    assert mask.size == (3000, 1500) and mask.getpixel((1480, 700)) == 255 and mask.getpixel((1520, 700)) == 0


@pytest.mark.parametrize(
    "sent",
    ["", "data:image/png;base64,", "data:image/png;base64,????", "data:image/gif;base64,R0lGODlhAQABAAAAACw=", "file:///etc/passwd",
     address(Image.new("L", (2000, 10)))],
)  # fmt: skip
def test_what_is_no_drawing_is_refused(panel, root, sent):
    before = tree(root)
    panel.do("masks_open")
    panel.do("masks_save", masks_drawn=sent)
    assert "is no drawing" in panel.shown("masks_said") and tree(root) == before
    with pytest.raises(ConfigError):
        tools_masks_form.decoded(sent)


def test_without_a_folder_for_masks_it_says_where_to_choose_one(root, tmp_path):
    panel = Panel(tmp_path, settings(root, bucket_minimum=64))
    panel.do("masks_open")
    assert "has no folder for masks" in panel.shown("masks_said")
    panel.do("masks_save")
    assert "Open pictures" in panel.shown("masks_said")


def test_masks_are_generated_from_the_panel_after_an_install_that_was_asked_for(panel, root, tmp_path, monkeypatch):
    package = ModuleType("rembg")

    def new_session(name):
        masking.model_file(name).parent.mkdir(parents=True, exist_ok=True)
        masking.model_file(name).write_bytes(b"a model")

    package.new_session = new_session
    package.remove = lambda image, session, only_mask: image.convert("L").point(lambda value: 255 * (value < 250))
    monkeypatch.setitem(sys.modules, "rembg", package)
    monkeypatch.setenv("U2NET_HOME", str(tmp_path / "models"))
    monkeypatch.setattr(masking.mask_packages, "lacking", lambda installed: ())
    panel.do("tool", "input", tool=tools_catalog.offer("mask-generate").title)
    panel.do("look")
    assert "the model isnet-anime (176 MB" in panel.shown("needed") and panel.of("install", "visible")
    panel.do("preview")
    assert "Press “Install”" in panel.said() and not (tmp_path / "models").exists()
    panel.do("install")
    assert "Installed" in panel.shown("needed") and panel.of("install", "visible") is False
    panel.do("preview")
    assert panel.of("apply", "visible") and "learned" in panel.shown("shown")
    panel.do("apply")
    assert "person.png" in names(tmp_path / "masks")
    panel.do("tool", "input", tool=tools_catalog.offer("mask").title)
    panel.do("preview")
    assert "good masks" in panel.shown("shown") and "None of the masks is a bad one" in panel.shown("shown")
    assert panel.of("apply", "visible") is False


def test_windows_on_the_command_line(root):
    found = options.windows_in(
        ["other.png=portrait:1,2,30,40", "other.png=close-up:0,0,9,9", "a=b.png=full_body:0,0,5,5"], root
    )
    assert found == {
        root / "other.png": {"portrait": (1, 2, 30, 40), "close-up": (0, 0, 9, 9)},
        root / "a=b.png": {"full_body": (0, 0, 5, 5)},
    }
    for wrong in ("other.png=sideways:1,2,3,4", "other.png=portrait:1,2,3", "other.png=1,2,3,4", "portrait"):
        with pytest.raises(ConfigError, match="window: "):
            options.windows_in([wrong], root)
    with pytest.raises(ConfigError, match="box: .* is no box"):
        options.boxes_in(["other.png=1,2,x,4"], root)
