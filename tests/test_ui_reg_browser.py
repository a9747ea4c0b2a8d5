"""Reviewing regularization images in a real browser: selecting by mouse and keyboard, removing, undo, tags by a click."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")
pytest.importorskip("playwright")

import browsing
from lib_lora_trainer.app import projects, reg_folder, reg_project
from lib_lora_trainer.config.data import DataConfig, SourceConfig
from lib_lora_trainer.config.run import RunConfig
from tool_cases import picture

pytestmark = browsing.needed


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Iterator[Any]:
    root = tmp_path / "pictures" / "2_sks"
    for number in range(3):
        picture(root / f"p{number}.png", (96, 96), caption=f"sks, hat, number {number}", seed=number)
    project = projects.create(tmp_path / "projects", "p")
    data = DataConfig((SourceConfig(str(root.parent)),), resolution=64, bucket=False)
    projects.save(project, RunConfig(triggers=("sks",), data=data), projects.load(project).version)
    for number in range(8):
        picture(reg_project.folder(project) / "sks" / f"p{number}.png", (64, 64), caption=f"hat {number}", seed=number)
    with browsing.served(tmp_path) as address, browsing.opened(browser, address) as made:
        made.locator("#lora_trainer_steps > .tab-nav > button", has_text="Reg images").click()
        made.wait_for_selector(".lora-trainer-reg-field figure")
        yield made


def chosen(page: Any) -> list[str]:
    names = page.eval_on_selector_all(
        ".lora-trainer-reg-field [aria-selected=true]", "cards => cards.map((card) => card.dataset.regName)"
    )
    assert page.inner_text("[data-reg=count]") == str(len(names))
    return [name.removeprefix("sks/") for name in names]


def press(page: Any, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def test_images_are_selected_removed_and_brought_back_without_the_mouse_or_with_it(page: Any, tmp_path: Path) -> None:
    cards = page.locator(".lora-trainer-reg-field figure")
    cards.nth(1).click()
    cards.nth(3).click(modifiers=["Shift"])
    assert chosen(page) == ["p1", "p2", "p3"]
    cards.nth(2).click(modifiers=["Control"])
    assert chosen(page) == ["p1", "p3"]
    page.locator(".lora-trainer-reg-field").focus()
    press(page, "Escape")
    assert chosen(page) == []
    press(page, "Home", " ", "ArrowRight", "ArrowRight", "Shift+ArrowRight")
    assert chosen(page) == ["p0", "p2", "p3"]
    press(page, "Enter")
    page.wait_for_selector("dialog[open] img")
    assert "hat 3" in page.inner_text("dialog[open]")
    press(page, "ArrowRight")
    assert "hat 4" in page.inner_text("dialog[open]")
    press(page, "Escape")
    page.wait_for_function("!document.querySelector('dialog[open]')")
    press(page, "Delete")
    page.wait_for_function("document.querySelectorAll('.lora-trainer-reg-field figure').length === 5")
    folder = tmp_path / "projects" / "p" / "reg"
    assert [path.name for path in reg_folder.listed(folder)] == [f"p{number}.png" for number in (1, 4, 5, 6, 7)]
    page.wait_for_selector("#lora_trainer_reg_undo:not([disabled])")
    page.locator(".lora-trainer-reg-field").focus()
    press(page, "Control+z")
    page.wait_for_function("document.querySelectorAll('.lora-trainer-reg-field figure').length === 8")
    assert len(reg_folder.listed(folder)) == 8


def test_a_tag_is_left_out_by_a_click_and_taken_in_again(page: Any, tmp_path: Path) -> None:
    page.click("#lora_trainer_reg_list")
    page.wait_for_selector("[data-reg-mark=hat]")
    page.click("[data-reg-mark=hat]")
    page.wait_for_selector("#lora_trainer_reg_stale .lora-trainer-notice")
    assert reg_project.load(projects.find(tmp_path / "projects", "p")).options.remove == ("hat",)
    page.click("[data-reg-mark=hat]")
    page.wait_for_function("!document.querySelector('#lora_trainer_reg_stale .lora-trainer-notice')")
    assert reg_project.load(projects.find(tmp_path / "projects", "p")).options.remove == ()
