"""The Evaluate step in a real browser: the way from a run that ended to its result, to txt2img and to baking."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")
pytest.importorskip("playwright")

from PIL import Image
from PIL.PngImagePlugin import PngInfo

import browsing
from lib_lora_trainer.app import projects, runs
from lib_lora_trainer.base.events import Finished, to_json
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.evaluate import findings, pick_report
from lib_lora_trainer.evaluate.pick import Cell, Trial
from lib_lora_trainer.evaluate.pick_options import PickOptions, shots
from lib_lora_trainer.evaluate.pick_subject import Part, Scene, Subject

pytestmark = browsing.needed
INFOTEXT = 'sks, "quoted" <b>\nNegative prompt: bad\nSteps: 4, Seed: 1'
# What the page has beside the tab in the WebUI, as far as the script touches it; `pressed` is what ↙ would read.
TXT2IMG = """() => {
    const beside = document.createElement('div');
    beside.innerHTML = '<div id="txt2img_prompt"><textarea></textarea></div><div id="txt2img_tools"><button id="paste">'
        + '</button></div>';
    document.body.append(beside);
    const box = beside.querySelector('textarea');
    beside.querySelector('#paste').addEventListener('click', () => { window.pressed = box.value; });
}"""


def cell(label: str, step: int, weight: float, recall: float) -> Cell:
    return Cell(
        label, step, step // 10, weight, (recall,) * 4, (0.9,) * 4, (0.1,) * 4, (), (0.0,) * 12, (0.0,) * 12, traits={}
    )


def stored(folder: Path, names: list[str]) -> None:
    """Write the report of a trial and its images, without a model."""
    subject = Subject((Part(("sks",), {"red hair": 1.0}, 9),), tuple(Scene(("1girl",), ("smile",)) for _ in range(4)))
    options = PickOptions(weights=(0.5, 1.0), images=4, side=64)
    asked = shots(subject, options, 512)
    cells = [cell(name, 10 * n, weight, 0.2 * n) for n, name in enumerate(names, 1) for weight in (0.5, 1.0)]
    trial = Trial(cell("", 0, 0.0, 0.0), tuple(cells))
    keys = [tuple(f"c{n}s{s}" for s in range(len(asked))) for n in range(len(cells) + 1)]
    about = PngInfo()
    about.add_text("parameters", INFOTEXT)
    (folder / "images").mkdir(parents=True)
    for number, row in enumerate(keys):
        for key in row:
            Image.new("RGB", (64, 64), (60 * number, 90, 160)).save(folder / "images" / f"{key}.png", pnginfo=about)
    report = pick_report.Report(trial, findings.judge(trial), asked, subject, keys, options)
    pick_report.write(folder / "report.json", report)


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Iterator[Any]:
    project = projects.create(tmp_path / "projects", "p")
    run = runs.create(project, RunConfig(name="sks", triggers=("sks",)), datetime(2024, 1, 2))
    files = [tmp_path / "Lora" / f"sks-{number}.safetensors" for number in (1, 2, 3)]
    files[0].parent.mkdir()
    for file in files:
        file.write_bytes(b"file")
    ended = Finished("done", 30, tuple(map(str, files)), 1.0)
    (project.runs / run / runs.JOURNAL).write_text(to_json(ended) + "\n", encoding="utf-8")
    stored(project.runs / run / "pick", [file.stem for file in files])
    with browsing.served(tmp_path) as address, browsing.opened(browser, address, seconds=20) as made:
        made.wait_for_selector("#lora_trainer_state[data-project=p]", state="attached")
        made.locator("#lora_trainer_steps > .tab-nav > button", has_text="Train").click()
        made.wait_for_selector("#lora_trainer_live [data-evaluate]")
        yield made


def test_from_a_run_that_ended_to_txt2img_and_to_baking(page: Any) -> None:
    page.locator("#lora_trainer_live [data-evaluate]").click()
    page.wait_for_selector("#lora_trainer_pick_verdict .lora-trainer-verdict")
    assert page.locator("#lora_trainer_step_evaluate").is_visible()
    assert "Use sks-3 at weight 1" in page.locator("#lora_trainer_pick_verdict h3").inner_text()

    # A cell's number shows its images; alone the page has no txt2img, and so no button that leads there.
    page.locator("[data-pick-cell='2']").click()
    page.wait_for_selector("#lora_trainer_pick_images h4:has-text('sks-1 at weight 1')")
    assert not page.locator("[data-to-txt2img]").first.is_visible()
    page.evaluate(TXT2IMG)
    page.locator("#lora_trainer_pick_images [data-to-txt2img]").first.click()
    page.wait_for_function("() => window.pressed")
    assert page.evaluate("window.pressed") == f"<lora:sks-1:1> {INFOTEXT}"
    page.evaluate("text => loraTrainer.toTxt2img(text)", json.dumps({"prompt": "only this"}))
    assert page.evaluate("document.querySelector('#txt2img_prompt textarea').value") == "only this"

    page.locator("#lora_trainer_pick_details td img").first.click()
    page.wait_for_selector("dialog.lora-trainer-box[open]")
    page.keyboard.press("Escape")
    page.locator("#lora_trainer_pick_use").click()
    page.wait_for_selector("#lora_trainer_bake_begin")
    name = "() => document.querySelector('#lora_trainer_bake_name :is(textarea, input)').value === 'sks-3-baked'"
    page.wait_for_function(name)
    page.locator("#lora_trainer_bake_preview").click()
    page.wait_for_selector("#lora_trainer_evaluate_said .lora-trainer-error")  # the file is none, and it says so
    assert "sks-3.safetensors" in page.locator("#lora_trainer_evaluate_said .lora-trainer-error").first.inner_text()


def test_nothing_scrolls_sideways_on_a_phone(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.locator("#lora_trainer_live [data-evaluate]").click()
    page.wait_for_selector("#lora_trainer_pick_verdict .lora-trainer-verdict")
    for panel in ("Pick", "Bake"):
        page.locator("#lora_trainer_evaluate_panels > .tab-nav > button", has_text=panel).click()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), panel
