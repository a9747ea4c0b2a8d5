"""Many captions at once: the forms from one definition, previews, apply, undo, cancel; tagging, clean-up and pruning."""

import dataclasses
import json
import threading

import pytest

pytest.importorskip("gradio")

from captions_page import Step
from dying_files import tree
from lib_lora_trainer.app import dataset_tools
from lib_lora_trainer.app.probe_jobs import Pictures, Probed
from lib_lora_trainer.base.errors import ConfigError, UserError
from lib_lora_trainer.captions.cleaning.values import CleanOptions
from lib_lora_trainer.captions.edits import EDITS
from lib_lora_trainer.config.data import CaptionConfig
from lib_lora_trainer.evaluate.probe import Pushed, Reading
from lib_lora_trainer.tagging.options import TagOptions
from lib_lora_trainer.ui import (
    captions_cleaning,
    captions_edits,
    captions_form,
    captions_probe,
    captions_show,
    captions_tagging,
)
from lib_lora_trainer.ui.captions_form import SELECTED
from lib_lora_trainer.ui.session import opened
from tool_cases import picture, settings

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "絵 <b>"
    for number in range(12):
        more = "smile" if number % 2 else "hat"
        picture(root / "2_a" / f"p{number:02d}.png", caption=f"1girl, long hair, blue eyes, <i>, {more}", seed=number)
    picture(root / "b" / "last.png", caption="shirt, white_shirt, night", seed=90)
    return root


@pytest.fixture
def step(root, tmp_path):
    made = Step(tmp_path, settings(root, bucket_minimum=64, caption=CaptionConfig(keep_tokens=0)))
    made.do("captions_look")
    return made


def captions(root):
    return {
        path.stem: path.read_text(encoding="utf-8") for path in root.rglob("*.txt") if ".lora-trainer" not in str(path)
    }


def edit(step, name, **options):
    given = {f"set_captions_edit_{name}_{key}": value for key, value in options.items()}
    step.do("captions_edits_preview", captions_edit=EDITS[name].title, **given)


def wish(step, **folders):
    plain = {"kind": "character", "rigidity": "static", "triggers": "sks", "more": "", "kept": ""}
    wishes = {name.replace("two", "2_a"): {**plain, **changes} for name, changes in folders.items()}
    step.values[step.tab.prune.wishes._id] = json.dumps(wishes)


def test_forms_have_every_option_and_untouched_send_what_the_definition_says(step):
    def names(kind):
        return [each.name for each in dataclasses.fields(kind) if "setting" in each.metadata]

    for name, about in EDITS.items():
        fields = captions_edits.fields_of(name)
        assert [field.path.rpartition(".")[2] for field in fields] == names(about.options)
        sent = [step.value(component._id) for component in step.tab.edits.entered]
        assert captions_edits.chosen(name, sent) == about.options()
    sent = [step.value(component._id) for component in step.tab.tagging.options]
    assert captions_tagging.chosen(list(captions_tagging.DEFAULT), "", sent) == TagOptions()
    assert captions_cleaning.chosen([step.value(each._id) for each in step.tab.cleaning.options]) == CleanOptions()


def test_choosing_an_edit_shows_its_options_alone(step):
    step.do("captions_edit", "input", captions_edit="Replace")
    assert [name for name, column in step.tab.edits.columns.items() if column.shown_visible] == ["replace"]


def test_an_edit_is_a_diff_first_then_applied_undone_and_redone(step, root):
    before = tree(root)
    edit(step, "add", tags="sks")
    assert captions(root) == captions(root) and tree(root) == before, "a preview changes nothing"
    html = step.shown("captions_shown")
    assert "<ins>sks" in html and "<i>" not in html and "&lt;i&gt;" in html
    assert step.of("captions_apply", "visible") and "13 captions" in step.shown("captions_apply")
    assert step.of("captions_pager", "visible") and "1 / 2" in step.shown("captions_page")
    step.do("captions_next")
    assert "2 / 2" in step.shown("captions_page") and step.shown("captions_shown").count("<li><img") == 1
    step.do("captions_apply")
    assert all(text.startswith("sks, ") for text in captions(root).values())
    assert step.refreshed == 1 and "Undo takes it back" in step.text("captions_said")
    assert step.shown("captions_shown") == "" and not step.of("captions_apply", "visible")
    assert "Add tags" in step.shown("captions_history")
    after = captions(root)
    list(dataset_tools.undo(root))
    assert tree(root) == {**tree(root), **before} and "sks" not in "".join(captions(root).values())
    list(dataset_tools.redo(root))
    assert captions(root) == after


def test_only_the_selected_pictures_are_meant(step, root):
    path = str(root / "2_a" / "p03.png")
    edit(step, "remove", find="smile")
    assert "6 captions" in step.shown("captions_apply")
    step.values[step.page.dataset.gallery.selection._id] = json.dumps([path])
    step.values[step.tab.on._id] = SELECTED
    edit(step, "remove", find="smile")
    step.do("captions_apply")
    assert "smile" not in captions(root)["p03"] and "smile" in captions(root)["p05"]
    step.values[step.page.dataset.gallery.selection._id] = "[]"
    edit(step, "remove", find="smile")
    assert "no picture is selected" in step.text("captions_said")


