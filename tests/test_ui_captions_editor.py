"""Captions one by one: looking, counting, saving through the journal, words to complete, and the filter line."""

import json

import numpy as np
import pytest

pytest.importorskip("gradio")

from captions_page import Step
from lib_lora_trainer.app import dataset_tools
from lib_lora_trainer.base.errors import UserError
from lib_lora_trainer.base.files import sha256
from lib_lora_trainer.dataset.journal import FOLDER
from lib_lora_trainer.tagging.labels import GENERAL, RATING, Label
from lib_lora_trainer.tagging.scores import Kept, write
from lib_lora_trainer.ui import captions_query
from tool_cases import picture, settings

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "絵 <b>"
    picture(root / "2_a" / "one.png", caption="sks, Long_Hair, <i>", seed=1)
    picture(root / "2_a" / "two.png", caption="sks, long hair, hat", seed=2)
    picture(root / "b" / "three.png", caption=None, seed=3)
    picture(root / "b" / "four.png", caption="A girl is standing in the rain. She has an umbrella.", seed=4)
    return root


@pytest.fixture
def step(root, tmp_path):
    return Step(tmp_path, settings(root, bucket_minimum=64))


def told(step, path, **question):
    return step.ask(kind="caption", path=str(path), **question)


def test_a_caption_is_told_with_its_picture_and_tokens(step, root):
    answer = told(step, root / "2_a" / "one.png")
    assert answer["text"] == "sks, Long_Hair, <i>" and answer["name"] == "one.png" and answer["editable"]
    assert answer["src"] and answer["tokens"]["chunks"] == 1 and answer["tokens"]["count"] > 5
    nothing = told(step, root / "b" / "three.png")
    assert (nothing["text"], nothing["seen"]) == ("", "")
    assert "not among the pictures" in told(step, root / "2_a" / "none.png")["error"]
    assert "not among the pictures" in told(step, "/etc/passwd")["error"]


def test_saving_writes_once_through_the_journal_and_is_undone(step, root):
    path, file = root / "2_a" / "one.png", root / "2_a" / "one.txt"
    before = file.read_bytes()
    seen = told(step, path)["seen"]
    answer = step.ask(kind="save", path=str(path), text="  sks, red hair \n\n", seen=seen)
    assert answer["changed"] and answer["saved"]["text"] == "sks, red hair"
    assert file.read_bytes() == b"sks, red hair"
    assert dataset_tools.next_to("undo", root).text == "Caption of one.png"
    list(dataset_tools.undo(root))
    assert file.read_bytes() == before
    list(dataset_tools.redo(root))
    assert file.read_bytes() == b"sks, red hair"
    again = step.ask(kind="save", path=str(path), text="sks, red hair", seen=answer["saved"]["seen"])
    assert not again["changed"] and len(dataset_tools.history(root)) == 1, "nothing changed, nothing recorded"


def test_a_picture_without_a_caption_file_gets_one(step, root):
    answer = step.ask(kind="save", path=str(root / "b" / "three.png"), text="sks", seen="")
    assert answer["changed"] and (root / "b" / "three.txt").read_text() == "sks"
    list(dataset_tools.undo(root))
    assert not (root / "b" / "three.txt").exists()


def test_what_another_browser_saved_is_not_lost(step, root):
    path, file = root / "2_a" / "one.png", root / "2_a" / "one.txt"
    seen = told(step, path)["seen"]
    assert step.ask(kind="save", path=str(path), text="mine", seen=seen)["changed"]
    late = step.ask(kind="save", path=str(path), text="theirs", seen=seen)
    assert "saved" not in late and late["conflict"]["text"] == "mine" and file.read_text() == "mine"
    kept = step.ask(kind="save", path=str(path), text="theirs", seen=late["conflict"]["seen"])
    assert kept["saved"]["text"] == file.read_text() == "theirs"
    file.unlink()
    assert step.ask(kind="save", path=str(path), text="more", seen=kept["saved"]["seen"])["conflict"]["seen"] == ""


def test_words_are_the_datasets_by_folder_and_then_the_taggers(step, root):
    tagger = step.home / "wd-vit-tagger-v3"
    tagger.mkdir(parents=True)
    (tagger / "model.onnx").write_bytes(b"")
    rows = "tag_id,name,category,count\n0,general,9,99\n1,rare_thing,0,5\n2,long_hair,0,50\n3,smile,0,70\n"
    (tagger / "selected_tags.csv").write_text(rows)
    answer = step.ask(kind="words")
    rows = {tag: (total, counts) for tag, total, counts in answer["rows"]}
    first, second = (answer["folders"].index(name) for name in sorted(answer["folders"]))
    assert answer["pictures"][first] == 2 and rows["sks"][0] == 2 and rows["sks"][1][second] == 0
    assert sum(tag.lower().replace("_", " ") == "long hair" for tag in rows) == 1, "spellings are one tag"
    assert not [tag for tag in rows if "standing" in tag], "a sentence is no tag"
    assert answer["others"] == ["smile", "rare thing"], "without ratings and what the dataset has, the common first"


def test_a_filter_counts_or_says_at_which_column_it_is_wrong(step):
    assert step.ask(kind="query", text="long_hair -hat")["fits"] == 1
    assert step.ask(kind="query", text="")["fits"] == 4
    assert step.ask(kind="query", text="kind:prose")["fits"] == 1
    assert step.ask(kind="query", text="-has:caption")["fits"] == 1
    assert step.ask(kind="query", text="tokens>11")["fits"] == 1
    wrong = step.ask(kind="query", text="hat AND (sks")
    assert wrong["column"] == 9 + len("sks") + 1 and "column 9" in wrong["wrong"]


def test_a_filter_of_scores_asks_what_taggers_said(step, root):
    labels = (Label("general", RATING), Label("smile", GENERAL))
    kept = Kept("tagger", "0" * 64, labels)
    for name, score in (("one", 0.9), ("two", 0.2)):
        kept.keep(sha256(root / "2_a" / f"{name}.png"), np.array([0.5, score], dtype=np.float32))
    write(root / FOLDER / "scores", kept)
    known = step.place.scans.known("mikori")

    def fitting(query, within=()):
        return {each.path.name for each in captions_query.narrowed(known, query, within)}

    assert fitting("score:smile>0.5") == {"one.png"}
    assert fitting("has:scores") == {"one.png", "two.png"}
    assert fitting("-score:smile>0.5 has:scores") == {"two.png"}
    assert fitting("sks", (str(root / "2_a" / "two.png"),)) == {"two.png"}
    assert fitting("", (str(root / "2_a" / "two.png"),)) == {"two.png"}


def test_the_gate_and_nonsense(root, tmp_path):
    closed = []

    def gate():
        if closed:
            raise UserError("closed")

    step = Step(tmp_path, settings(root, bucket_minimum=64), gate)
    assert "unknown" in step.ask(kind="nonsense")["error"]
    step.do("captions_ask", captions_question="{")
    assert "no JSON" in json.loads(step.shown("captions_answer"))["error"]
    closed.append(1)
    assert step.ask(kind="words") == {"error": "closed"}
    before = (root / "2_a" / "one.txt").read_bytes()
    assert step.ask(kind="save", path=str(root / "2_a" / "one.png"), text="x", seen="")["error"] == "closed"
    assert (root / "2_a" / "one.txt").read_bytes() == before
