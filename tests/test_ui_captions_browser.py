"""The Captions step in a real browser: the gallery beside its captions, editing by keyboard, chips, completion, filters."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")
pytest.importorskip("playwright")

from PIL import Image

import browsing
from lib_lora_trainer.app import projects
from lib_lora_trainer.config.data import SourceConfig
from lib_lora_trainer.config.paths import put
from lib_lora_trainer.ui.session import opened

COUNT = 200
pytestmark = browsing.needed
BOX = "[data-caption=text]"


def press(page: Any, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def step(page: Any, name: str) -> None:
    page.locator("#lora_trainer_steps > .tab-nav > button", has_text=name).click()


def shows(page: Any, part: str, text: str) -> None:
    page.wait_for_function(
        "([part, text]) => document.querySelector(`[data-caption=${part}]`)?.innerText === text", arg=[part, text]
    )


def total(page: Any, count: int) -> None:
    page.wait_for_function("count => document.querySelector('[data-part=total]')?.innerText === count", arg=str(count))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures" / "2_sks"
    folder.mkdir(parents=True)
    for number in range(COUNT):
        Image.new("RGB", (64, 64), (number % 256, 90, 160)).save(folder / f"p{number:03d}.png")
        hat = ", big hat" if number % 10 == 0 else ""
        (folder / f"p{number:03d}.txt").write_text(f"sks, number {number}{hat}, smile", encoding="utf-8")
    return folder


@pytest.fixture
def page(browser: Any, tmp_path: Path, pictures: Path) -> Iterator[Any]:
    project = projects.create(tmp_path / "projects", "p")
    config = put(projects.load(project).config, "data.sources", (SourceConfig(str(pictures.parent)),))
    projects.save(project, put(config, "data.resolution", 64), opened(tmp_path / "projects", "p").version)
    with browsing.served(tmp_path) as address, browsing.opened(browser, address, seconds=15) as made:
        total(made, COUNT)
        step(made, "Captions")
        made.wait_for_selector("#lora_trainer_caption[data-state=ready]")
        yield made


def test_captions_are_edited_by_keyboard_alone(page: Any, pictures: Path) -> None:
    assert page.locator("#lora_trainer_captions_gallery .lora-trainer-card").count() < 60
    page.locator(".lora-trainer-view").focus()
    press(page, "ArrowRight")
    shows(page, "name", "p001.png")
    press(page, "Enter")
    page.wait_for_function("document.activeElement.dataset.caption === 'text'")
    page.keyboard.type(", big")
    page.wait_for_selector("#lora_trainer_caption_offers li")
    assert "big hat" in page.inner_text("#lora_trainer_caption_offers")
    press(page, "Tab")
    assert page.input_value(BOX) == "sks, number 1, smile, big hat"
    press(page, "Control+Enter")
    shows(page, "name", "p002.png")
    assert (pictures / "p001.txt").read_text(encoding="utf-8") == "sks, number 1, smile, big hat"
    page.keyboard.type(", never")
    press(page, "Escape")
    assert page.input_value(BOX) == "sks, number 2, smile" and "never" not in (pictures / "p002.txt").read_text()
    assert page.evaluate("document.activeElement.className").startswith("lora-trainer-view")
    page.wait_for_function("document.querySelector('#lora_trainer_picture_last').innerText.includes('p001.png')")
    press(page, "Control+z")
    page.wait_for_function("document.querySelector('#lora_trainer_picture_last').innerText.includes('Redo')")
    assert (pictures / "p001.txt").read_text(encoding="utf-8") == "sks, number 1, smile"


def test_chips_remove_and_move_tags_and_a_conflict_is_settled(page: Any, pictures: Path) -> None:
    shows(page, "name", "p000.png")
    page.click(".lora-trainer-tags [data-caption-away='1']")
    assert page.input_value(BOX) == "sks, big hat, smile"
    page.drag_and_drop(".lora-trainer-tags [data-place='2']", ".lora-trainer-tags [data-place='0']")
    assert page.input_value(BOX) == "smile, sks, big hat"
    (pictures / "p000.txt").write_text("somebody else's", encoding="utf-8")
    page.click("[data-caption-do=save]")
    shows(page, "theirs", "somebody else's")
    assert (pictures / "p000.txt").read_text(encoding="utf-8") == "somebody else's"
    page.click("[data-caption-do=mine]")
    shows(page, "state", "Saved.")
    assert (pictures / "p000.txt").read_text(encoding="utf-8") == "smile, sks, big hat"


def test_filters_are_written_clicked_and_cleared(page: Any) -> None:
    page.fill("[data-caption=query]", "big_hat -number_10")
    total(page, COUNT // 10 - 1)
    page.fill("[data-caption=query]", "big_hat (")
    page.wait_for_function("document.querySelector('[data-caption=wrong]').innerText.includes('Column')")
    page.click("[data-caption-do=clear]")
    total(page, COUNT)
    page.click("#lora_trainer_caption_table summary")
    page.click("[data-caption-tag='big hat']")
    total(page, COUNT // 10)
    assert page.input_value("[data-caption=query]") == "big_hat"
    page.click("[data-caption-not='big hat']")
    total(page, COUNT - COUNT // 10)
    page.click("[data-do=clear]")
    total(page, COUNT)
    page.wait_for_function("document.querySelector('[data-caption=query]').value === ''")


def test_the_gallery_goes_back_to_its_step(page: Any) -> None:
    step(page, "Dataset")
    page.wait_for_function("!document.querySelector('#lora_trainer_captions_gallery').children.length")
    assert page.is_visible("#lora_trainer_step_dataset #lora_trainer_gallery_part .lora-trainer-card")
    step(page, "Captions")
    page.wait_for_selector("#lora_trainer_captions_gallery .lora-trainer-card")


def test_many_are_edited_after_a_look(page: Any, pictures: Path) -> None:
    page.click("#lora_trainer_fold_captions_edits .lora-trainer-fold-head")
    page.fill("#lora_trainer_set_captions_edit_add_tags :is(input, textarea)", "new")
    page.click("#lora_trainer_captions_edits_preview")
    page.wait_for_selector(".lora-trainer-diffs ins")
    page.click("#lora_trainer_captions_apply")
    page.wait_for_function("document.querySelector('#lora_trainer_picture_last').innerText.includes('Add tags')")
    assert (pictures / "p123.txt").read_text(encoding="utf-8") == "new, sks, number 123, smile"
    page.wait_for_function("document.querySelector('[data-caption=text]').value.startsWith('new, ')")
