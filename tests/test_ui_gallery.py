"""The gallery through the page's events: what a browser is told of pictures, and what happens to the selected ones."""

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

pytest.importorskip("gradio")

from PIL import Image

from dying_files import DIED, DyingFiles, in_child
from lib_lora_trainer.app import dataset_tools, projects
from lib_lora_trainer.app.dataset_tools import Draft, Request
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import UserError
from lib_lora_trainer.dataset.tools.options import FileOptions
from lib_lora_trainer.ui import gallery_history
from lib_lora_trainer.ui.gallery_answers import WINDOW
from lib_lora_trainer.ui.session import opened
from tool_cases import picture
from ui_page import Tab, page, pictures_folder  # noqa: F401


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file in a folder but the journal's, by name."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".lora-trainer" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def ask(tab: Tab, **question: Any) -> dict[str, Any]:
    """Return the server's answer to a question of the page's script."""
    tab.do("gallery_ask", gallery_question=json.dumps({"number": 7, **question}))
    answer: dict[str, Any] = json.loads(tab.shown("gallery_answer"))
    assert answer.pop("number") == 7
    return answer


def paths_of(answer: dict[str, Any]) -> list[str]:
    return [answer["folders"][row[0]] + row[1] for row in answer["rows"]]


def names(tab: Tab, state: str = "used") -> list[str]:
    return [Path(path).name for path in paths_of(ask(tab, kind="index", filter={"state": state}))]


def act(tab: Tab, action: str, paths: list[Path], to: str = "") -> None:
    """Select pictures, press an action's button and confirm."""
    tab.do(f"picture_{action}", selection=json.dumps([str(path) for path in paths]), picture_to=to)
    assert tab.shown("notice") == "", tab.shown("notice")
    tab.do("picture_confirm")


@pytest.fixture
def scanned(page: Tab) -> Tab:
    page.do("scan")
    return page


def test_nothing_is_told_before_a_scan(page: Tab) -> None:
    assert 'data-mark=""' in page.shown("gallery_mark")
    assert "No pictures yet" in page.shown("pictures_none")
    assert "not scanned yet" in ask(page, kind="index")["error"]


def test_the_index_has_a_small_row_for_each_picture(scanned: Tab, pictures_folder: Path) -> None:
    answer = ask(scanned, kind="index", filter={}, selected=[])
    assert answer["mark"]
    assert f'data-mark="{answer["mark"]}"' in scanned.shown("gallery_mark")
    assert paths_of(answer) == [str(pictures_folder / "3_mikori" / f"p{number}.png") for number in range(4)]
    assert answer["rows"][0][2:4] == [64, 64]
    assert answer["buckets"] == ["64×64"]
    assert answer["choices"]["state"] == [["used", "In use", 4], ["out", "Left out", 1]]
    assert answer["choices"]["folder"] == [["pictures/3_mikori", "pictures/3_mikori", 4]]
    assert names(scanned, "out") == ["broken.png"]


def test_the_bits_of_a_row_are_its_flags(scanned: Tab, pictures_folder: Path) -> None:
    (pictures_folder / "3_mikori" / "p1.txt").unlink()
    scanned.do("scan")
    answer = ask(scanned, kind="index", filter={"flags": ["none"]})
    (row,) = answer["rows"]
    assert [label for bit, label in enumerate(answer["flags"]) if row[5] & 1 << bit] == ["Without caption"]
    assert ["none", "Without caption", 1] in answer["choices"]["flags"]


