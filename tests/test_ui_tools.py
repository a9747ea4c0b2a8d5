"""The panel of dataset tools: options from one definition, preview, apply, undo, cancel, and the holding."""

from __future__ import annotations

import dataclasses
import json
import re
import threading

import pytest
from PIL import Image

pytest.importorskip("gradio")

import likeness_cases as cases
from dying_files import tree
from lib_lora_trainer.base.errors import RunConflict, UserError
from lib_lora_trainer.dataset.tools import options as declared
from lib_lora_trainer.dataset.tools.table import TOOLS
from lib_lora_trainer.dataset.tools.upscale import NamedUpscaler
from lib_lora_trainer.ui import tools_catalog, tools_work
from lib_lora_trainer.ui.tools_form import SELECTED
from tool_cases import animation, names, noise, picture, settings
from tools_page import Panel

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "絵 <b>"
    picture(root / "2_a" / "one.jpg", (96, 64), caption="sks, full_body", seed=1)
    picture(root / "2_a" / "two.png", (64, 96), seed=2, mode="RGBA")
    picture(root / "b" / "tiny.png", (20, 20), seed=3)
    animation(root / "b" / "moving.gif")
    return root


@pytest.fixture
def panel(root, tmp_path):
    made = Panel(tmp_path, settings(root, bucket_minimum=64))
    made.do("look")
    return made


def choose(panel, tool):
    panel.do("tool", "input", tool=tools_catalog.offer(tool).title)


def pictures_in(html):
    return re.findall(r'src="(data:image/\w+;base64,[^"]+)"', html)


def test_every_tool_is_offered_with_every_option_that_is_declared():
    offered = [offer.name for offer in tools_catalog.OFFERS]
    assert set(offered) == set(TOOLS) - {"files"} | {"duplicates", "buckets"}
    for name in offered:
        kind = declared.OPTIONS.get(name)
        wanted = [field.name for field in dataclasses.fields(kind) if "setting" in field.metadata] if kind else []
        fields = tools_catalog.option_fields(name)
        assert [field.path.rpartition(".")[2] for field in fields] == wanted
        if kind:  # what the untouched form sends is what the definition says
            sent = [getattr(tools_catalog.option(field), "value", None) for field in fields]
            assert tools_catalog.chosen(name, sent) == kind()


def test_choosing_a_tool_shows_its_options_alone(panel):
    choose(panel, "trim")
    visible = [name for name, column in panel.tools.columns.items() if column.shown_visible]
    assert visible == ["trim"] and "Cuts off borders" in panel.shown("about")
    (folder,) = panel.of("folder", "choices")
    assert panel.shown("folder") == folder and folder.startswith("1: ") and folder.endswith("絵 <b>")


def test_preview_shows_before_and_after_and_apply_undo_redo_do_it(panel, root):
    before = tree(root)
    choose(panel, "convert")
    panel.do("preview")
    html = panel.shown("shown")
    assert len(pictures_in(html)) == 2 + 1 + 3 and "moving.gif" in html and tree(root) == before
    assert "3 frames" in html and "<b>2</b>" in html and panel.of("apply", "visible")
    assert "絵 <b>" not in html and not panel.refreshed
    panel.do("apply")
    after = names(root)
    assert "2_a/one.png" in after and "b/moving-0003.png" in after and "b/moving.gif" not in after
    assert "Undo takes it back" in panel.said() and panel.refreshed == [1]
    assert panel.of("apply", "visible") is False and panel.of("preview", "interactive")
    assert panel.shown("undo") == "Undo: Converted to PNG: 2 of 4" and panel.shown("shown") == ""
    assert "Converted to PNG" in panel.shown("history") and "MB" in panel.shown("empty")
    panel.do("undo")
    assert tree(root) == before and panel.shown("redo") == "Redo: Converted to PNG: 2 of 4"
    assert panel.of("undo", "interactive") is False
    panel.do("redo")
    assert names(root) == after and panel.refreshed == [1, 1, 1]


