"""Picking from the page: on a run of the tiny host, tried at two weights, found again, continued, and its mistakes."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import pytest

pytest.importorskip("gradio")
pytest.importorskip("onnxruntime")

from PIL import Image

from evaluate_page import TAGGER, TRIGGER, Step, settings
from lib_lora_trainer.app import projects
from lib_lora_trainer.base.events import Note, Phase, SampleMade
from lib_lora_trainer.demo import world
from lib_lora_trainer.ui import evaluate_asking, evaluate_pick_options, evaluate_txt2img

TRAITS = world.CHARACTER_TRAITS[:2]
SHORT = {
    "set_evaluate_pick_weights": "0.5, 1",
    "set_evaluate_pick_images": 2,
    "set_evaluate_pick_side": 64,
    "pick_own": str(TAGGER),
    "pick_traits": ", ".join(TRAITS),
}


@pytest.fixture
def step(tmp_path, quick):
    made = Step(tmp_path)
    made.look()
    return made


def pick(step, **changes):
    step.do("pick_begin", **{**SHORT, **changes})


def folder(step) -> Path:
    return step.project.runs / step.run / "pick"


def addresses(html: str, name: str) -> list[str]:
    return [unquote(each) for each in re.findall(rf'{name}="file=([^"]+)"', html)]


def test_every_file_is_tried_and_the_result_is_found_again(step):
    assert step.shown("pick_files") == [path.stem for path in step.files]
    assert "Which epoch" in step.text("pick_verdict")
    pick(step, pick_files=[path.stem for path in step.files[1:]])
    assert step.text("evaluate_said").count("<li") == 1, step.text("evaluate_said")  # where the page was written
    report = json.loads((folder(step) / "report.json").read_text(encoding="utf-8"))
    assert {cell["file"] for cell in report["cells"]} == {path.stem for path in step.files[1:]}
    best = report["recommended"]
    verdict = step.text("pick_verdict")
    assert f"Use {best['file']} at weight {best['weight']:g}" in verdict
    assert all(text in verdict for text in report["why"])
    assert all(each["text"] in verdict and each["fix"] in verdict for each in report["findings"])
    assert (step.of("pick_test", "visible"), step.of("pick_use", "visible")) == (True, True)

    # A curve for each measure that there is, by training and by weight; a row for each file, a column for each weight.
    details = step.text("pick_details")
    measures = [name for name in ("recall", "control", "bleed", "mixed", "defects", "copies") if name in report["base"]]
    assert details.count("<svg") == 2 * (len(measures) + 2)
    assert re.findall(r'data-pick-cell="(\d)"', details) == ["1", "2", "3", "4", "0"]
    assert details.count("data-best=1") == 1
    shown = addresses(step.shown("pick_images"), "data-whole")
    cell = next(c for c in report["cells"] if (c["file"], c["weight"]) == (best["file"], best["weight"]))
    assert shown == [str(folder(step) / each["file"]) for each in cell["images"]]
    assert all("cache/thumbnails" in each for each in addresses(step.shown("pick_images"), "src"))

    # Another page, later: the same, from what is stored.
    before = {name: step.shown(name) for name in ("pick_verdict", "pick_details", "pick_images")}
    for name in (*before, "pick_files", "set_evaluate_pick_weights", "set_evaluate_pick_side"):
        step.values[step.component(name)._id] = ""
    step.look(step.run)
    assert {name: step.shown(name) for name in before} == before
    assert step.shown("pick_files") == [path.stem for path in step.files[1:]], "what was tried is chosen again"
    assert step.shown("set_evaluate_pick_weights") == "0.5, 1" and step.shown("set_evaluate_pick_side") == 64
    assert step.shown("set_evaluate_pick_images") == 2
    other = step.train(name="other")
    step.look(other)
    assert "Which epoch" in step.text("pick_verdict") and step.shown("pick_details") == ""
    assert step.of("pick_test", "visible") is False


def test_a_cell_is_looked_at_and_its_pictures_go_to_txt2img_with_the_file(step):
    pick(step, pick_files=[step.files[0].stem])
    step.do("pick_cell", "change", pick_cell="1")
    html = step.text("pick_images")
    stem = step.files[0].stem
    assert f"{stem} at weight 0.5: the trigger alone" in html
    assert f'data-to-txt2img="<lora:{stem}:0.5> infotext"' in html
    step.do("pick_cell", "change", pick_cell="0")
    html = step.text("pick_images")
    assert "The base model" in html and "<lora:" not in html and 'data-to-txt2img="infotext"' in html
    step.do("pick_cell", "change", pick_cell="77")
    assert "none with the number 77" in step.text("evaluate_said")


def test_the_recommended_file_goes_to_txt2img_and_to_baking(step):
    step.do("pick_test")
    assert "recommends no file" in step.text("evaluate_said") and not step.shown("evaluate_to_txt2img")
    pick(step)
    best = json.loads((folder(step) / "report.json").read_text(encoding="utf-8"))["recommended"]
    announced = len(step.host.announced)
    step.do("pick_test")
    wanted = {"prompt": f"<lora:{best['file']}:{best['weight']:g}> {TRIGGER}"}
    assert json.loads(step.shown("evaluate_to_txt2img")) == wanted
    path = next(path for path in step.files if path.stem == best["file"])
    assert step.host.announced[announced:] == [str(path)]
    step.do("pick_use")
    assert step.shown("bake_file") == path.stem and step.shown("bake_rebase") == best["weight"]
    path.unlink()
    step.do("pick_test")
    assert "does not exist any more" in step.text("evaluate_said") and step.shown("evaluate_to_txt2img") == ""


def test_how_long_to_train_next_time_is_taken_over_and_can_be_taken_back(tmp_path, quick):
    usual = settings(tmp_path)
    step = Step(tmp_path, config=replace(usual, training=replace(usual.training, max_steps=3)))
    step.look()
    step.do("pick_train")
    assert "no other number of epochs" in step.text("evaluate_said")
    pick(step)
    file = folder(step) / "report.json"
    report = json.loads(file.read_text(encoding="utf-8"))
    for epochs in (None, 7, 2):
        file.write_text(json.dumps({**report, "epochs": epochs}), encoding="utf-8")
        step.look(step.run)
        assert step.of("pick_train", "visible") is bool(epochs)
    step.do("pick_train")
    now = projects.load(step.project).config.training
    assert (now.epochs, now.max_steps) == (2, 3) and step.shown("set_training_epochs") == 2
    assert "Length of the next training" in step.text("notice")
    assert step.values[step.page.session._id].undo.training.epochs == 3
    file.write_text(json.dumps({**report, "epochs": 7}), encoding="utf-8")
    step.do("pick_train")
    now = projects.load(step.project).config.training
    assert (now.epochs, now.max_steps) == (7, 0), "a limit that would end it earlier is lifted"


def test_what_would_be_tried_is_said_first(step):
    step.do("pick_files", "change", **SHORT)
    # 3 files × 2 weights and the base model; one trigger, a scene and the same without it, 2 images each.
    assert "About 42 images" in step.text("pick_count")
    step.do("pick_preview", **SHORT)
    assert "7 cells of 6 images, 42 still to be made" in step.text("pick_drafted")
    assert f"mikori has to bring {', '.join(TRAITS)}" in step.text("pick_drafted")
    assert not (folder(step) / "images").exists()
    pick(step, pick_files=[step.files[0].stem])
    step.do("pick_preview", pick_files=[path.stem for path in step.files])
    assert "42 images" not in step.text("pick_drafted") and "24 still to be made" in step.text("pick_drafted")


def test_a_stopped_trial_goes_on_where_it_was(step, monkeypatch):
    made = []
    generate = step.host.lease

    def stopping(needs):
        lease = generate(needs)
        images = lease.generate

        def one(requests, go_on):
            for image in images(requests, go_on):
                made.append(image)
                if len(made) == 5:
                    step.works.cancel(step.session.project)
                yield image

        lease.generate = one
        return lease

    monkeypatch.setattr(step.host, "lease", stopping)
    pick(step)
    assert "Start again to go on" in step.text("evaluate_said")
    assert len(made) == 5 and not (folder(step) / "report.json").exists()
    assert step.of("pick_begin", "interactive") is True
    pick(step)
    assert len(made) == 42 and (folder(step) / "report.json").exists()


def test_mistakes_are_told_beside_their_fields_and_nothing_is_made(step):
    pick(step, set_evaluate_pick_weights="0.5, much")
    assert "no list of numbers" in step.text("evaluate_said")
    assert "#lora_trainer_set_evaluate_pick_weights{" in step.shown("evaluate_beside")
    pick(step, set_evaluate_pick_images=1)
    assert "#lora_trainer_set_evaluate_pick_images{" in step.shown("evaluate_beside")
    pick(step, set_evaluate_pick_weights="")
    assert "Give at least one" in step.text("evaluate_said")
    pick(step, pick_files=[])
    assert "files: none is chosen" in step.text("evaluate_said")
    pick(step, pick_files=[step.files[0].stem], pick_own="", pick_tagger="wd-v1-4-vit-tagger")
    assert "not on this machine" in step.text("evaluate_said")
    assert not folder(step).exists()


def test_a_damaged_report_is_said_and_the_trial_repairs_it(step):
    pick(step, pick_files=[step.files[0].stem])
    (folder(step) / "report.json").write_text("{", encoding="utf-8")
    step.look()
    assert "cannot be read" in step.text("pick_verdict")
    pick(step)
    assert "cannot be read" not in step.text("pick_verdict")


def test_the_time_that_is_left_stands_beside_the_progress(monkeypatch):
    clock = iter(range(100, 200, 3))  # three seconds between two questions
    monkeypatch.setattr(evaluate_asking, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    name = "trying epochs and weights"
    made = [(SampleMade("a.png", "", 1, 1, 1), Phase(name, done, 10)) for done in (5, 6, 7)]
    events = [Phase(name, 4, 10), *(event for pair in made for event in pair)]
    ending = [Note("note", "About 9 s for the 3 images that are left."), Note("note", "wrote it")]
    told = list(evaluate_asking.timed([*events, *ending]))
    # The first image counts only as the beginning: 3 s for the second one, 6 s for two of them, and 4 and 3 are left.
    assert [each.name for each in told[:4]] == [name, name, f"about 12 s left · {name}", f"about 9 s left · {name}"]
    assert told[4:] == [Note("note", "wrote it")]


def test_weights_are_read_as_people_write_them():
    assert evaluate_pick_options.numbers("1; 0.5,, ") == (1.0, 0.5)


def test_files_are_spread_over_the_training():
    names = [f"e{number}" for number in range(1, 21)]
    assert evaluate_pick_options.spread(names) == ["e3", "e7", "e10", "e13", "e17", "e20"]
    assert evaluate_pick_options.spread(names[:6]) == names[:6]


@pytest.mark.parametrize(
    ("infotext", "expected"),
    [
        ("1girl, smile\nSteps: 4", "<lora:a:0.8> 1girl, smile\nSteps: 4"),
        ("\nNegative prompt: bad\nSteps: 4", "<lora:a:0.8>\nNegative prompt: bad\nSteps: 4"),
        ("Steps: 4, Sampler: Euler", "<lora:a:0.8>\nSteps: 4, Sampler: Euler"),
    ],
)
def test_the_adapter_comes_before_the_prompt(infotext, expected):
    assert evaluate_txt2img.with_adapter(infotext, "a", 0.8) == expected


def test_a_picture_without_parameters_has_no_button(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    (tmp_path / "broken.png").write_bytes(b"")
    texts = [
        evaluate_txt2img.infotext_of(tmp_path / name, "a", 1.0) for name in ("plain.png", "broken.png", "gone.png")
    ]
    assert texts == ["", "", ""] and evaluate_txt2img.button_html("") == ""
    assert "&quot;&gt;" in evaluate_txt2img.button_html('">')