def test_a_window_has_thumbnails_and_captions_and_no_more_than_asked(scanned: Tab, pictures_folder: Path) -> None:
    paths = [str(pictures_folder / "3_mikori" / f"p{number}.png") for number in (2, 3)]
    told = ask(scanned, kind="window", paths=paths)["pictures"]
    assert list(told) == paths
    assert told[paths[0]]["caption"] == "mikori, <img src=x onerror=alert(2)>", "the script shows it as text"
    small = Path(unquote(told[paths[0]]["src"].removeprefix("file=")))
    assert small.is_relative_to((scanned.root / "mikori" / "cache").resolve())
    with Image.open(small) as image:
        assert image.size == (64, 64)
        assert image.getpixel((32, 32)) == pytest.approx((120, 0, 0), abs=4)
    many = ask(scanned, kind="window", paths=paths * WINDOW)["pictures"]
    assert len(many) <= WINDOW


def test_only_pictures_of_the_scan_are_told(scanned: Tab, tmp_path: Path) -> None:
    secret = picture(tmp_path / "secret.png", caption="secret")
    assert ask(scanned, kind="window", paths=[str(secret)])["pictures"] == {}
    assert "not among the pictures" in ask(scanned, kind="whole", path=str(secret))["error"]


def test_a_picture_that_cannot_be_read_says_why(scanned: Tab, pictures_folder: Path) -> None:
    path = str(pictures_folder / "3_mikori" / "broken.png")
    (told,) = ask(scanned, kind="window", paths=[path])["pictures"].values()
    assert "broken.png" in told["broken"]
    assert "src" not in told
    assert "left out" in told["told"]


def test_one_picture_large(scanned: Tab, pictures_folder: Path) -> None:
    large = picture(pictures_folder / "3_mikori" / "large.png", (3000, 1500), "mikori, large")
    scanned.do("scan")
    whole = ask(scanned, kind="whole", path=str(large))["whole"]
    with Image.open(unquote(whole["src"].removeprefix("file="))) as image:
        assert image.size == (2048, 1024)
    assert whole["caption"] == "mikori, large"


@pytest.mark.parametrize("question", ["", "[]", "{", '{"kind": "x"}', '{"kind": "window", "paths": [1]}'])
def test_what_is_no_question_gets_an_answer(scanned: Tab, question: str) -> None:
    scanned.do("gallery_ask", gallery_question=question)
    assert "Reload the page." in json.loads(scanned.shown("gallery_answer"))["error"]


def test_strangers_see_and_change_nothing(tmp_path: Path, pictures_folder: Path) -> None:
    closed = False

    def gate() -> None:
        if closed:
            raise UserError("not from here")

    tab = Tab(tmp_path, gate=gate)
    tab.do("create", new_name="p")
    tab.do("source_path", "blur", source_path=str(pictures_folder))
    tab.do("scan")
    closed, before = True, tree(pictures_folder)
    chosen = json.dumps([str(pictures_folder / "3_mikori" / "p0.png")])
    assert ask(tab, kind="index") == {"error": "not from here"}
    for name in (
        "picture_exclude",
        "picture_confirm",
        "picture_undo",
        "picture_redo",
        "balance",
        "balance_apply",
        "monochrome",
    ):
        tab.do(name, selection=chosen)
        assert "not from here" in tab.shown("notice"), name
    assert tree(pictures_folder) == before


def test_an_action_says_what_it_will_do_then_does_it_and_is_undone(scanned: Tab, pictures_folder: Path) -> None:
    before, path = tree(pictures_folder), pictures_folder / "3_mikori" / "p1.png"
    scanned.do("picture_exclude", selection=json.dumps([str(path)]))
    said = scanned.shown("picture_proposal")
    assert "1 picture with 1 caption or mask file will go into the hidden folder .excluded" in said
    assert tree(pictures_folder) == before, "nothing before the confirmation"
    scanned.do("picture_confirm")
    after = tree(pictures_folder)
    assert after.keys() - before.keys() == {".excluded/3_mikori/p1.png", ".excluded/3_mikori/p1.txt"}
    assert names(scanned) == ["p0.png", "p2.png", "p3.png"], "the gallery is fresh"
    assert names(scanned, "excluded") == ["p1.png"]
    assert "Excluded: 1 picture" in scanned.shown("picture_last")
    assert scanned.of("picture_undo", "interactive") is True
    scanned.do("picture_undo")
    assert tree(pictures_folder) == before
    assert "Taken back" in scanned.shown("notice")
    assert scanned.of("picture_redo", "interactive") is True
    scanned.do("picture_redo")
    assert tree(pictures_folder) == after
    assert names(scanned, "excluded") == ["p1.png"]


