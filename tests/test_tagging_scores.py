"""Scores are kept by content, exactly, compactly and whole."""

from __future__ import annotations

import hashlib
from io import BytesIO

import numpy as np
import pytest

from lib_lora_trainer.dataset.digests import ContentDigests
from lib_lora_trainer.tagging import scores
from lib_lora_trainer.tagging.choose import largest_gap
from lib_lora_trainer.tagging.labels import CHARACTER, GENERAL, RATING, Label
from lib_lora_trainer.tagging.models import in_folder
from lib_lora_trainer.tagging.scores import FLOOR, Kept
from onnx_models import tagger

LABELS = (
    Label("general", RATING), Label("explicit", RATING), Label("hat", GENERAL), Label("髪", GENERAL),
    Label("rain", GENERAL), Label("snow", GENERAL), Label("rem (re:zero)", CHARACTER), Label("ram", CHARACTER),
)  # fmt: skip
ROW = np.array([0.9, 0.001, 0.3, 0.7, 0.009, 0.002, 0.005, 0.004], np.float32)


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


def kept(name="a", identity="0123456789abcdef", **pictures):
    made = Kept(name, identity, LABELS)
    for key, row in pictures.items():
        made.keep(digest(key), row)
    return made


def test_scores_come_back_as_the_model_gave_them_highest_first(tmp_path):
    scores.write(tmp_path, kept(one=ROW))
    found = scores.read(scores.path_of(tmp_path, "a", "0123456789abcdef"))
    assert found is not None and [label.name for label in found.labels] == [label.name for label in LABELS]
    said = found.scored(digest("one"))
    assert said is not None and said.model == "a"
    assert list(said.rating.items()) == [("general", float(ROW[0])), ("explicit", float(ROW[1]))]
    # Of what lies below the floor only the highest of each kind is kept.
    assert list(said.general.items()) == [("髪", float(ROW[3])), ("hat", float(ROW[2])), ("rain", float(ROW[4]))]
    assert said.character == {"rem (re:zero)": float(ROW[6])}
    assert found.scored(digest("another")) is None


def test_the_largest_gap_of_what_is_kept_is_that_of_everything():
    rng = np.random.default_rng(3)
    labels = tuple(Label(str(number), GENERAL) for number in range(2000))
    for _ in range(20):
        row = np.float32(rng.beta(0.05, 2, 2000))
        all_kept = Kept("a", "b", labels)
        all_kept.keep("d", row)
        said = all_kept.scored("d")
        assert said is not None and len(said.general) < 800
        assert largest_gap(said.general.values()) == pytest.approx(largest_gap(row.tolist()), abs=1e-9)


def test_a_renamed_picture_keeps_its_scores_and_a_changed_one_loses_them(tmp_path):
    picture = tmp_path / "a.png"
    picture.write_text("one")
    scores.write(tmp_path / "scores", kept("first", one=ROW))
    scores.write(tmp_path / "scores", kept("second", one=ROW[::-1].copy()))
    moved = picture.rename(tmp_path / "b.png")
    found = scores.load(tmp_path / "scores", ContentDigests().of).of(moved)
    assert {said.model for said in found} == {"first", "second"}
    moved.write_text("two")
    assert scores.load(tmp_path / "scores", ContentDigests().of).of(moved) == ()
    assert scores.load(tmp_path / "nothing", ContentDigests().of).kept == ()


def test_two_writers_keep_what_both_have_seen(tmp_path):
    scores.write(tmp_path, kept(one=ROW))
    scores.write(tmp_path, kept(two=ROW))
    found = scores.read(scores.path_of(tmp_path, "a", "0123456789abcdef"))
    assert found is not None and set(found.pictures) == {digest("one"), digest("two")}
    assert len(list(tmp_path.iterdir())) == 1


def test_damaged_or_foreign_files_count_as_absent(tmp_path):
    scores.write(tmp_path, kept(one=ROW))
    path = next(tmp_path.iterdir())
    whole = path.read_bytes()
    for broken in (b"", b"no zip", whole[:-40], whole[: len(whole) // 2]):
        path.write_bytes(broken)
        assert scores.read(path) is None and scores.load(tmp_path, digest).kept == ()
    with np.load(BytesIO(whole)) as file:
        content = dict(file)
    np.savez(path, **{**content, "about": np.frombuffer(b'{"version": 2, "tagger": "a", "identity": "b"}', np.uint8)})
    assert scores.read(path) is None
    np.savez(path, **{**content, "columns": content["columns"] + 100})
    assert scores.read(path) is None
    np.savez(path, **content)
    assert scores.read(path) is not None


def test_nothing_is_written_for_nothing_and_names_make_no_folders(tmp_path):
    scores.write(tmp_path, kept())
    assert not list(tmp_path.iterdir())
    scores.write(tmp_path, kept("../x: y/ü", one=ROW))
    assert [path.name for path in tmp_path.iterdir()] == [".._x_y_ü-0123456789ab.npz"]


def test_a_tagger_is_its_files(tmp_path):
    first, second = (in_folder(tagger(tmp_path / name)) for name in "ab")
    assert first is not None and second is not None and scores.identity(first) == scores.identity(second)
    second.tags.write_text(second.tags.read_text(encoding="utf-8").replace("red", "blue"), encoding="utf-8")
    assert scores.identity(first) != scores.identity(second)


def test_thousands_of_pictures_stay_small(tmp_path):
    labels = tuple(Label(f"tag number {number}", GENERAL) for number in range(10_861))
    many, rng = Kept("wd", "0" * 64, labels), np.random.default_rng(0)
    for number in range(300):
        row = np.zeros(10_861, np.float32)
        row[rng.integers(0, 10_861, 200)] = rng.random(200, np.float32)
        many.keep(digest(str(number)), row)
    scores.write(tmp_path, many)
    assert next(tmp_path.iterdir()).stat().st_size / 300 < 2_000, "5000 pictures take less than 10 MB"
    assert FLOOR == 0.01
