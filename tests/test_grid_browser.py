"""The grid's page in a browser, opened from its folder: look, zoom, compare, flip, copy."""

from __future__ import annotations

import base64
import io
from itertools import product

import pytest

pytest.importorskip("playwright")

from PIL import Image

import browsing
from lib_lora_trainer.evaluate import grid_page
from lib_lora_trainer.evaluate.grid_cells import Grid, Side
from lib_lora_trainer.evaluate.grid_page import Picture

pytestmark = browsing.needed
SIDES = (
    Side("Weight", ("Weight 0.5", "Weight 1")),
    Side("Epoch", ("Epoch 1", "Epoch 2")),
    Side("", ("",)),
    Side("Seed", ("Seed 7", "Seed 8")),
)


def data_uri(colour: tuple[int, int, int]) -> str:
    encoded = io.BytesIO()
    Image.new("RGB", (64, 32), colour).save(encoded, "PNG")
    return "data:image/png;base64," + base64.b64encode(encoded.getvalue()).decode()


@pytest.fixture
def page(browser, tmp_path):
    places = [place for place in product(range(2), range(2), (0,), range(2)) if place != (1, 1, 0, 1)]
    pictures = [
        Picture(data_uri((30 * number, 0, 0)), f"info {number}\nSteps: 2", f"prompt {number}", 64, 32)
        for number in range(len(places))
    ]
    shown = {place: number for number, place in enumerate(places)}
    (tmp_path / "grid.html").write_text(grid_page.write("Grid", Grid(SIDES, {}, ()), pictures, shown), encoding="utf-8")
    with browsing.opened(browser, "about:blank", (900, 700)) as made:
        made.context.grant_permissions(["clipboard-read", "clipboard-write"])
        wrong: list[str] = []
        made.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        made.goto((tmp_path / "grid.html").as_uri())
        yield made
        assert wrong == []


def names(page) -> str:
    return page.locator("#names").inner_text()


def test_a_grid_is_looked_at_compared_and_copied(page):
    cells = page.locator("td button")
    assert cells.count() == 4 and page.locator(".empty").count() == 0
    assert page.locator("thead th").all_inner_texts() == ["", "Weight 0.5", "Weight 1"]
    cells.nth(0).click()
    assert names(page) == "Weight 0.5, Epoch 1, Seed 7" and page.locator("#facts").inner_text() == "info 0\nSteps: 2"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")  # there is nothing further
    page.keyboard.press("ArrowDown")
    assert names(page) == "Weight 0.5, Epoch 2, Seed 7"
    before = page.locator("#one").get_attribute("style")
    page.mouse.move(400, 300)
    page.mouse.wheel(0, -200)
    page.wait_for_function("before => document.getElementById('one').getAttribute('style') !== before", arg=before)
    page.click("#prompt")
    page.wait_for_function("navigator.clipboard.readText().then(text => text === 'prompt 2')")
    page.click("#infotext")
    page.wait_for_function("navigator.clipboard.readText().then(text => text === 'info 2\\nSteps: 2')")
    page.keyboard.press("Escape")
    cells.nth(1).click(modifiers=["Shift"])
    assert names(page) == "Weight 0.5, Epoch 2, Seed 7 / Weight 1, Epoch 1, Seed 7"
    assert page.locator("#other").is_visible() and page.locator("#cut").is_visible()
    page.keyboard.press(" ")
    assert names(page) == "Weight 1, Epoch 1, Seed 7 / Weight 0.5, Epoch 2, Seed 7"
    page.click("#mode")
    assert not page.locator("#other").is_visible()
    page.click("#pick")  # without a keyboard
    cells.nth(0).click()
    assert names(page) == "Weight 1, Epoch 1, Seed 7 / Weight 0.5, Epoch 1, Seed 7"
    page.click("#close")


def test_seeds_are_chosen_and_missing_cells_are_empty(page):
    page.select_option("#choices select", "1")
    assert page.locator("td button").count() == 3 and page.locator(".empty").count() == 1
    page.locator("td button").nth(0).click()
    assert names(page) == "Weight 0.5, Epoch 1, Seed 8"