def test_refusing_takes_the_proposal_away(scanned: Tab, pictures_folder: Path) -> None:
    scanned.do("picture_remove", selection=json.dumps([str(pictures_folder / "3_mikori" / "p1.png")]))
    scanned.do("picture_refuse")
    assert scanned.shown("picture_proposal") == ""
    before = tree(pictures_folder)
    scanned.do("picture_confirm")
    assert "Nothing is waiting" in scanned.shown("notice")
    assert tree(pictures_folder) == before


def test_every_action_and_its_way_back(scanned: Tab, pictures_folder: Path) -> None:
    inside = pictures_folder / "3_mikori"
    act(scanned, "move", [inside / "p0.png"], "2_other")
    act(scanned, "copy", [inside / "p1.png"], "2_other")
    act(scanned, "remove", [inside / "p2.png"])
    act(scanned, "exclude", [inside / "p3.png"])
    assert sorted(names(scanned)) == ["p0.png", "p1.png", "p1.png"]
    assert {"2_other/p0.png", "2_other/p0.txt", "2_other/p1.png", "2_other/p1.txt"} <= tree(pictures_folder).keys()
    assert names(scanned, "removed") == ["p2.png"]
    assert "src" in ask(scanned, kind="window", paths=[str(inside / "p2.png")])["pictures"][str(inside / "p2.png")]
    act(scanned, "restore", [inside / "p2.png"])
    act(scanned, "include", [pictures_folder / ".excluded" / "3_mikori" / "p3.png"])
    assert names(scanned, "removed") == names(scanned, "excluded") == []
    assert sorted(names(scanned)) == ["p0.png", "p1.png", "p1.png", "p2.png", "p3.png"]


def test_the_selected_that_are_still_there_are_kept(scanned: Tab, pictures_folder: Path) -> None:
    paths = [str(pictures_folder / "3_mikori" / f"p{number}.png") for number in range(3)]
    act(scanned, "exclude", [Path(paths[1])])
    answer = ask(scanned, kind="index", filter={"text": "nothing like it"}, selected=[*paths, "/elsewhere.png"])
    assert answer["rows"] == []
    assert answer["kept"] == [paths[0], paths[2]], "a filter does not unselect"


def test_what_cannot_be_done_is_said(scanned: Tab, pictures_folder: Path, tmp_path: Path) -> None:
    own = json.dumps([str(pictures_folder / "3_mikori" / "p1.png")])
    for name, given, words in (
        ("picture_exclude", {"selection": "[]"}, "No picture is selected"),
        ("picture_exclude", {"selection": "{"}, "no JSON"),
        ("picture_exclude", {"selection": '["/secret.png"]'}, "not among the pictures"),
        ("picture_move", {"selection": own, "picture_to": " "}, "Name the folder"),
        ("picture_move", {"selection": own, "picture_to": str(tmp_path)}, "could not undo"),
        ("picture_undo", {}, "nothing to undo"),
        ("picture_redo", {}, "nothing to redo"),
    ):
        scanned.do(name, **given)
        assert words in scanned.shown("notice"), name
    assert scanned.shown("picture_proposal") in (None, "")


