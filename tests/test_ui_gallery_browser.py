"""The gallery's script in a real browser: drawn as far as it is in sight, used by keyboard, mouse and touch."""

import json
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

COUNT = 300
pytestmark = browsing.needed


def chosen(page: Any) -> list[str]:
    """Return what the page's events are told of the selection."""
    return json.loads(page.evaluate("loraTrainerGallery.selected()"))


def wait_for(page: Any, part: str, text: str) -> None:
    page.wait_for_function(
        "([part, text]) => document.querySelector(`[data-part=${part}]`)?.innerText === text", arg=[part, text]
    )


def press(page: Any, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures") / "2_sks"
    folder.mkdir()
    for number in range(COUNT):
        Image.new("RGB", (64, 64), (number % 256, 90, 160)).save(folder / f"p{number:03d}.png")
        if number % 100:
            (folder / f"p{number:03d}.txt").write_text(f"sks, number {number}", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    project = projects.create(folder / "projects", "p")
    config = put(projects.load(project).config, "data.sources", (SourceConfig(str(pictures.parent)),))
    projects.save(project, put(config, "data.resolution", 64), opened(folder / "projects", "p").version)
    with browsing.served(folder) as made:
        yield made


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    with browsing.opened(browser, address) as made:
        wait_for(made, "total", str(COUNT))
        yield made


def test_only_what_is_in_sight_is_drawn_and_the_rest_when_it_comes(page: Any) -> None:
    page.wait_for_function("document.querySelector('.lora-trainer-card img[src]')?.naturalWidth === 64")
    assert page.locator(".lora-trainer-card").count() < 80
    page.evaluate("const view = document.querySelector('.lora-trainer-view'); view.scrollTop = view.scrollHeight")
    page.wait_for_function(f"document.querySelector('[data-row=\"{COUNT - 1}\"] img')?.naturalWidth === 64")
    assert page.locator(".lora-trainer-card").count() < 80
    assert page.locator('[data-row="0"]').count() == 0
    last = page.locator(f'[data-row="{COUNT - 1}"]')
    assert last.get_attribute("aria-posinset") == last.get_attribute("aria-setsize") == str(COUNT)


def test_selected_by_mouse(page: Any, pictures: Path) -> None:
    def names() -> list[str]:
        return sorted(Path(path).stem for path in chosen(page))

    page.click('[data-row="2"]')
    assert chosen(page) == [str(pictures / "p002.png")]
    page.click('[data-row="5"]', modifiers=["Shift"])
    assert names() == ["p002", "p003", "p004", "p005"]
    page.click('[data-row="3"]', modifiers=["Control"])
    page.click('[data-row="1"] .lora-trainer-tick')
    assert names() == ["p001", "p002", "p004", "p005"]
    page.click('[data-row="0"]')
    assert names() == ["p000"]
    assert page.locator('[aria-selected="true"]').count() == 1


def test_used_by_keyboard_alone_up_to_the_undo(page: Any, pictures: Path) -> None:
    page.locator(".lora-trainer-view").focus()
    press(page, "ArrowRight", "Space", "ArrowRight", "Shift+ArrowRight")
    assert sorted(Path(path).stem for path in chosen(page)) == ["p001", "p002", "p003"]
    press(page, "Delete")
    page.wait_for_function("document.activeElement.id === 'lora_trainer_picture_confirm'")
    assert "3 pictures with 3 caption or mask files" in page.inner_text("#lora_trainer_picture_proposal")
    press(page, "Enter")
    wait_for(page, "total", str(COUNT - 3))
    assert not (pictures / "p001.png").exists()
    assert chosen(page) == [], "what is gone is not selected any more"
    press(page, "Control+z")
    wait_for(page, "total", str(COUNT))
    assert (pictures / "p001.png").exists()
    press(page, "Control+a")
    assert len(chosen(page)) == COUNT
    press(page, "Escape", "End")
    assert chosen(page) == []
    assert page.get_attribute(".lora-trainer-view", "aria-activedescendant") == f"lora_trainer_card_{COUNT - 1}"
    press(page, "Enter")
    page.wait_for_selector("dialog img")
    assert f"sks, number {COUNT - 1}" in page.inner_text("dialog")
    press(page, "Escape")
    page.wait_for_selector("dialog", state="detached")


def test_filters_narrow_and_state_is_the_tabs_own(page: Any, address: str) -> None:
    page.click("[data-chip=flags][data-value=none]")
    wait_for(page, "total", "3")
    page.locator(".lora-trainer-view").focus()
    press(page, "Control+a")
    page.click("[data-do=clear]")
    wait_for(page, "total", str(COUNT))
    assert len(chosen(page)) == 3, "a filter does not unselect"
    page.fill("input[data-filter=text]", "number 12")
    wait_for(page, "total", "13")  # 12, 112, 120 to 129, 212
    page.wait_for_function("sessionStorage.getItem('lora_trainer_gallery:p')?.includes('number 12')")
    other = page.context.new_page()
    other.goto(address)
    wait_for(other, "total", str(COUNT))
    assert chosen(other) == []
    page.reload()
    wait_for(page, "total", "13")
    assert len(chosen(page)) == 3


def test_a_scan_of_another_tab_keeps_selection_and_place(page: Any, address: str, pictures: Path) -> None:
    page.click('[data-row="1"]')
    page.evaluate("document.querySelector('.lora-trainer-view').scrollTop = 900")
    other = page.context.new_page()
    other.goto(address)
    wait_for(other, "total", str(COUNT))
    Image.new("RGB", (64, 64)).save(pictures / "z.png")
    other.click("#lora_trainer_scan")
    wait_for(page, "total", str(COUNT + 1))
    assert chosen(page) == [str(pictures / "p001.png")]
    assert page.evaluate("document.querySelector('.lora-trainer-view').scrollTop") == 900
    (pictures / "z.png").unlink()
    other.click("#lora_trainer_scan")
    wait_for(page, "total", str(COUNT))


def test_a_phone_has_no_sideways_scrolling_and_taps_select(browser: Any, address: str) -> None:
    with browser.new_context(viewport={"width": 375, "height": 800}, has_touch=True, is_mobile=True) as context:
        page = context.new_page()
        page.goto(address)
        wait_for(page, "total", str(COUNT))
        assert page.evaluate("document.documentElement.scrollWidth") == 375
        page.tap('[data-row="0"]')
        page.tap('[data-row="1"]')
        assert len(chosen(page)) == 2
        page.tap('[data-row="1"]')
        assert len(chosen(page)) == 1
