"""The table of concepts, and balancing them from the page."""

import json
from pathlib import Path

import pytest

pytest.importorskip("gradio")

from PIL import Image

from lib_lora_trainer.app import projects
from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.ui import concept_table_goal as goals
from lib_lora_trainer.ui import serve
from tool_cases import picture
from ui_page import ROOT, Tab, page, pictures_folder  # noqa: F401


def config_of(tab: Tab) -> RunConfig:
    return projects.load(projects.find(tab.root, "p")).config


def opened_on(tmp_path: Path, *folders: Path, **settings: object) -> Tab:
    """Return the tab with a scanned project on folders."""
    tab = Tab(tmp_path)
    tab.do("create", new_name="p")
    for number, folder in enumerate(folders):
        if number:
            tab.do("add_folder")
        tab.do("source_path", "blur", source_path=str(folder))
    tab.do("set_triggers", "blur", set_triggers="sks", set_data_resolution=64, set_training_epochs=4, **settings)
    tab.do("scan")
    return tab


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """A source with 6, 3 and 1 pictures in folders of its own, the last without a number in its name."""
    root = tmp_path / "set"
    for folder, count in (("3_red", 6), ("5_blue", 3), ("plain", 1)):
        for number in range(count):
            picture(root / folder / f"{number}.png", caption=f"{folder}", seed=number)
    return root


def folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if not path.name.startswith("."))


def test_the_table_shows_what_an_epoch_shows(tmp_path: Path, three: Path) -> None:
    tab = opened_on(tmp_path, three)
    table = tab.shown("concepts")
    for name, images, repeats, exposures, share in (
        ("3_red", 6, 3, 18, 53),
        ("5_blue", 3, 5, 15, 44),
        ("plain", 1, 1, 1, 3),
    ):
        row = next(row for row in table.split("<tr>") if f">set/{name}" in row)
        assert f">{images}<" in row
        assert f">× {repeats}<" in row
        assert f">{exposures}<" in row
        assert f"{share} %" in row
        assert 'data-grade="set/' in row
    assert "Shared trigger" not in table
    assert "Monochrome" not in table


def test_shared_triggers_have_their_totals_and_regularization_is_marked(tmp_path: Path) -> None:
    for folder, count in (("2_front", 2), ("4_back", 3)):
        for number in range(count):
            picture(tmp_path / "set" / folder / f"{number}.png", caption="sks, red", seed=number)
    picture(tmp_path / "reg" / "1_person" / "a.png", caption="person")
    tab = opened_on(tmp_path, tmp_path / "set", tmp_path / "reg")
    tab.do("source_regularization", "input", source_regularization=True)
    tab.do("scan")
    before, after = tab.shown("concepts").split("Shared trigger")
    assert "<th>sks</th><td>2</td><td>5</td><td>16</td>" in after, "2 × 2 + 3 × 4 = 16 exposures"
    marked = next(row for row in before.split("<tr>") if "reg/1_person" in row)
    assert "regularization" in marked
    assert "data-grade" not in marked
    tab.do("balance", goal_exposures=60)
    assert "set/2_front" in tab.shown("balance_proposal")
    assert "reg/1_person" not in tab.shown("balance_proposal")
    assert "part of sks" in tab.shown("balance_proposal")


def test_balancing_shows_before_and_after_and_changes_nothing_yet(tmp_path: Path, three: Path) -> None:
    tab = opened_on(tmp_path, three)
    tab.do("balance", goal_exposures=30, goal_budget=100)
    said = tab.shown("balance_proposal")
    assert "6 × 3 = 18" in said
    assert "6 × 5 = 30" in said
    assert "3 × 10 = 30" in said
    assert "1 × 30 = 30" in said
    assert "The folder 3_red is renamed to 5_red." in said
    assert "The folder plain is renamed to 30_plain." in said
    assert "is shown 120 times in 4 epochs; its budget is 100." in said, "the training's own epochs count"
    assert folders(three) == ["3_red", "5_blue", "plain"]
    tab.do("balance_refuse")
    assert tab.shown("balance_proposal") == ""
    tab.do("balance_apply")
    assert "Nothing is waiting" in tab.shown("notice")
    assert folders(three) == ["3_red", "5_blue", "plain"]


def test_applied_undone_and_done_again(tmp_path: Path, three: Path) -> None:
    tab = opened_on(tmp_path, three)
    tab.do("balance", goal_exposures=30)
    tab.do("balance_apply")
    assert folders(three) == ["10_blue", "30_plain", "5_red"]
    assert "3 folders renamed" in tab.shown("notice")
    assert tab.shown("concepts").count(">30<") == 3
    assert config_of(tab).data.sources[0].path == str(three)
    tab.do("picture_undo")
    assert folders(three) == ["3_red", "5_blue", "plain"]
    assert tab.shown("concepts").count(">30<") == 0
    tab.do("picture_redo")
    assert folders(three) == ["10_blue", "30_plain", "5_red"]
    tab.do("balance", goal_exposures=30)
    assert "Nothing has to be changed" in tab.shown("balance_proposal")
    assert tab.of("balance_apply", "visible") is None
    assert tab.shown("notice") == ""