def test_the_holding_is_emptied_only_after_a_second_click_that_says_how_much(panel, root):
    choose(panel, "convert")
    panel.do("preview")
    panel.do("apply")
    panel.do("empty")
    assert panel.of("confirm", "visible") and re.search(r"\d+\.\d MB", panel.shown("question"))
    panel.do("never")
    panel.do("undo")
    assert "b/moving.gif" in names(root)
    panel.do("redo")
    panel.do("empty")
    panel.do("really")
    assert "are deleted" in panel.said() and panel.of("undo", "interactive") is False
    panel.do("undo")
    assert "nothing to undo" in panel.said()


def test_only_the_selected_pictures_are_changed(panel, root):
    choose(panel, "pad")
    panel.do("preview", on=SELECTED)
    assert "no picture is selected" in panel.said()
    panel.values[panel.selection._id] = json.dumps([str(root / "2_a" / "two.png")])
    panel.do("preview")
    assert len(pictures_in(panel.shown("shown"))) == 2
    panel.do("apply")
    assert Image.open(root / "2_a" / "two.png").size == (96, 96) and (root / "2_a" / "one.jpg").exists()
    panel.values[panel.selection._id] = json.dumps([str(root.parent / "elsewhere.png")])
    panel.do("preview")
    assert "none of the 1 selected pictures" in panel.said()
    choose(panel, "flatten")
    panel.do("preview")
    assert "flattened as a whole" in panel.said()


def test_a_folder_that_is_gone_is_not_exchanged_for_another_one(panel, root):
    before = tree(root)
    choose(panel, "convert")
    panel.do("preview", folder="2: /gone")
    assert "2: /gone is no folder of the project now" in panel.said() and tree(root) == before
    panel.do("look")
    assert panel.shown("folder").startswith("1: ")


def test_mistakes_stand_beside_their_option_and_leave_no_preview(panel):
    choose(panel, "trim")
    panel.options("trim", tolerance=200)
    panel.do("preview")
    assert "#lora_trainer_set_tools_trim_tolerance::after" in panel.shown("beside") and panel.shown("shown") == ""
    panel.options("trim", tolerance="wide")
    panel.do("preview")
    assert "Tolerance: 'wide' is not a number" in panel.said()
    choose(panel, "flatten-alpha")
    panel.options("flatten-alpha", colour="<script>")
    panel.do("preview")
    assert "is no colour" in panel.said() and "<script>" not in panel.shown("said")
    panel.do("apply")
    assert "Press Preview first" in panel.said()


def test_progress_is_shown_and_cancel_changes_nothing(panel, root, monkeypatch):
    before = tree(root)
    choose(panel, "convert")
    panel.do("preview")
    held, going = threading.Event(), threading.Event()
    real = tools_work.Work._hear

    def slowly(work, event):
        real(work, event)
        going.set()
        held.wait(10)

    monkeypatch.setattr(tools_work.Work, "_hear", slowly)
    applying = threading.Thread(target=panel.do, args=("apply",))
    applying.start()
    assert going.wait(10)
    while not any("preparing 0 of" in str(values.get(panel.tools.progress._id)) for values in panel.shown_at):
        assert not panel.works.running("mikori").ended.wait(0.01)
    with pytest.raises(RunConflict, match="still at work"):
        panel.works.start("mikori", "Preview", lambda control: iter(()))
    panel.works.cancel("mikori")
    held.set()
    applying.join(20)
    assert not applying.is_alive()
    assert "No file was changed" in panel.said() and tree(root) == before
    assert any("preparing 0 of" in str(values.get(panel.tools.progress._id)) for values in panel.shown_at)
    assert panel.shown("progress") == "" and panel.of("cancel", "visible") is False


def test_what_strangers_must_not_do_is_refused(root, tmp_path):
    def gate():
        raise UserError("not from outside")

    panel = Panel(tmp_path, settings(root, bucket_minimum=64), gate)
    before = tree(root)
    for button in ("preview", "apply", "undo", "redo", "really", "empty", "look", "masks_open", "install"):
        panel.do(button)
        assert "not from outside" in (panel.said() if button != "masks_open" else panel.shown("masks_said"))
    assert tree(root) == before and not (root / ".lora-trainer").exists()


