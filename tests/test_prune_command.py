"""Pruning, triggers, the check and the probe from the command line and through the journal, on files."""

from __future__ import annotations

import numpy as np
import pytest

from commands import runner
from dying_files import tree
from lib_lora_trainer.app import prune_jobs
from lib_lora_trainer.app.dataset_tools import Request
from lib_lora_trainer.app.prune_jobs import Proposed, PruneRequest
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ProblemsFound
from lib_lora_trainer.base.events import Finished
from lib_lora_trainer.base.files import sha256
from lib_lora_trainer.captions.prune import switched
from lib_lora_trainer.captions.prune_values import Trained, Trigger
from lib_lora_trainer.cli import captions_triggers
from lib_lora_trainer.config.data import CaptionConfig
from lib_lora_trainer.dataset.journal import FOLDER
from lib_lora_trainer.demo.run import CHECKPOINT
from lib_lora_trainer.tagging import scores
from lib_lora_trainer.tagging.labels import GENERAL, Label
from lib_lora_trainer.tagging.scores import Kept
from tool_cases import applied, names, picture, settings, undo


@pytest.fixture
def main(monkeypatch, capsys):
    """Run the command line and return its exit status, lines and errors; JSON lines are read."""
    return runner(monkeypatch, capsys, "captions")


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "データ set"
    for number in range(3):
        picture(
            root / "2_red" / f"{number}.png", (16, 16), f"1girl, aqua_hair, red dress, smile, {number}", seed=number
        )
        picture(root / "2_black" / f"{number}.png", (16, 16), "1girl, aqua_hair, black coat, shoes", seed=9 + number)
    picture(root / "2_black" / "bare.png", (16, 16), None, seed=20)
    return root


def text(root, name):
    return (root / name).with_suffix(".txt").read_text("utf-8")


def run_jobs(wish: PruneRequest) -> Proposed:
    *_, last = prune_jobs.propose(wish, Control())
    assert isinstance(last, Proposed)
    return last


def character(word="mkr", **more) -> Trained:
    return Trained((Trigger(word, "character"),), **more)


def outfit(word: str) -> Trained:
    return Trained((Trigger("mkr", "character"), Trigger(word, "outfit")), "multi-trigger")


