"""Balance: repeats that show every concept equally often, and folders renamed so that they hold."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dying_files import tree
from lib_lora_trainer.app import dataset_tools
from lib_lora_trainer.app.dataset_tools import Request
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import DataError, ProblemsFound
from lib_lora_trainer.config.data import SourceConfig
from lib_lora_trainer.dataset.balance import propose, shared_triggers
from lib_lora_trainer.dataset.items import Concept, Item, Scan
from lib_lora_trainer.dataset.scan import scan
from lib_lora_trainer.dataset.tools.options import Goal
from tool_cases import applied, picture, settings, undo

pytestmark = pytest.mark.usefixtures("quick")


def made(folder, **concepts):
    """Return a scan of folders with so many pictures; a value is a number or (number, caption, repeats, details)."""
    items, found = [], []
    for name, about in concepts.items():
        number, caption, repeats, details = about if isinstance(about, tuple) else (about, "", 1, {})
        (folder / name).mkdir(exist_ok=True)
        found.append(Concept(name, folder / name, repeats, number, **details))
        items += [
            Item(folder / name / f"{i}.png", name, repeats, 64, 64, caption, None, **details) for i in range(number)
        ]
    return Scan(tuple(items), tuple(found), (), ())


def wanted(balance):
    return {row.concept: row.wanted for row in balance.rows}


def test_the_guide_s_numbers(tmp_path):
    found = propose(made(tmp_path, a=100, b=50, c=10), Goal(exposures=300))
    assert wanted(found) == {"a": 3, "b": 6, "c": 30}
    assert found.totals == {"a": 300, "b": 300, "c": 300} and found.problems == ()


@pytest.mark.parametrize(
    ("images", "repeats", "severity"),
    [(300, 1, None), (200, 1, "note"), (210, 1, "note"), (199, 2, "note"), (240, 1, None), (301, 1, None), (400, 1, "warning"),
     (7, 43, None), (1, 300, None), (150, 2, None)],
)  # fmt: skip
def test_repeats_are_the_nearest_whole_ones_and_one_at_least(tmp_path, images, repeats, severity):
    """200 pictures: 1 × is 100 short and 2 × 100 over; the smaller one counts, and is a quarter off."""
    found = propose(made(tmp_path, a=images), Goal(exposures=300, budget=0))
    assert wanted(found) == {"a": repeats}
    assert [problem.severity for problem in found.problems] == ([severity] if severity else [])


def test_folders_that_share_a_trigger_share_its_exposures(tmp_path):
    found = made(
        tmp_path,
        outfit_a=(10, "kayoko, outfit_a", 1, {}),
        outfit_b=(25, "kayoko, outfit b, hat", 1, {}),
        outfit_c=(100, "kayoko", 1, {}),
        other=(30, "kayokolike, x", 1, {}),
    )
    triggers = ("kayoko", "outfit_b")
    assert shared_triggers(found, triggers) == dict.fromkeys(("outfit_a", "outfit_b", "outfit_c"), "kayoko")
    balance = propose(found, Goal(exposures=300), triggers)
    assert wanted(balance) == {"outfit_a": 10, "outfit_b": 4, "outfit_c": 1, "other": 10}
    assert balance.totals == {"kayoko": 300, "other": 300}
    parts = propose(found, Goal(exposures=300, part=150), triggers)
    assert wanted(parts) == {"outfit_a": 15, "outfit_b": 6, "outfit_c": 1, "other": 10}
    assert parts.totals["kayoko"] == 400 and "8 epochs; its budget is 3000" in str(parts.problems[-1])
    named = propose(found, Goal(exposures=300, groups={"other": "k", "outfit_a": "k"}), triggers)
    assert named.totals == {"k": 300, "outfit_b": 300, "outfit_c": 300}
    assert propose(found, Goal(exposures=300)).totals == {
        "outfit_a": 300,
        "outfit_b": 300,
        "outfit_c": 300,
        "other": 300,
    }


def test_a_trigger_has_to_be_in_most_captions(tmp_path):
    half = made(tmp_path, a=(2, "k", 1, {}), b=(2, "k", 1, {}))
    half = replace(half, items=(half.items[0]._replace(caption="x"), *half.items[1:]))
    assert shared_triggers(half, ("k",)) == {}


def test_grades_propose_fewer_repeats_only(tmp_path):
    found = made(tmp_path, a=10, b=10, c=10, d=10, e=10)
    balance = propose(found, Goal(exposures=300, grades=dict(zip("abcde", "ABCDe", strict=True))))
    assert wanted(balance) == {"a": 30, "b": 24, "c": 18, "d": 12, "e": 6}
    with pytest.raises(ProblemsFound, match="'F' is no grade"):
        list(dataset_tools.balance(Request(settings(tmp_path), Goal(grades={"a": "F"})), Control()))


def test_regularization_is_left_alone_and_multiply_is_reckoned_with(tmp_path):
    found = made(tmp_path, a=(10, "", 2.5, {}), reg=(500, "", 1, {"regularization": True}))
    (tmp_path / "a" / "multiply.txt").write_text("0.5", encoding="utf-8")
    (row,) = propose(found, Goal(exposures=300)).rows
    assert (row.number, row.exposures, row.wanted, row.proposed) == (5, 25, 60, 300)
    assert row.facts()["factor"] == 0.5 and str(row) == "a: 10 × 0.5 × 5 = 25 → × 60 = 300"


def test_budgets_count_the_whole_training(tmp_path):
    found = made(tmp_path, a=100)
    assert propose(found, Goal(exposures=300, epochs=10, budget=3000)).problems == ()
    (problem,) = propose(found, Goal(exposures=300, epochs=11, budget=3000)).problems
    assert (problem.where, problem.severity) == ("a", "warning") and "3300 times in 11 epochs" in problem.message
    assert propose(found, Goal(exposures=300, epochs=11, budget=0)).problems == ()


# --- applying


def drafted(data, goal, triggers=(), index=0):
    *_, balance = dataset_tools.balance(Request(data, goal, index, triggers), Control())
    return balance, dataset_tools.draft_balance(balance, data, index)


def test_folders_are_renamed_so_that_a_scan_finds_the_proposed_repeats(tmp_path):
    root, masks = tmp_path / "9_set", tmp_path / "masks"
    layout = {
        "10_a": 6,
        "b": 3,
        "10_a/inner": 2,
        "10_a/5_deep": 1,
        "group/c": 4,
        "1000_y": 2,
        "20000_z": 3,
        "12_right": 1,
    }
    for name, count in layout.items():
        for number in range(count):
            picture(root / name / f"{number}.png", (16, 16), caption=name)
    picture(masks / "10_a" / "inner" / "0.png", (16, 16), caption=None, mode="L")
    picture(root / ".excluded" / "b" / "x.png")
    data = settings(root, masks)
    before = tree(root), tree(masks)
    balance, draft = drafted(data, Goal(exposures=12))
    applied(draft)
    found = scan(data, ())
    assert {item.caption: item.repeats for item in found.items} == {
        "10_a": 2, "b": 4, "10_a/inner": 6, "10_a/5_deep": 12, "group/c": 3, "1000_y": 6, "20000_z": 4, "12_right": 12,
    }  # fmt: skip
    assert {concept.exposures for concept in found.concepts} == {12}
    folders = {concept.folder.relative_to(root).as_posix() for concept in found.concepts}
    assert folders == {
        "2_a", "4_b", "2_a/6_inner", "2_a/12_deep", "group/3_c", "6_y", "4_20000_z", "12_right",
    }  # fmt: skip
    assert [item.caption for item in found.items if item.mask] == ["10_a/inner"]
    assert (root / ".excluded" / "4_b" / "x.png").exists()
    assert not drafted(data, Goal(exposures=12))[1].operations and balance.problems == ()
    undo(root)
    assert (tree(root), tree(masks)) == before


def test_a_name_that_is_taken_gets_a_number_behind_it(tmp_path):
    root = tmp_path / "set"
    picture(root / "1_a" / "x.png"), picture(root / "12_b" / "x.png")
    (root / "12_a").mkdir()
    applied(drafted(settings(root), Goal(exposures=12))[1])
    assert (root / "12_a-2" / "x.png").exists() and (root / "12_b" / "x.png").exists()


def test_what_cannot_be_renamed_says_what_to_do_instead(tmp_path):
    root = tmp_path / "5_leaf"
    picture(root / "a.png")
    (problem,) = drafted(settings(root), Goal(exposures=12))[1].problems
    assert "is the source itself" in problem.message and "repeats to 12" in problem.fix
    fixed = settings(root, source={"repeats": 3})
    (problem,) = drafted(fixed, Goal(exposures=12))[1].problems
    assert "its source sets 3 repeats" in problem.message
    held = tmp_path / "held"
    picture(held / "1_a" / "a.png"), picture(held / "1_a" / "masks" / "a.png", caption=None)
    (problem,) = drafted(settings(held, held / "1_a" / "masks"), Goal(exposures=12))[1].problems
    assert "holds a folder that the settings name" in problem.message


def test_concepts_of_all_sources_are_balanced_and_each_source_has_its_own_journal(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for number in range(4):
        picture(one / "1_a" / f"{number}.png", (16, 16), caption="k, a")
    for number in range(2):
        picture(two / "1_b" / f"{number}.png", (16, 16), caption="k, b")
    data = settings(one)
    data = replace(data, sources=(*data.sources, SourceConfig(str(two))))
    balance, first = drafted(data, Goal(exposures=16), ("k",))
    assert balance.totals == {"k": 16}
    second = dataset_tools.draft_balance(balance, data, 1)
    applied(first), applied(second)
    assert {concept.name: concept.exposures for concept in scan(data, ()).concepts} == {"one/2_a": 8, "two/4_b": 8}
    undo(two)
    assert {concept.name: concept.exposures for concept in scan(data, ()).concepts} == {"one/2_a": 8, "two/1_b": 2}


def test_renaming_fails_as_a_whole(tmp_path):
    root = tmp_path / "set"
    picture(root / "1_a" / "x.png"), picture(root / "1_b" / "x.png")
    draft = drafted(settings(root), Goal(exposures=12))[1]
    before = tree(root)
    (root / "12_a").mkdir()
    with pytest.raises(DataError, match="12_a: exists already"):
        applied(draft)
    (root / "12_a").rmdir()
    assert tree(root) == before
