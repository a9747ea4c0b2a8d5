"""Sheet and page: where images and labels are, empty cells, long labels, other scripts, and what a browser is given."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from lib_lora_trainer.evaluate import grid_page, grid_sheet
from lib_lora_trainer.evaluate.grid_cells import Grid, Side
from lib_lora_trainer.evaluate.grid_page import Picture
from lib_lora_trainer.evaluate.grid_sheet import Labels

COLOURS = {(0, 0): (200, 10, 10), (1, 0): (10, 200, 10), (0, 1): (10, 10, 200)}


def images(size=(60, 40)):
    return {place: Image.new("RGB", size, colour) for place, colour in COLOURS.items()}


def boxes(sheet: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Return left, top, width and height of a colour's area."""
    there = (np.asarray(sheet) == colour).all(2)
    rows, columns = np.flatnonzero(there.any(1)), np.flatnonzero(there.any(0))
    assert there[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    return columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1


def test_images_stand_unscaled_in_their_cells_and_missing_ones_are_grey():
    sheet = grid_sheet.draw(images(), Labels(("Weight 0.4", "Weight 1"), ("b", "no adapter"), "Seed 7"))
    red, green, blue = (boxes(sheet, colour) for colour in COLOURS.values())
    assert {box[2:] for box in (red, green, blue)} == {(60, 40)}
    assert red[1] == green[1] and red[0] == blue[0]
    assert green[0] == red[0] + 64 and blue[1] == red[1] + 44
    assert boxes(sheet, (224, 228, 234)) == (green[0], blue[1], 60, 40)
    pixels = np.asarray(sheet)
    assert (pixels[: red[1], red[0] :] < 100).any()  # letters above the columns
    assert (pixels[red[1] : red[1] + 40, : red[0]] < 100).any()  # and beside the rows
    again = grid_sheet.draw(images(), Labels(("Weight 0.4", "Weight 1"), ("b", "no adapter"), "Seed 7"))
    assert np.array_equal(np.asarray(again), pixels)


def test_without_labels_there_are_only_images():
    sheet = grid_sheet.draw({(0, 0): Image.new("RGB", (60, 40), "red")}, Labels(("",), ("",)))
    assert sheet.size == (64, 44) and boxes(sheet, (255, 0, 0)) == (0, 0, 60, 40)


def test_images_of_several_sizes_have_room():
    several = {(0, 0): Image.new("RGB", (60, 40), "red"), (1, 0): Image.new("RGB", (30, 90), "blue")}
    sheet = grid_sheet.draw(several, Labels(("", ""), ("",)))
    assert sheet.size == (60 + 30 + 8, 90 + 4)


def test_long_labels_take_several_lines_and_hide_nothing():
    long = Labels(("a very long label with many words in it " * 3, "x" * 80), ("row", "row"))
    sheet = grid_sheet.draw(images(), long)
    red, green, _ = (boxes(sheet, colour) for colour in COLOURS.values())
    assert red[1] > 60 and green[2:] == (60, 40)


def test_a_sheet_has_a_largest_side():
    assert max(grid_sheet.draw(images((300, 40)), Labels(("", ""), ("", "")), largest=100).size) == 100


def test_letters_of_other_scripts_are_drawn_or_told(monkeypatch):
    labels = Labels(("赤い髪", "Ünï"), ("", ""))
    assert grid_sheet.draw(images(), labels).size[0] > 0
    asked = []

    def none(name, size):
        asked.append(name)
        raise OSError

    monkeypatch.setattr(grid_sheet.ImageFont, "truetype", none)
    assert grid_sheet.unreadable(("赤い髪", "red")) == ("赤い髪",)
    assert "meiryo.ttc" in asked and "NotoSansCJK-Regular.ttc" in asked
    with pytest.MonkeyPatch.context() as patch:
        bitmap = grid_sheet.ImageFont.ImageFont()
        patch.setattr(grid_sheet, "_font", lambda text, size: bitmap)
        assert grid_sheet._drawable("é赤", bitmap) == "é?"


def page(infotext="prompt\nSteps: 2", prompt="prompt") -> str:
    encoded = io.BytesIO()
    Image.new("RGB", (8, 4), "red").save(encoded, "PNG")
    source = "data:image/png;base64," + base64.b64encode(encoded.getvalue()).decode()
    sides = (Side("Weight", ("Weight 1", "Weight 2")), Side("", ("",)), Side("", ("",)), Side("Seed", ("",)))
    cells = {(0, 0, 0, 0): 0, (1, 0, 0, 0): 0}
    return grid_page.write("Grid: <b>", Grid(sides, {}, ()), [Picture(source, infotext, prompt, 8, 4)], cells)


def test_the_page_has_everything_in_it():
    text = page()
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert data["cells"] == [[0, 0, 0, 0, 0], [1, 0, 0, 0, 0]] and len(data["pictures"]) == 1
    assert data["sides"][0] == {"title": "Weight", "labels": ["Weight 1", "Weight 2"]}
    assert data["pictures"][0]["infotext"] == "prompt\nSteps: 2"
    assert not re.search(r'(?:src|href)="?https?:|@import|url\(|fetch\(', text)
    assert "<title>Grid: &lt;b&gt;</title>" in text and "@" not in re.sub(r"@media|@font", "", text.split("<script")[0])


def test_a_prompt_cannot_leave_its_place():
    evil = "</script><script>alert(1)</script> @SCRIPT@ \u2028 <!--"
    text = page(infotext=evil, prompt=evil)
    assert text.count("<script") == 2 and "alert(1)</script>" not in text
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert data["pictures"][0]["prompt"] == evil