class TestJobs:
    def test_apply_and_undo_give_the_original_bytes_back(self, root, main):
        before = tree(root)
        made = run_jobs(PruneRequest(Request(settings(root)), {"2_red": outfit("Red_dress"), "2_black": character()}))
        assert made.values.written and made.values.keep_tokens == 2
        draft = prune_jobs.draft_prune(made)
        assert {path: content for path, content in tree(root).items() if FOLDER not in str(path)} == before
        assert applied(draft).reason == "done"
        assert text(root, "2_red/1.png") == "mkr, Red_dress ||| 1girl, smile, 1"
        assert text(root, "2_black/1.png") == "mkr ||| 1girl, black coat, shoes"
        assert text(root, "2_black/bare.png") == "mkr |||"
        undo(root)
        assert {path: content for path, content in tree(root).items() if FOLDER not in str(path)} == before

    def test_the_venn_check_sees_the_captions_as_they_will_be(self, root):
        both = {"2_red": outfit("otfr"), "2_black": outfit("otfb")}
        made = run_jobs(PruneRequest(Request(settings(root)), both))
        landings = {landing.tag: landing.triggers for landing in made.venn.landings}
        assert landings == {"aqua_hair": ("mkr",), "red dress": ("otfr",), "black coat": ("otfb",)}
        same = run_jobs(PruneRequest(Request(settings(root)), {"*": outfit("Clothes")}))
        assert "both will learn the same" in same.venn.findings[0].message

    def test_folders_that_are_not_named_stay(self, root):
        made = run_jobs(PruneRequest(Request(settings(root)), {"2_red": character()}))
        assert {path.about.parent.name for path in prune_jobs.draft_prune(made).proposals if path.operations} == {
            "2_red"
        }

    def test_switches_change_what_is_written(self, root):
        made = run_jobs(PruneRequest(Request(settings(root)), {"*": character()}))
        plans = [switched(plan, {"aqua hair": False, "smile": True}) for plan in made.plans]
        draft = prune_jobs.draft_prune(prune_jobs.proposed(made.captions, plans))
        after = {f"{each.about.parent.name}/{each.about.name}": each.after["caption"] for each in draft.proposals}
        assert after["2_red/0.png"] == "mkr, 1girl, aqua_hair, red dress, 0"

    def test_a_caption_in_which_nothing_changes_stays_as_written(self, root):
        (root / "2_red" / "0.txt").write_bytes(b"a,b\r\n")
        made = run_jobs(PruneRequest(Request(settings(root)), {"*": Trained((), "triggerless")}))
        assert prune_jobs.draft_prune(made).operations == ()

    def test_errors_are_raised_before_anything_is_written(self, root):
        made = run_jobs(PruneRequest(Request(settings(root)), {"*": character("a,b")}))
        with pytest.raises(ProblemsFound, match="','"):
            prune_jobs.draft_prune(made)

    def test_lines_are_captions_of_their_own_only_where_wildcards_are_on(self, root):
        (root / "2_red" / "0.txt").write_text("aqua hair, a\nb, smile", "utf-8")
        for on, expected in ((True, "mkr, a\nmkr, b, smile"), (False, "mkr, a b, smile")):
            data = settings(root, caption=CaptionConfig(wildcards=on))
            draft = prune_jobs.draft_prune(run_jobs(PruneRequest(Request(data), {"2_red": character()})))
            assert next(each.after["caption"] for each in draft.proposals if each.about.name == "0.png") == expected

    def test_other_encodings_are_read_told_and_written_as_utf8_and_a_broken_one_is_left(self, root):
        (root / "2_red" / "0.txt").write_bytes("青い目, aqua hair".encode("cp932"))
        (root / "2_red" / "1.txt").write_bytes(b"\xff\xfe\x00")
        made = run_jobs(PruneRequest(Request(settings(root)), {"2_red": character()}))
        draft = prune_jobs.draft_prune(made)
        assert any("cp932" in problem.message for problem in draft.problems)
        assert any(problem.severity == "error" for problem in draft.problems)
        assert applied(draft).reason == "done"
        assert text(root, "2_red/0.png") == "mkr, 青い目"
        assert (root / "2_red" / "1.txt").read_bytes() == b"\xff\xfe\x00"

    def test_pictures_that_share_a_caption_write_it_once(self, root):
        picture(root / "2_red" / "0.jpg", (16, 16), None)
        draft = prune_jobs.draft_prune(run_jobs(PruneRequest(Request(settings(root)), {"2_red": character()})))
        assert len([each for each in draft.operations if each.path.name == "0.txt"]) == 1
        assert any("shares the caption" in problem.message for problem in draft.problems)
        assert applied(draft).reason == "done"

    def test_kept_scores_of_taggers_count(self, root):
        kept = Kept("toy", "f" * 64, (Label("smile", GENERAL), Label("aqua hair", GENERAL)))
        kept.keep(sha256(root / "2_red" / "0.png"), np.array([0.2, 0.9], np.float32))
        folder = root / FOLDER / "scores"
        folder.mkdir(parents=True)
        scores.write(folder, kept)
        wish = PruneRequest(Request(settings(root)), {"2_red": character()})
        found = {each.tag: each for each in run_jobs(wish).plans[0].proposals}
        assert found["smile"].score == pytest.approx(0.2) and found["aqua_hair"].score == pytest.approx(0.9)
        assert found["red dress"].score is None
        without = run_jobs(PruneRequest(wish.request, wish.trained, use_scores=False))
        assert all(each.score is None for each in without.plans[0].proposals)

    def test_a_wish_to_stop(self, root):
        control = Control()
        control.ask("stop")
        *_, last = prune_jobs.propose(PruneRequest(Request(settings(root)), {"*": character()}), control)
        assert isinstance(last, Finished) and last.reason == "stopped"


