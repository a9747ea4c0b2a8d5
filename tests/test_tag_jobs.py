"""The whole way of tagging: picture files to a draft, its captions in the journal, and back."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from pathlib import Path
from random import Random

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from lib_lora_trainer.app import dataset_tools, tag_digests, tag_jobs
from lib_lora_trainer.app.dataset_tools import Draft, Request
from lib_lora_trainer.app.tag_jobs import Place
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import DataError, ProblemsFound, UserError
from lib_lora_trainer.base.events import Finished, Note, Phase
from lib_lora_trainer.base.files import sha256
from lib_lora_trainer.dataset.tools.operations import described
from lib_lora_trainer.demo import world
from lib_lora_trainer.demo.run import TAGGER
from lib_lora_trainer.tagging import session
from lib_lora_trainer.tagging.options import TagOptions
from onnx_models import tagger
from tool_cases import applied, picture, settings

UNSEEN = 7_700_000  # seeds of pictures that the toy tagger was not trained on


@pytest.fixture
def models(tmp_path):
    """A folder with two taggers: channels' means as a rating, red hair and kayoko (blue archive); or blue, red, hat."""
    home = tmp_path / "taggers"
    tagger(home / "bgr")
    tagger(home / "single", shape=(1, 8, 8, 3), rows=("0,general,9,1", "1,red_hair,0,1", "2,hat,0,1"))
    return home


