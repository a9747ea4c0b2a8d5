"""A grid in the tab, in a browser: its cells are sized, looked at, compared, flipped, and sent to txt2img."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")
pytest.importorskip("playwright")

from PIL import Image

import browsing
from lib_lora_trainer.app.grid_store import Kept
from lib_lora_trainer.evaluate.grid_cells import Side
from lib_lora_trainer.evaluate.grid_page import Picture
from lib_lora_trainer.ui import evaluate_grid_show

ROOT = Path(__file__).parents[1]
pytestmark = browsing.needed
SIDES = (
    Side("Weight", ("Weight 0.5", "Weight 1")),
    Side("Epoch", ("Epoch 1", "Epoch 2")),
    Side("", ("",)),
    Side("Seed", ("Seed 7", "Seed 8")),
)
SIZES = {0: (64, 64), 1: (64, 128)}


def grid_in(folder: Path) -> str:
    """Return the HTML of a grid of eight cells, of which the last one was not made, in a project's folder."""
    places = [place for place in product(range(2), range(2), (0,), range(2)) if place != (1, 1, 0, 1)]
    pictures = []
    for number, place in enumerate(places):
        width, height = SIZES[place[0]]
        Image.new("RGB", (width, height), (30 * number, 90, 90)).save(folder / f"{number}.png")
        pictures.append(Picture(f"{number}.png", f'info "{number}"\n<lora:a:1>', f"prompt {number}", width, height))
    kept = Kept(folder, SIDES, tuple(pictures), {place: number for number, place in enumerate(places)})
    return evaluate_grid_show.shown(kept, folder, txt2img=True)


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Iterator[Any]:
    style = (ROOT / "style.css").read_text(encoding="utf-8")
    script = (ROOT / "javascript" / "lora_trainer_grid.js").read_text(encoding="utf-8")
    html = grid_in(tmp_path).replace("file=", "file://")
    (tmp_path / "page.html").write_text(
        f'<!doctype html><meta charset="utf-8"><style>{style}</style><script>{script}</script>'
        f'<div id="lora_trainer_root" data-txt2img="1">{html}</div>',
        encoding="utf-8",
    )
    with browsing.opened(browser, (tmp_path / "page.html").as_uri(), (900, 700), 10) as made:
        yield made


def names(page: Any) -> str:
    text: str = page.locator(".lora-trainer-viewer-bar b").inner_text()
    return text


def press(page: Any, text: str) -> None:
    page.locator(".lora-trainer-viewer-bar button", has_text=text).click()


def test_cells_are_looked_at_compared_and_flipped(page: Any) -> None:
    assert page.locator(".lora-trainer-grid-table").count() == 2
    cells = page.locator("[data-grid-cell]")
    assert cells.count() == 7 and page.locator(".lora-trainer-grid-empty").inner_text() == "not made"
    cells.first.click()
    assert names(page) == "Weight 0.5, Epoch 1, Seed 7"
    assert page.locator(".lora-trainer-viewer pre").inner_text() == 'info "0"\n<lora:a:1>'
    for key in ("ArrowRight", "ArrowLeft", "ArrowLeft", "ArrowDown"):  # the second to the left finds nothing
        page.keyboard.press(key)
    assert names(page) == "Weight 0.5, Epoch 2, Seed 7"
    before = page.locator(".lora-trainer-viewer-stage img").first.get_attribute("style")
    page.mouse.move(400, 300)
    page.mouse.wheel(0, -200)
    page.wait_for_function(
        "before => document.querySelector('.lora-trainer-viewer-stage img').getAttribute('style') !== before",
        arg=before,
    )
    page.keyboard.press("Escape")
    page.wait_for_selector(".lora-trainer-viewer", state="detached")
    cells.nth(1).click(modifiers=["Shift"])
    assert names(page) == "Weight 0.5, Epoch 2, Seed 7 / Weight 1, Epoch 1, Seed 7"
    one, other = (page.locator(".lora-trainer-viewer-stage img").nth(number) for number in range(2))
    assert other.is_visible() and one.bounding_box() == other.bounding_box(), "as large, whatever the sizes are"
    page.keyboard.press(" ")
    assert names(page) == "Weight 1, Epoch 1, Seed 7 / Weight 0.5, Epoch 2, Seed 7"
    press(page, "Slider")
    assert not other.is_visible()
    press(page, "Compare with")  # without a keyboard
    page.wait_for_selector("[data-picking]")
    cells.nth(0).click()
    assert names(page) == "Weight 1, Epoch 1, Seed 7 / Weight 0.5, Epoch 1, Seed 7" and other.is_visible()
    press(page, "Close")
    page.wait_for_selector(".lora-trainer-viewer", state="detached")
    assert page.locator("[data-picking]").count() == 0
    assert page.evaluate("document.activeElement.dataset.gridCell") == "1,0,0,0"


def test_what_is_looked_at_goes_to_txt2img(page: Any) -> None:
    page.evaluate(
        "() => document.getElementById('lora_trainer_root').addEventListener('click', (event) => {"
        " const sent = event.target.closest('[data-to-txt2img]'); if (sent) window.sent = sent.dataset.toTxt2img; })"
    )
    page.locator("td [data-to-txt2img]").nth(1).click()
    assert page.evaluate("window.sent") == 'info "4"\n<lora:a:1>', "of the second column"
    page.locator("[data-grid-cell]").first.click()
    page.keyboard.press("ArrowDown")
    page.locator(".lora-trainer-viewer [data-to-txt2img]").click()
    assert page.evaluate("window.sent") == 'info "2"\n<lora:a:1>', "of the second row"
    page.wait_for_selector(".lora-trainer-viewer", state="detached")


def test_the_size_of_the_cells_is_remembered(page: Any) -> None:
    page.locator("[data-grid-size]").fill("300")
    assert page.locator("[data-grid-cell] img").first.bounding_box()["width"] == 300
    page.reload()
    page.wait_for_selector("[data-sized]")
    assert page.locator("[data-grid-cell] img").first.bounding_box()["width"] == 300
    assert page.locator("[data-grid-size]").input_value() == "300"