class TestCommands:
    def test_prune_says_does_and_can_be_undone(self, root, main):
        before = tree(root)
        status, lines, _ = main("prune", root, "--trigger", "mkr=character", "--dry-run")
        assert status == 0 and tree(root).keys() >= before.keys() and text(root, "2_red/0.png").startswith("1girl")
        assert "[x] 2_red: aqua_hair → mkr: part of the character's looks (3 of 3 pictures); e.g. 2_red/0.png" in lines
        assert "data.caption.keep_tokens = 1" in lines
        status, events, _ = main("prune", root, "--trigger", "mkr=character", "--off", "aqua hair", "--json")
        assert status == 0
        assert text(root, "2_red/0.png") == "mkr, 1girl, aqua_hair, red dress, smile, 0"
        tag = next(event for event in events if event.get("event") == "tag" and event["tag"] == "aqua_hair")
        assert tag["on"] is False and tag["verdict"] == "swallow"
        undo(root)
        assert text(root, "2_red/0.png").startswith("1girl, aqua_hair")

    def test_prune_of_one_concept_semi_static(self, root, main):
        arguments = ("--rigidity", "semi-static", "--choose", "dress", "--concept", "2_red", "--keep", "smile")
        status, _, _ = main("prune", root, "--trigger", "Red_dress=outfit", *arguments)
        assert status == 0 and text(root, "2_red/2.png") == "Red_dress, 1girl, aqua_hair, smile, 2"
        assert text(root, "2_black/0.png") == "1girl, aqua_hair, black coat, shoes"

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("--trigger", "mkr"), "is not WORD=KIND"),
            (("--trigger", "mkr=thing"), "is not WORD=KIND"),
            (("--trigger", "mkr=pose", "--concept", "none"), "none: has no pictures"),
            ((), "has 0 triggers"),
        ],
    )
    def test_mistakes(self, root, main, arguments, said):
        before = names(root)
        status, lines, errors = main("prune", root, *arguments)
        assert status == 1 and said in errors + "\n".join(lines) and names(root) == before

    def test_triggers_by_outfit(self, root, main):
        status, lines, _ = main("triggers", root, "--trigger", "mkr", "--outfit")
        assert status == 0 and "2_red: mkr, Red_dress" in lines
        # `red dress` is the trigger in another spelling, and stands there once.
        assert text(root, "2_red/0.png") == "mkr, Red_dress, 1girl, aqua_hair, smile, 0"
        assert text(root, "2_black/0.png").startswith("mkr, Black_coat, 1girl")
        assert main("triggers", root, "--trigger", "a,b")[0] == 1
        assert main("triggers", root)[0] == 1

    def test_check(self, root, main):
        main("triggers", root, "--trigger", "mkr", "--outfit")
        status, lines, _ = main("check", root, "--trigger", "mkr", "--trigger", "Red_dress")
        assert status == 0 and lines[0].split() == ["mkr", "7", "3"]
        main("triggers", root, "--trigger", "mkr", "--trigger", "other")
        status, found, _ = main("check", root, "--trigger", "mkr", "--trigger", "other", "--json")
        assert status == 1 and found[0]["pairs"][0]["relation"] == "same" and found[0]["matrix"] == [[7, 7], [7, 7]]
        assert main("check", root)[0] == 1
        picture(root.parent / "misc" / "0.png", (16, 16), "mkr, white shirt")
        status, lines, _ = main("check", root, "--trigger", "mkr", "--trigger", "other", "--misc", root.parent / "misc")
        assert status == 1 and sum("would settle: triggers 'mkr' and 'other'" in line for line in lines) == 1

    def test_probe(self, tmp_path, main):
        pytest.importorskip("diffusers")  # of which the standalone host makes its networks
        arguments = ("probe", "mkr", "--checkpoint", CHECKPOINT, "--out", tmp_path / "out", "--device", "cpu")
        small = ("--pictures", "4", "--random-words", "1", "--steps", "1", "--side", "64")
        status, lines, _ = main(*arguments, *small, "--dry-run")
        assert status == 0 and "12 pictures would be made" in lines[0] and not (tmp_path / "out").exists()
        tagger = CHECKPOINT.parent / "tagger"
        status, events, _ = main(*arguments, *small, "--model", tagger, "--json")
        assert status in (0, 1) and len(list((tmp_path / "out").glob("*.png"))) == 12
        assert [event["event"] for event in events].count("samplemade") == 12
        assert events[-1]["event"] == "probed" and events[-1]["readings"][0]["word"] == "mkr"
        assert main(*arguments, *small, "--model", "nowhere")[0] == 1

    def test_the_options_are_those_of_the_probe(self):
        import dataclasses

        from lib_lora_trainer.evaluate.probe import ProbeOptions

        assert set(captions_triggers.PROBING) == {field.name for field in dataclasses.fields(ProbeOptions)}