def test_a_grade_lowers_the_aim_and_outlasts_the_renaming(tmp_path: Path, three: Path) -> None:
    tab = opened_on(tmp_path, three)
    tab.do("grade", grade_chosen=json.dumps(["set/red", "C"]))
    assert tab.shown("balance_proposal") in (None, ""), "nobody asked for a proposal"
    tab.do("balance", goal_exposures=30)
    assert "6 × 3 = 18" in tab.shown("balance_proposal"), "0.6 of 30"
    assert "aims at 18, grade C" in tab.shown("balance_proposal")
    tab.do("grade", grade_chosen=json.dumps(["set/red", "E"]))
    assert "6 × 1 = 6" in tab.shown("balance_proposal"), "an open proposal follows"
    tab.do("balance_apply")
    assert folders(three) == ["10_blue", "1_red", "30_plain"]
    row = next(row for row in tab.shown("concepts").split("<tr>") if "set/1_red" in row)
    assert '<option value="E" selected>' in row
    other = Tab(tmp_path)
    other.do("attach", remembered="p")
    assert other.shown("goal_exposures") == 30, "kept in the project"
    for wrong in ('["set/red", "F"]', "{", "3"):
        tab.do("grade", grade_chosen=wrong)
        assert "grade" in tab.shown("notice"), wrong


def test_a_source_that_is_the_concept_gets_its_repeats_set(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for number in range(6):
        picture(one / f"{number}.png", caption="red", seed=number)
    picture(two / "2_x" / "0.png", caption="blue")
    tab = opened_on(tmp_path, one, two)
    tab.do("source_chosen", "input", source_chosen="0")
    tab.do("balance", goal_exposures=30)
    said = tab.shown("balance_proposal")
    assert f"The repeats of {one} are set to 5 (now by name)." in said
    assert "which is not renamed" not in said, "the setting does it"
    tab.do("balance_apply", set_name="typed meanwhile")
    sources = config_of(tab).data.sources
    assert [(source.path, source.repeats) for source in sources] == [(str(one), 5), (str(two), 0)]
    assert config_of(tab).name == "typed meanwhile", "what was typed in the form is saved, not lost"
    assert tab.shown("source_repeats") == 5, "the form shows it"
    assert tab.shown("set_name") == "typed meanwhile"
    assert folders(two) == ["30_x"]
    tab.do("picture_undo")
    assert folders(two) == ["2_x"]
    assert [source.repeats for source in config_of(tab).data.sources] == [0, 0]
    assert tab.shown("source_repeats") == 0
    assert config_of(tab).name == "typed meanwhile"
    tab.do("picture_redo")
    assert folders(two) == ["30_x"]
    assert [source.repeats for source in config_of(tab).data.sources] == [5, 0]


def test_repeats_of_a_source_change_only_where_all_its_folders_agree(tmp_path: Path, three: Path) -> None:
    tab = opened_on(tmp_path, three)
    tab.do("source_repeats", "blur", source_repeats=2)
    tab.do("scan")
    tab.do("balance", goal_exposures=30)
    said = tab.shown("balance_proposal")
    assert "The repeats of" not in said
    assert "its source sets 2 repeats for all its folders" in said
    assert "Nothing has to be changed." in said


def test_another_browsers_settings_survive_the_balance(tmp_path: Path) -> None:
    for number in range(6):
        picture(tmp_path / "one" / f"{number}.png", caption="red", seed=number)
    tab = opened_on(tmp_path, tmp_path / "one")
    other = Tab(tmp_path)
    other.do("attach", remembered="p")
    tab.do("balance", goal_exposures=30)
    other.do("set_adapter_rank", "blur", set_adapter_rank=32)
    tab.do("balance_apply")
    config = config_of(tab)
    assert (config.adapter.rank, config.data.sources[0].repeats) == (32, 5)
    tab.do("refresh")
    assert 'data-stale="1"' in tab.shown("status"), "the form is drawn anew as soon as nobody is typing"
    tab.do("attach")
    assert tab.shown("set_adapter_rank") == 32
    assert tab.shown("source_repeats") == 5


def test_balancing_needs_a_scan_of_these_settings(tmp_path: Path, three: Path) -> None:
    tab = opened_on(tmp_path, three)
    tab.do("source_recursive", "input", source_recursive=False)
    tab.do("balance", goal_exposures=30)
    assert "changed since the scan" in tab.shown("notice")
    tab.do("balance", goal_exposures=0)
    assert "0 is too small" in tab.shown("notice")


def test_monochrome_pictures_are_counted_and_known_after_a_renaming(tmp_path: Path, three: Path) -> None:
    for number in range(3):
        Image.effect_noise((64, 64), 60).convert("RGB").save(three / "3_red" / f"{number}.png")
    tab = opened_on(tmp_path, three)
    tab.do("monochrome")
    row = next(row for row in tab.shown("concepts").split("<tr>") if "set/3_red" in row)
    assert '<td data-label="Monochrome">50%</td>' in row
    tab.do("balance", goal_exposures=30)
    tab.do("balance_apply")
    row = next(row for row in tab.shown("concepts").split("<tr>") if "set/5_red" in row)
    assert '<td data-label="Monochrome">50%</td>' in row


def test_names_of_folders_are_escaped(tmp_path: Path) -> None:
    picture(tmp_path / "set" / "3_<b>" / "0.png", caption="x")
    tab = opened_on(tmp_path, tmp_path / "set")
    tab.do("balance", goal_exposures=30)
    assert "<b>" not in tab.shown("concepts") + tab.shown("balance_proposal")
    assert "set/3_&lt;b&gt;" in tab.shown("concepts")


def test_a_broken_file_of_the_goal_is_named(tmp_path: Path) -> None:
    project = projects.create(tmp_path, "p")
    assert goals.load(project) == goals.Aim()
    (project.folder / goals.FILE).write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match="balance.json"):
        goals.load(project)


def test_a_folder_keeps_its_key_whatever_its_number() -> None:
    assert goals.key_of("set/3_red/10_hat") == goals.key_of("set/red/2_hat") == "set/red/hat"


def test_every_script_is_in_the_page_of_its_own(page: Tab) -> None:
    serve.with_script(page.blocks)
    code = page.blocks.dependencies[-1]["js"]
    for file in (ROOT / "javascript").glob("*.js"):
        assert json.dumps(file.read_text(encoding="utf-8")) in code, file.name