def flat(path: Path, red, green, blue, caption=None, **saving) -> Path:
    """Save a square of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 32), (red, green, blue)).save(path, **saving)
    if caption is not None:
        path.with_suffix(".txt").write_bytes(caption if isinstance(caption, bytes) else caption.encode("utf-8"))
    return path


def looked(root, models, turn=None, control=None, data=None, only=None, **options):
    """Return the events of a draft, and the draft."""
    names = options.pop("taggers", ("bgr",))
    wish = TagOptions(**{"taggers": tuple(str(models / name) for name in names), "device": "cpu", **options})
    request = Request(data or settings(root), wish, only=only)
    place = Place(models) if turn is None else Place(models, turn=turn)
    *events, made = tag_jobs.draft(request, place, control or Control())
    return events, made


def drafted(root, models, **options) -> Draft:
    made = looked(root, models, **options)[1]
    assert isinstance(made, Draft), made
    return made


def captions(root):
    own = (path for path in sorted(root.rglob("*.txt")) if ".lora-trainer" not in path.parts)
    return {path.relative_to(root).as_posix(): path.read_text("utf-8") for path in own}


def test_unseen_toy_pictures_get_their_tags(tmp_path):
    root, truth, rng = tmp_path / "data", {}, Random(UNSEEN)
    for number in range(60):
        figure = world.sample_any_figure(rng)
        path = root / f"{number:02d}.{('png', 'webp', 'jpg')[number % 3]}"
        path.parent.mkdir(exist_ok=True)
        world.draw(figure, UNSEEN + number).save(path, **({"quality": 90} if path.suffix != ".png" else {}))
        truth[path.stem] = set(world.tags(figure)) & set(world.TAGGER_TAGS)
    wish = TagOptions(taggers=(str(TAGGER),), general_threshold=0.5, mode="overwrite", device="cpu")
    *_, made = tag_jobs.draft(Request(settings(root), wish), Place(tmp_path), Control())
    assert applied(made).reason == "done"
    found = {path.stem: set(path.read_text("utf-8").split(", ")) for path in root.glob("*.txt")}
    assert found.keys() == truth.keys()
    hits = sum(len(found[name] & truth[name]) for name in truth)
    given, wanted = (sum(map(len, tags.values())) for tags in (found, truth))
    assert 2 * hits / (given + wanted) >= 0.95


def test_captions_are_written_through_the_journal_and_taken_back(tmp_path, models):
    root = tmp_path / "デ"
    flat(root / "1_a" / "one.png", 10, 250, 255, "sks")
    flat(root / "two.png", 200, 200, 20)
    flat(root / "grey.png", 0, 0, 0)
    made = drafted(root, models, mode="overwrite", general_threshold=0.5, character_threshold=0.5)
    facts = [described(proposal, root) for proposal in made.proposals]
    assert [(fact["about"], fact["before"], fact["after"]) for fact in facts] == [
        ("1_a/one.png", {"caption": "sks"}, {"caption": "red hair"}),
        ("grey.png", {"caption": ""}, {"caption": ""}),
        ("two.png", {"caption": ""}, {"caption": "kayoko (blue archive), red hair"}),
    ]
    kinds = {operation.path.name: operation.kind for operation in made.operations}
    assert kinds == {"one.txt": "replace", "two.txt": "write"} and made.text == "Tags: 2 of 3"
    assert [problem.message for problem in made.problems] == ["gets no tag: none reaches the threshold."]
    assert captions(root) == {"1_a/one.txt": "sks"}, "a draft changes nothing"
    applied(made)
    assert captions(root) == {"1_a/one.txt": "red hair", "two.txt": "kayoko (blue archive), red hair"}
    list(dataset_tools.undo(root))
    assert captions(root) == {"1_a/one.txt": "sks"}
    list(dataset_tools.redo(root))
    assert captions(root)["two.txt"] == "kayoko (blue archive), red hair"


@pytest.mark.parametrize(
    ("mode", "before", "after"),
    [
        ("overwrite", "sks, hat", "kayoko (blue archive), red hair"),
        ("if-empty", "sks, hat", "sks, hat"),
        ("if-empty", " \n ", "kayoko (blue archive), red hair"),
        ("append", "sks, hat", "sks, hat, kayoko (blue archive), red hair"),
        ("append", "sks,hat,Red_Hair, ", "sks,hat,Red_Hair, kayoko (blue archive)"),
        ("append", r"kayoko \(blue archive\), red hair", r"kayoko \(blue archive\), red hair"),
        ("prepend", "sks, hat", "kayoko (blue archive), red hair, sks, hat"),
        ("prepend", "sks ||| red hair", "kayoko (blue archive), sks ||| red hair"),
        ("append", "A girl stands, smiling.\nred hair", "A girl stands, smiling.\nred hair, kayoko (blue archive)"),
        ("prepend", "hat\nsks", "kayoko (blue archive), red hair, hat\nsks"),
        ("append", ",\n,", ",\nkayoko (blue archive), red hair"),
        ("prepend", "", "kayoko (blue archive), red hair"),
    ],
)
def test_what_becomes_of_captions_that_exist(tmp_path, models, mode, before, after):
    root = tmp_path / "data"
    flat(root / "a.png", 200, 200, 20, before)
    wish = {"mode": mode, "general_threshold": 0.5, "character_threshold": 0.5}
    made = drafted(root, models, **wish)
    if before == after:
        assert not made.operations
        return
    applied(made)
    assert captions(root) == {"a.txt": after}
    if mode != "overwrite":
        assert not drafted(root, models, **wish).operations, "a second time there is nothing to add"


def test_lines_that_are_alternatives_all_get_the_tags(tmp_path, models):
    root = tmp_path / "data"
    flat(root / "a.png", 0, 200, 0, "one\nred hair, two")
    data = settings(root)
    data = type(data)(**{**vars(data), "caption": type(data.caption)(wildcards=True)})
    applied(drafted(root, models, data=data, mode="append", general_threshold=0.5))
    assert captions(root) == {"a.txt": "one, red hair\nred hair, two"}


def test_old_encodings_are_read_written_as_utf8_and_told(tmp_path, models):
    root = tmp_path / "data"
    flat(root / "a.png", 0, 200, 0, "ミコリ、少女".encode("cp932"))
    flat(root / "b.png", 0, 200, 0, "ünïcode".encode("utf-16"))
    flat(root / "c.png", 0, 200, 0, b"\xff\x00\x81\x8d")
    made = drafted(root, models, mode="append", general_threshold=0.5)
    assert [each.path.name for each in made.operations] == ["a.txt", "b.txt"]
    told = {Path(problem.where).name: problem.message for problem in made.problems}
    assert "cp932" in told["a.png"] and "UTF-8" in told["a.png"]
    assert told["c.png"].startswith("is not tagged") and "b.png" not in told
    applied(made)
    assert (root / "a.txt").read_bytes() == "ミコリ、少女, red hair".encode()
    assert (root / "b.txt").read_bytes() == "ünïcode, red hair".encode()


def test_bad_pictures_are_named_and_the_others_tagged(tmp_path, models):
    root = tmp_path / "data"
    for number in range(5):
        flat(root / f"{number}.png", 0, 200, 0)
    (root / "1.png").write_bytes((root / "0.png").read_bytes()[:60])
    (root / "4.png").write_bytes(b"no picture")
    events, made = looked(root, models, batch=2)
    assert [each.path.name for each in made.operations] == ["0.txt", "2.txt", "3.txt"]
    assert sorted(Path(problem.where).name for problem in made.problems) == ["1.png", "4.png"]
    assert all("is not tagged" in problem.message for problem in made.problems)
    assert [event for event in events if isinstance(event, Phase)][-1].done == 5


def test_pictures_of_one_name_share_a_caption_that_is_written_once(tmp_path, models):
    root = tmp_path / "data"
    flat(root / "a.jpg", 0, 200, 0)
    flat(root / "a.png", 0, 0, 0)
    made = drafted(root, models, mode="overwrite", general_threshold=0.5)
    assert [each.path.name for each in made.operations] == ["a.txt"]
    assert "together with a.jpg" in made.problems[0].message and applied(made).reason == "done"


def test_the_caption_that_training_reads_is_the_one_that_is_changed(tmp_path, models):
    root = tmp_path / "data"
    flat(root / "a.png", 0, 200, 0)
    (root / "a.caption").write_text("sks", encoding="utf-8")
    applied(drafted(root, models, mode="append", general_threshold=0.5))
    assert (root / "a.caption").read_text("utf-8") == "sks, red hair" and not (root / "a.txt").exists()


def test_turned_and_transparent_pictures_are_seen_as_training_sees_them(tmp_path, models):
    root = tmp_path / "data"
    picture(root / "clear.png", (9, 1), caption=None, mode="RGBA")
    Image.new("RGBA", (16, 16), (255, 0, 0, 0)).save(root / "clear.png")
    looked(root, models)
    said = tag_jobs.kept_scores(root).of(root / "clear.png")[0]
    # Fully transparent red is white: blue, green and red are 1.
    assert [*said.rating.values(), *said.general.values(), *said.character.values()] == pytest.approx([1, 1, 1])


class Watched:
    """The number of pictures that went through sessions, and how large the batches were."""

    def __init__(self, monkeypatch):
        self.batches, run = [], session.Session.run

        def watched(itself, batch):
            self.batches.append(len(batch))
            return run(itself, batch)

        monkeypatch.setattr(session.Session, "run", watched)


def test_scores_are_kept_so_that_nothing_is_looked_at_twice(tmp_path, models, monkeypatch):
    root, seen = tmp_path / "data", Watched(monkeypatch)
    for number in range(5):
        flat(root / f"{number}.png", 40 * number, 200, 10)
    first = drafted(root, models, mode="overwrite", batch=2)
    assert seen.batches == [2, 2, 1]
    monkeypatch.setattr(onnxruntime, "InferenceSession", None)  # would fail if it were opened
    again = drafted(root, models, mode="overwrite", batch=2)
    assert [each.after for each in again.proposals] == [each.after for each in first.proposals]
    assert len(seen.batches) == 3
    (root / "3.png").rename(root / "renamed.png")
    assert len(drafted(root, models, mode="overwrite").operations) == 5
    looser = drafted(root, models, mode="overwrite", general_threshold=0.9)
    assert all(not each.operations for each in looser.proposals)
    monkeypatch.undo()
    seen = Watched(monkeypatch)
    flat(root / "new.png", 1, 2, 3)
    drafted(root, models, mode="overwrite")
    assert seen.batches == [1]
    drafted(root, models, mode="overwrite", taggers=("bgr", "single"))
    assert seen.batches == [1] + [1] * 6, "another tagger looks at all, as its fixed batch has it"
    assert {said.model for said in tag_jobs.kept_scores(root).of(root / "0.png")} == {"bgr", "single"}


def test_contents_are_read_once_while_they_stay_as_they_are(tmp_path, monkeypatch):
    path, read = tmp_path / "a.png", []
    flat(path, 1, 2, 3)
    monkeypatch.setattr(tag_digests, "sha256", lambda path: (read.append(path), sha256(path))[1])
    assert tag_digests.digest(path) == tag_digests.digest(path) == sha256(path)
    assert len(read) == 2, "a file that was just written may change without its time showing it"
    monkeypatch.setattr(tag_digests.time, "time", lambda: path.stat().st_mtime + 60)
    assert tag_digests.digest(path) == tag_digests.digest(path) == sha256(path) and len(read) == 3
    flat(path, 3, 2, 1)
    assert tag_digests.digest(path) == sha256(path) and len(read) == 4
    with pytest.raises(DataError, match=r"absent.png: cannot be read: No such file"):
        tag_digests.digest(tmp_path / "absent.png")


def test_threads_prepare_the_next_batch_while_one_is_computed(tmp_path, models, monkeypatch):
    root, told, counts = tmp_path / "data", threading.Condition(), {"prepared": 0, "computed": 0}
    for number in range(13):
        flat(root / f"{number:02d}.png", 15 * number, 200, 10)
    prepare, run = tag_jobs.prepared, session.Session.run

    def prepared(image, layout):
        made = prepare(image, layout)
        with told:
            counts["prepared"] += 1
            told.notify_all()
        return made

    def computed(itself, batch):
        counts["computed"] += len(batch)
        wanted = min(counts["computed"] + 3, 13)
        with told:
            assert told.wait_for(lambda: counts["prepared"] >= wanted, timeout=20), "nobody prepares the next batch"
        return run(itself, batch)

    monkeypatch.setattr(tag_jobs, "prepared", prepared)
    monkeypatch.setattr(session.Session, "run", computed)
    assert len(drafted(root, models, mode="overwrite", batch=3).proposals) == counts["computed"] == 13


def test_two_taggers_are_united_or_intersected(tmp_path, models):
    root = tmp_path / "data"
    flat(root / "a.png", 200, 200, 20)
    wish = {"taggers": ("bgr", "single"), "general_threshold": 0.5, "character_threshold": 0.5}
    made = drafted(root, models, **wish)
    assert made.proposals[0].after["caption"] == "kayoko (blue archive), hat, red hair"
    assert drafted(root, models, **wish, combine="intersection").proposals[0].after == made.proposals[0].after


def test_only_empty_captions_are_looked_at_when_only_these_are_written(tmp_path, models, monkeypatch):
    root, seen = tmp_path / "data", Watched(monkeypatch)
    flat(root / "a.png", 0, 200, 0, "sks")
    flat(root / "b.png", 0, 200, 0, "")
    events, made = looked(root, models)
    assert seen.batches == [1] and [each.about.name for each in made.proposals] == ["b.png"]
    assert Note("note", "1 pictures have captions, which stay as they are.") in events
    applied(made)
    assert looked(root, models)[1].proposals == ()


def test_chosen_pictures_alone_are_looked_at(tmp_path, models, monkeypatch):
    root, seen = tmp_path / "data", Watched(monkeypatch)
    paths = [flat(root / f"{number}.png", 0, 200, number) for number in range(3)]
    made = looked(root, models, only=(paths[1],))[1]
    assert seen.batches == [1] and [each.about for each in made.proposals] == [paths[1]]


def test_a_stop_keeps_what_was_looked_at(tmp_path, models, monkeypatch):
    root, seen, control = tmp_path / "data", Watched(monkeypatch), Control()
    for number in range(9):
        flat(root / f"{number}.png", 20 * number, 200, 10)
    wish = TagOptions(taggers=(str(models / "bgr"),), device="cpu", batch=2)
    events = []
    for event in tag_jobs.draft(Request(settings(root), wish), Place(models), control):
        events.append(event)
        if isinstance(event, Phase) and event.name == "tagging with bgr" and event.done == 4:
            control.ask("stop")
    assert events[-1] == Finished("stopped", 0, (), 0.0) and seen.batches == [2, 2]
    looked(root, models, batch=2)
    assert sum(seen.batches) == 9


def test_whoever_goes_away_meanwhile_leaves_no_session_and_loses_no_scores(tmp_path, models, monkeypatch):
    root, seen, closed = tmp_path / "data", Watched(monkeypatch), []
    for number in range(6):
        flat(root / f"{number}.png", 20 * number, 200, 10)
    close = session.Session.close
    monkeypatch.setattr(session.Session, "close", lambda it: (closed.append(it), close(it))[1])
    wish = TagOptions(taggers=(str(models / "bgr"),), device="cpu", batch=2)
    events = tag_jobs.draft(Request(settings(root), wish), Place(models), Control())
    while seen.batches != [2]:
        next(events)
    events.close()
    assert len(closed) == 1
    looked(root, models, batch=2)
    assert sum(seen.batches) == 6


@pytest.mark.filterwarnings("ignore:Specified provider")  # onnxruntime's own words for what is simulated here
def test_the_lock_is_held_on_a_gpu_only(tmp_path, models, monkeypatch):
    root, story = tmp_path / "data", []
    flat(root / "a.png", 0, 200, 0)

    @contextmanager
    def turn():
        story.append("taken")
        yield
        story.append("given back")

    looked(root, models, turn=turn)
    assert story == []
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", session.CPU])
    close, run = session.Session.close, session.Session.run
    monkeypatch.setattr(session.Session, "close", lambda it: (story.append("closed"), close(it))[1])
    monkeypatch.setattr(session.Session, "run", lambda it, batch: (story.append("run"), run(it, batch))[1])
    flat(root / "a.png", 0, 200, 1)
    events, _ = looked(root, models, turn=turn, device="auto")
    assert story == ["taken", "given back", "run", "closed"], "it fell back to the CPU, so others may go on"
    assert any(isinstance(event, Note) and "runs on the CPU" in event.text for event in events)
    monkeypatch.setattr(session.Session, "on_gpu", True)
    flat(root / "a.png", 0, 200, 2)
    story.clear()
    looked(root, models, turn=turn, device="auto")
    assert story == ["taken", "run", "closed", "given back"]


def test_scores_that_cannot_be_kept_are_told_and_the_captions_made(tmp_path, models):
    root = tmp_path / "data"
    flat(root / "a.png", 0, 200, 0)
    (root / ".lora-trainer").mkdir()
    (root / ".lora-trainer" / "scores").write_text("in the way")
    events, made = looked(root, models)
    told = [event.text for event in events if isinstance(event, Note) and event.severity == "warning"]
    assert len(told) == 1 and "the scores cannot be kept" in told[0] and made.operations


def test_mistakes_are_told_before_anything_is_looked_at(tmp_path, models):
    root = tmp_path / "data"
    root.mkdir()
    with pytest.raises(DataError, match="contains no pictures"):
        looked(root, models)
    flat(root / "a.png", 0, 0, 0)
    with pytest.raises(ProblemsFound, match=r"exclude\[0\]"):
        looked(root, models, exclude=("/(/",))
    wish = TagOptions(taggers=("wd-vit-tagger-v3", "SmilingWolf/wd-v1-4-vit-tagger"))
    with pytest.raises(UserError, match="wd-vit-tagger-v3, SmilingWolf/wd-v1-4-vit-tagger: not on this machine"):
        list(tag_jobs.draft(Request(settings(root), wish), Place(models), Control()))


def test_the_catalogue_says_what_is_there(tmp_path, models):
    tagger(tmp_path / "others" / "SmilingWolf_wd-vit-tagger-v3")
    listed = dict(tag_jobs.catalogue(Place(models, (tmp_path / "others",))))
    there = {model.name: found for model, found in listed.items() if found is not None}
    assert list(there) == ["wd-vit-tagger-v3"] and np.isclose(there["wd-vit-tagger-v3"].about.general, 0.2614)