def test_each_picture_belongs_to_its_own_source(scanned: Tab, pictures_folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    picture(other / "p0.png", seed=5)
    scanned.do("add_folder")
    scanned.do("source_path", "blur", source_path=str(other))
    scanned.do("scan")
    before = tree(tmp_path)
    scanned.do(
        "picture_exclude", selection=json.dumps([str(other / "p0.png"), str(pictures_folder / "3_mikori" / "p0.png")])
    )
    assert scanned.shown("picture_proposal").count("<li>") == 2, "the folders are named"
    scanned.do("picture_confirm")
    assert (other / ".excluded" / "p0.png").is_file()
    assert (pictures_folder / ".excluded" / "3_mikori" / "p0.png").is_file()
    scanned.do("picture_undo")
    scanned.do("picture_undo")
    ours = {name: data for name, data in tree(tmp_path).items() if not name.startswith("projects")}
    assert ours == {name: data for name, data in before.items() if not name.startswith("projects")}


def test_changed_folders_are_scanned_before_anything_is_done(scanned: Tab, pictures_folder: Path) -> None:
    scanned.do("source_recursive", "input", source_recursive=False)
    scanned.do("picture_exclude", selection=json.dumps([str(pictures_folder / "3_mikori" / "p1.png")]))
    assert "changed since the scan" in scanned.shown("notice")


def test_another_browser_follows_and_its_own_things_stay(scanned: Tab, pictures_folder: Path) -> None:
    other = Tab.__new__(Tab)
    other.__dict__ |= {**scanned.__dict__, "values": {}}
    other.do("attach", remembered="mikori")
    seen = other.component("gallery_mark")
    first = other.shown("gallery_mark")
    act(scanned, "exclude", [pictures_folder / "3_mikori" / "p1.png"])
    other.values[other.component("selection")._id] = '["mine"]'
    for index in [
        i for i, each in enumerate(other.blocks.dependencies) if other.component("refresh")._id in each["targets"]
    ]:
        other._run(index)
    assert other.value(seen._id) != first
    assert other.value(seen._id) == scanned.shown("gallery_mark")
    assert other.shown("selection") == '["mine"]'
    assert names(other, "excluded") == ["p1.png"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the process that dies is a fork of this one")
def test_what_was_interrupted_is_settled_when_the_project_opens(scanned: Tab, pictures_folder: Path) -> None:
    config = opened(scanned.root, "mikori").config
    options = FileOptions("exclude", ("3_mikori/p0.png", "3_mikori/p1.png"))
    *_, draft = dataset_tools.draft("files", Request(config.data, options), Control())
    assert isinstance(draft, Draft)

    def half() -> None:
        list(dataset_tools.apply(draft, Control(), DyingFiles(11)))

    assert in_child(half) == DIED
    assert dataset_tools.next_to("undo", pictures_folder) is None
    scanned.do("attach", remembered="mikori")
    assert "was interrupted and is" in scanned.shown("notice")
    assert sorted([*names(scanned), *names(scanned, "excluded")]) == [f"p{number}.png" for number in range(4)]
    change = gallery_history.next_change("undo", projects.find(scanned.root, "mikori"), config)
    assert change is None or change.roots == (pictures_folder,)


def test_a_picture_that_is_left_out_can_be_put_aside(scanned: Tab, pictures_folder: Path) -> None:
    act(scanned, "exclude", [pictures_folder / "3_mikori" / "broken.png"])
    assert names(scanned, "out") == []
    assert names(scanned, "excluded") == ["broken.png"]


@pytest.mark.skipif(os.name == "nt", reason="names there are valid Unicode")
def test_a_name_that_is_no_unicode_is_told_as_it_can_be_written(scanned: Tab, pictures_folder: Path) -> None:
    path = os.fsdecode(os.fsencode(pictures_folder / "3_mikori") + b"/p\xff.png")
    (pictures_folder / "3_mikori" / "p0.png").rename(path)
    scanned.do("scan")
    assert names(scanned, "out") == ["broken.png", "p\\udcff.png"], "scans leave such pictures out and say so"
    told = ask(scanned, kind="window", paths=paths_of(ask(scanned, kind="index", filter={"state": "out"})))
    assert all("broken" in each for each in told["pictures"].values())
    for part in ("gallery_answer", "concepts", "scan_problems"):
        scanned.shown(part).encode("utf-8")
