"""A tagger is found wherever a program has put it, and a text that is none is refused with a hint."""

from __future__ import annotations

import pytest

from lib_lora_trainer.base.errors import ConfigError, UserError
from lib_lora_trainer.tagging.models import GENERAL, find, known

NAME = "wd-vit-tagger-v3"


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """Keep the user's own cache out of it."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put(folder, model="model.onnx", tags="selected_tags.csv"):
    folder.mkdir(parents=True)
    (folder / model).touch()
    (folder / tags).touch()
    return folder


@pytest.mark.parametrize(
    "layout",
    [NAME, f"SmilingWolf_{NAME}", f"SmilingWolf/{NAME}", f"models--SmilingWolf--{NAME}/snapshots/0123abc"],
)
def test_a_known_tagger_is_found_in_every_programs_layout(tmp_path, layout):
    folder = put(tmp_path / "other" / layout)
    for wanted in (NAME, f"SmilingWolf/{NAME}"):
        found = find(wanted, [tmp_path / "ours", tmp_path / "other"])
        assert found is not None and found.model == folder / "model.onnx" and found.about == known(NAME)
    assert find(NAME, [tmp_path / "ours"]) is None


def test_the_hubs_own_cache_is_searched_and_ours_comes_first(tmp_path, cache):
    put(cache / f"models--SmilingWolf--{NAME}" / "snapshots" / "aa")
    found = find(NAME, [tmp_path])
    assert found is not None and cache in found.model.parents
    ours = put(tmp_path / NAME)
    found = find(NAME, [tmp_path])
    assert found is not None and found.model.parent == ours


def test_half_a_tagger_is_none(tmp_path):
    put(tmp_path / NAME)
    (tmp_path / NAME / "selected_tags.csv").unlink()
    assert find(NAME, [tmp_path]) is None


def test_any_folder_is_taken_and_known_by_its_name(tmp_path):
    own = find(str(put(tmp_path / "mein Tagger", "swin.onnx", "tags.csv")), [])
    assert own is not None and (own.about.name, own.about.general) == ("mein Tagger", GENERAL)
    named = find(str(put(tmp_path / f"SmilingWolf_{NAME}")), [])
    assert named is not None and named.about == known(NAME)


def test_what_is_no_tagger_is_refused_with_a_hint(tmp_path):
    with pytest.raises(ConfigError, match="'wd-vit-taggr-v3' is neither .* Did you mean wd-vit-tagger-v3"):
        find("wd-vit-taggr-v3", [])
    with pytest.raises(UserError, match="has no tagger"):
        find(str(tmp_path), [])
    two = put(tmp_path / "two", "a.onnx")
    (two / "b.onnx").touch()
    with pytest.raises(UserError, match="has no tagger"):
        find(str(two), [])