def test_a_bucket_report_has_a_histogram_and_what_training_sees(panel):
    choose(panel, "buckets")
    panel.do("preview")
    html = panel.shown("shown")
    assert "Must be upscaled: 1" in html and "b/tiny.png: 3." in html and "cut off on average" in html
    assert len(pictures_in(html)) == 6 and panel.of("apply", "visible") is False


def test_duplicates_are_shown_side_by_side_and_switched(panel, root):
    pytest.importorskip("imagehash")
    figure = cases.figure(3)
    figure.save(root / "best.png")
    cases.resized(figure, 0.5).save(root / "small.png")
    cases.variants(3)["outfit"].save(root / "variant.png")
    before = tree(root)
    choose(panel, "duplicates")
    panel.do("preview")
    html = panel.shown("shown")
    cards = re.findall(r'data-copy="(0\.\d)" aria-label="[^"]+"( checked)?>', html)
    assert [bool(checked) for _, checked in cards] == [True, False, True] and "alike" in html and "variant" in html
    assert "the largest" in html and "best" in html
    panel.do("apply", adjusted={})
    assert names(root) >= {"best.png", "variant.png"} and "small.png" not in names(root)
    panel.do("undo")
    assert tree(root) == before
    panel.do("preview")
    panel.do("apply", adjusted={"0.0": False, "0.1": True, "0.2": True})
    assert names(root) >= {"small.png", "variant.png"} and "best.png" not in names(root)
    panel.do("undo")
    for nonsense in ({"0.9": False}, {"-1.0": False}, ["x"], {"a": 1}):
        panel.do("preview")
        panel.do("apply", adjusted=nonsense)
        assert "Press Preview again" in panel.said() and tree(root) == before


def test_upscaling_asks_the_host_and_goes_on_where_it_was(panel, root, monkeypatch):
    picture(root / "small.png", (24, 24), seed=9)
    calls, limit = [], [1]

    def upscale(image, size):
        if len(calls) >= limit[0]:
            raise UserError("no more power")
        calls.append(image.size)
        return Image.new("RGB", size, "red")

    monkeypatch.setattr(type(panel.place.host), "offered", (NamedUpscaler("Red", upscale, "https://host/red.pth"),))
    panel.do("look")
    assert panel.of("upscaler", "choices") == ["Lanczos", "Red"]
    choose(panel, "upscale")
    panel.do("preview", upscaler="Blue")
    assert "is not in the WebUI's list" in panel.said()
    panel.do("preview", upscaler="Red")
    assert "when you apply, the WebUI fetches its model from https://host/red.pth" in panel.said()
    assert not calls and len(pictures_in(panel.shown("shown"))) == 2 and "by Red" in panel.shown("shown")
    before = tree(root)
    panel.do("apply")
    assert "no more power" in panel.said() and tree(root) == before and len(calls) == 1
    limit[0] = 2
    panel.do("apply")
    assert len(calls) == 2 and Image.open(root / "small.png").getpixel((5, 5)) == (255, 0, 0)
    assert not list((panel.place.projects / "mikori" / "cache" / "upscaled").glob("*.png"))
    panel.do("undo")
    panel.do("preview", upscaler="Lanczos")
    assert "without adding detail" in panel.said() and len(pictures_in(panel.shown("shown"))) == 4


def test_pages_of_a_preview(panel, root):
    for number in range(14):
        noise((32, 40), number).save(root / f"p{number:02d}.png")
    choose(panel, "pad")
    panel.do("preview")
    assert panel.of("pager", "visible") and "1 of 2" in panel.shown("page")
    first = panel.shown("shown")
    panel.do("next")
    assert "2 of 2" in panel.shown("page") and panel.shown("shown") != first
    panel.do("next")
    assert "2 of 2" in panel.shown("page")
    panel.do("previous")
    assert panel.shown("shown") == first