def test_mistakes_stand_beside_their_options_and_start_nothing(step):
    edit(step, "replace", find="(", how="regex")
    assert "Correct the regular expression" in step.text("captions_said")
    assert "#lora_trainer_set_captions_edit_replace_find{" in step.shown("captions_beside")
    edit(step, "add", tags=" ")
    assert "#lora_trainer_set_captions_edit_add_tags{" in step.shown("captions_beside")
    edit(step, "add", tags="sks", position="x")
    assert "Position: 'x' is not a number" in step.text("captions_said")
    step.do("captions_apply")
    assert "there is none" in step.text("captions_said")
    with pytest.raises(ConfigError):
        captions_edits.titled("nonsense")


def test_a_file_that_changed_since_the_preview_is_not_written(step, root):
    edit(step, "add", tags="sks")
    (root / "b" / "last.txt").write_text("somebody else's", encoding="utf-8")
    before = captions(root)
    step.do("captions_apply")
    assert "was changed after the preview" in step.text("captions_said")
    assert captions(root) == before and step.of("captions_apply", "interactive")


def test_work_can_be_called_off_and_only_one_goes_on(step, root, monkeypatch):
    entered, go = threading.Event(), threading.Event()

    def slow(*_):
        entered.set()
        go.wait(10)
        yield from ()

    step.works.start("mikori", "Something long", slow)
    entered.wait(10)
    edit(step, "add", tags="sks")
    assert "still at work" in step.text("captions_said")
    step.do("captions_cancel")
    assert step.works.running("mikori").control.wish == "stop"
    go.set()


def test_clean_up_proposes_with_reasons_and_does_what_is_on(step, root):
    step.do("clean_propose")
    html = step.text("clean_proposals")
    assert "Redundancy" in html and "shirt" in html and step.of("clean_preview", "visible")
    numbers = range(html.count("data-clean="))
    step.do("clean_preview", clean_switches=json.dumps({str(number): False for number in numbers}))
    assert "Nothing to change" in step.shown("captions_shown")
    step.do("clean_preview", clean_switches="{}")
    step.do("captions_apply")
    assert captions(root)["last"] == "white_shirt, night"
    step.do("clean_preview", clean_switches='{"99": true}')
    assert "other proposals" in step.text("captions_said")


def test_pruning_proposes_per_folder_and_its_settings_follow(step, root):
    assert "2_a" in step.shown("prune_folders") and "12 pictures" in step.shown("prune_folders")
    step.do("prune_propose")
    assert "none is to be pruned" in step.text("captions_said")
    wish(step, two={"kept": "blue eyes"}, b={"kind": "leave"})
    step.do("prune_propose")
    html = step.shown("prune_proposals")
    assert 'data-prune-plan="2_a"' in html and 'data-prune-plan="b"' not in html
    assert html.index('data-prune-tag="long hair" checked') and 'data-prune-tag="blue eyes">' in html
    assert "12 of 12 pictures" in html and "&lt;i&gt;" in html and "<i>" not in html
    assert "file=" in html or "data:image" in html
    step.do("prune_preview", prune_switches=json.dumps({"2_a": {"hat": True}}))
    assert step.refreshed == 0 and opened(step.place.projects, "mikori").config.data.caption.keep_tokens == 0
    step.do("captions_apply")
    made = captions(root)
    assert made["p00"] == "sks, 1girl, blue eyes, <i>" and made["p01"] == "sks, 1girl, blue eyes, <i>, smile"
    assert made["last"] == "shirt, white_shirt, night"
    assert opened(step.place.projects, "mikori").config.data.caption.keep_tokens == 1
    assert step.refreshed == 1


def test_a_pruning_that_is_left_changes_no_setting(step, root):
    wish(step, two={})
    step.do("prune_propose")
    step.do("prune_preview")
    step.do("captions_leave")
    step.do("captions_apply")
    assert opened(step.place.projects, "mikori").config.data.caption.keep_tokens == 0
    assert "sks" not in "".join(captions(root).values())


def test_the_check_of_triggers_is_a_matrix_with_findings(step, root):
    edit(step, "add", tags="sks, krt")
    step.do("captions_apply")
    wish(step, two={"triggers": "sks"}, b={"triggers": "krt"})
    step.do("prune_check")
    html = step.text("prune_proposals")
    assert "lora-trainer-matrix" in html and "same pictures" in html and "<td>13</td>" in html
    assert not step.of("prune_preview", "visible")
    wish(step, two={"triggers": "dress", "kind": "outfit"}, b={"triggers": "krt", "kind": "outfit"})
    step.do("prune_check")
    html = step.text("prune_proposals")
    assert "b: the outfit could be called <code>White_shirt" in html and "dress" in html.partition("<code>")[0]


