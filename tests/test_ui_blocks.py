"""Blocks from the page: analysed, searched, found again, taken along, with a studio whose blocks' effects are known."""

import json
from dataclasses import replace
from urllib.parse import unquote

import pytest

pytest.importorskip("gradio")
pytest.importorskip("onnxruntime")

from block_cases import NEEDED, TRIGGER, KnownStudio, adapter, additive, request
from evaluate_page import Step, settings
from lib_lora_trainer.app import projects
from lib_lora_trainer.ui import evaluate_blocks_options as options
from lib_lora_trainer.workshop import presets

PRESET = "0,0,0,1,0,0,0,1,0,1,0,0,0,0,0,0,0"


@pytest.fixture
def step(tmp_path, quick):
    asked = request(tmp_path)
    config = replace(settings(tmp_path / "more"), data=replace(asked.config.data, resolution=64, bucket=False))
    made = Step(tmp_path, config=config, studio=KnownStudio(additive))
    adapter(made.files[-1])  # of the others' blocks the studio knows nothing
    made.look()
    return made


@pytest.fixture
def entered(tmp_path):
    return {
        "blocks_own": str(tmp_path / "tagger"),
        "set_evaluate_blocks_prompts": f"{TRIGGER}, smile\n1girl",
        "set_evaluate_blocks_side": 64,
    }


def folder(step):
    return step.project.runs / step.run / "blocks" / step.files[-1].stem


def test_the_newest_file_is_analysed_and_the_result_found_again(step, entered):
    assert step.shown("blocks_file") == step.files[-1].stem and "Which blocks matter?" in step.text("blocks_told")
    step.do("blocks_begin", **entered)
    assert "wrote" in step.text("evaluate_said") and (folder(step) / "blocks.html").is_file()
    told = step.text("blocks_told")
    assert told.count("<rect") == 6 * 7 and told.index("<th>IN04") < told.index("<th>OUT03")
    assert unquote(told).count(f"{folder(step)}/blocks.png") == 1
    assert step.shown("blocks_chosen") == "" and step.of("blocks_offers", "visible") is False

    # Another page, later: the same, from what is stored, also when another file is chosen in between.
    step.do("blocks_file", "input", blocks_file=step.files[0].stem)
    assert "Which blocks matter?" in step.text("blocks_told")
    step.values |= {step.component(name)._id: "" for name in (*entered, "set_evaluate_blocks_seeds")}
    step.look(step.run)
    assert {name: step.shown(name) for name in entered} == entered and step.shown("set_evaluate_blocks_seeds") == 2
    assert step.shown("blocks_file") == step.files[-1].stem and step.text("blocks_told") == told
    (folder(step) / "asked.json").write_text("[1]", encoding="utf-8")  # of another version
    step.look(step.run)
    assert step.text("blocks_told") == told
    other = step.train(name="other")
    step.look(other)
    assert "Which blocks matter?" in step.text("blocks_told")


def test_the_smallest_set_goes_to_training_baking_presets_and_txt2img(step, entered):
    step.do("blocks_search", **entered)
    assert f"{', '.join(sorted(NEEDED.values()))}</b>: 3 of 7 blocks keep 100%" in step.text("blocks_chosen")
    assert step.of("blocks_offers", "visible") is True
    assert step.shown("blocks_preset") == step.shown("blocks_training") == PRESET

    step.do("blocks_train")
    assert projects.load(step.project).config.adapter.blocks == PRESET
    assert step.shown("set_adapter_blocks") == PRESET and "Blocks for the next training" in step.text("notice")
    assert step.values[step.page.session._id].undo.adapter.blocks == ""  # what “Undo” in the Train step takes back

    stem = step.files[-1].stem
    step.do("blocks_bake")
    assert (step.shown("bake_file"), step.shown("bake_blocks")) == (stem, PRESET)
    assert step.shown("bake_name") == f"{stem}-smallest"

    step.do("blocks_keep", blocks_name="FACE")
    kept = presets.read(step.place.projects.parent / presets.FILE)
    assert kept.texts("FACE")[0].count(",") == 25 and "lbw=FACE" in step.text("evaluate_said")
    step.do("blocks_keep", blocks_name="a:b")
    assert "cannot be a preset's name" in step.text("evaluate_said")

    announced = len(step.host.announced)
    step.do("blocks_test")
    wanted = {"prompt": f"<lora:{stem}:1:lbw={PRESET}> {TRIGGER}"}
    assert json.loads(step.shown("evaluate_to_txt2img")) == wanted
    assert step.host.announced[announced:] == [str(step.files[-1])]
    step.files[-1].unlink()
    step.do("blocks_test")
    assert "does not exist any more" in step.text("evaluate_said")


def test_what_would_be_made_is_said_first(step, entered):
    # 16 sets; each of the two prompts twice, and "smile" and "1girl" twice without the trigger: no more than that.
    step.do("blocks_file", "change", **entered)
    assert "Up to 128 images" in step.text("blocks_count")
    step.do("blocks_preview")
    assert "16 sets of 6 images, 96 images, 96 still to be made" in step.text("blocks_drafted")
    assert "prompts: mikori, smile | smile | 1girl" in step.text("blocks_drafted")
    assert not step.place.studio.painted
    assert options.images(replace(request(folder(step)).options, prompts=(), count=4), 7, 2) == 16 * (8 + 3) * 2


def test_a_stopped_search_shows_the_analysis_and_goes_on(step, entered, monkeypatch):
    studio = step.place.studio
    paint = studio.paint

    def stopping(scene, go_on):
        if len(studio.painted) == 98:
            step.works.cancel(step.session.project)
        return paint(scene, go_on)

    monkeypatch.setattr(studio, "paint", stopping)
    step.do("blocks_search", **entered)
    assert "Start again to go on" in step.text("evaluate_said")
    assert step.text("blocks_told").count("<rect") == 42 and step.of("blocks_offers", "visible") is False
    monkeypatch.setattr(studio, "paint", paint)
    step.do("blocks_search")
    assert step.of("blocks_offers", "visible") is True
    assert len({(scene.adapter, scene.prompt, scene.seed) for scene in studio.painted}) == len(studio.painted)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"set_evaluate_blocks_steps": 0}, "too small"),
        ({"set_evaluate_blocks_prompts": "1girl"}, "none has a trigger"),
        ({"blocks_own": "", "blocks_tagger": "wd-vit-tagger-v3"}, "not on this machine"),
        ({"blocks_file": None}, "none is chosen"),
    ],
)
def test_mistakes_are_told_and_nothing_is_made(step, entered, changes, said):
    step.do("blocks_begin", **{**entered, **changes})
    assert said in step.text("evaluate_said") and not step.place.studio.painted
    if "set_evaluate_blocks_steps" in changes:
        assert "#lora_trainer_set_evaluate_blocks_steps" in step.shown("evaluate_beside")


def test_without_a_result_there_is_nothing_to_take_along(step):
    for name in ("blocks_test", "blocks_bake", "blocks_train", "blocks_keep"):
        step.do(name)
        assert "Find the smallest set" in step.text("evaluate_said")
    assert projects.load(step.project).config.adapter.blocks == ""