def test_a_tagger_that_is_not_there_is_named_with_its_size(step):
    assert step.of("captions_download", "visible") and "470 MB" in step.shown("captions_download")
    assert "huggingface.co/SmilingWolf/wd-swinv2-tagger-v3" in step.shown("captions_needed")
    step.do("captions_taggers", "change", captions_taggers=["wd-vit-tagger-v3", "wd-eva02-large-tagger-v3"])
    assert "1640 MB" in step.shown("captions_download")
    step.do("captions_tagging_preview")
    assert "not on this machine" in step.text("captions_said")
    step.do("captions_own", "blur", captions_taggers=[], captions_own="/nowhere")
    assert "neither a known tagger nor a folder" in step.text("captions_needed")


def test_tagging_is_previewed_and_written(step, root, tmp_path):
    onnx_models = pytest.importorskip("onnx_models")
    pytest.importorskip("onnxruntime")
    folder = onnx_models.tagger(tmp_path / "own tagger")
    before = captions(root)
    step.do(
        "captions_tagging_preview", captions_taggers=[], captions_own=str(folder), set_captions_tag_mode="append",
        **{"set_captions_tag_general-threshold": 0.01},
    )  # fmt: skip
    assert captions(root) == before and "red hair" in step.shown("captions_shown")
    step.do("captions_apply")
    assert all(captions(root)[name].startswith(before[name]) for name in before)
    assert all("red hair" in text for text in captions(root).values())


def test_the_gate_keeps_everything_shut(root, tmp_path):
    closed = []

    def gate():
        if closed:
            raise UserError("closed")

    step = Step(tmp_path, settings(root, bucket_minimum=64, caption=CaptionConfig(keep_tokens=0)), gate)
    edit(step, "add", tags="sks")
    closed.append(1)
    for name in ("captions_apply", "captions_edits_preview", "prune_propose", "clean_propose", "captions_look"):
        step.do(name)
        assert "closed" in step.text("captions_said"), name
    assert "sks" not in "".join(captions(root).values())


def test_a_diff_marks_words_and_escapes_them():
    assert captions_show.marked("a, <b>", "a, c") == "<span>a, </span><del>&lt;b&gt;</del><ins>c</ins>"
    assert captions_show.marked("", "") == "<em>empty</em>"


def test_every_component_stays_out_of_ui_config_and_events_have_no_api_name(step):
    kinds = ("radio", "checkbox", "textbox", "number", "dropdown", "button", "checkboxgroup")
    for component in step.blocks.blocks.values():
        if type(component).__name__.lower() in kinds:
            assert component.do_not_save_to_config is True, component.elem_id
    ids = [each.elem_id for each in step.blocks.blocks.values() if getattr(each, "elem_id", None)]
    assert len(ids) == len(set(ids))
    assert all(each["api_name"] is False for each in step.blocks.dependencies)


def test_probing_needs_a_tagger_and_words(step):
    step.do("captions_look")
    assert "Euler a" in step.of("probe_sampler", "choices")
    step.do("probe_begin", probe_words="sks")
    assert "not on this machine" in step.text("captions_said")


def test_what_a_probe_found_is_shown_with_its_pictures_and_verdict():
    draws = Pushed("blue <hair>", 1.0, 0.125, 0.001)
    reading = Reading("sks", "contaminated", (draws,), (), 0.8, 0.1, 3.0, "draws a <rifle>")
    made = Probed((reading,), (Pictures("", ("/n/0.png",)), Pictures("sks", ("/n/1.png", "/n/2.png"))))
    html = captions_probe.probed_html(made, {"/n/0.png": "file=0", "/n/1.png": "file=1"})
    assert 'data-verdict="contaminated"' in html and "&lt;rifle&gt;" in html and "blue &lt;hair&gt;" in html
    assert 'src="file=1"' in html and "3.0×" in html and "100%" in html and html.count("<figure>") == 2
    assert "Empty prompt" in html and "1 prompts" in html


def test_the_steps_state_follows_the_captions(step, root):
    def state():
        step.scan()
        return captions_form.state_of(step.place.scans.last("mikori"))

    assert captions_form.state_of(None) == "todo" and state() == "done"
    (root / "b" / "last.txt").unlink()
    assert state() == "look"
    for path in (root / "2_a").glob("*.txt"):
        path.unlink()
    assert state() == "todo"


def test_triggers_alone_are_put_first_and_every_tag_stays(step, root):
    before = captions(root)
    wish(step, two={"triggers": "sks"}, b={"kind": "leave"})
    step.do("prune_insert")
    step.do("captions_apply")
    assert captions(root)["p00"] == "sks, " + before["p00"] and captions(root)["last"] == before["last"]


def test_what_was_edited_since_the_proposals_is_not_lost(step, root):
    wish(step, two={}, b={"kind": "leave"})
    step.do("prune_propose")
    (root / "2_a" / "p00.txt").write_text("long hair, my own words", encoding="utf-8")
    step.do("prune_preview")
    (root / "2_a" / "p01.txt").write_text("after the preview", encoding="utf-8")
    step.do("captions_apply")
    assert "p01.txt" in step.text("captions_said") and captions(root)["p00"] == "long hair, my own words"
    step.do("prune_preview")
    step.do("captions_apply")
    assert captions(root)["p00"] == "sks, my own words" and captions(root)["p01"] == "sks, after the preview"
