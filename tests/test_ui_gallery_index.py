"""What the gallery knows of each picture, and what its filters let through."""

from pathlib import Path

import pytest

pytest.importorskip("gradio")

from PIL import Image

from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.config.data import DataConfig
from lib_lora_trainer.dataset.scan import scan
from lib_lora_trainer.ui import gallery_index
from lib_lora_trainer.ui.gallery_filter import Filter, filtered, from_mapping
from lib_lora_trainer.ui.gallery_index import Picture
from tool_cases import animation, applied, drafted, noise, picture, settings

TRIGGERS = ("sks",)


def known(data: DataConfig) -> dict[str, Picture]:
    """Return what the gallery knows, by file name."""
    found = scan(data, TRIGGERS, depth="headers")
    return {each.path.name: each for each in gallery_index.build(found, data, TRIGGERS)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one picture of each kind, all with the 64 × 64 pixels that are wanted unless their name says so."""
    root = tmp_path / "set"
    inside = root / "3_mikori"
    for number, (name, size) in enumerate((("good", (64, 64)), ("small", (48, 64)), ("tall", (64, 128)))):
        picture(inside / f"{name}.png", size, f"sks, {name}", seed=number)
    picture(inside / "silent.png", (64, 64), None, seed=10)
    picture(inside / "empty.png", (64, 64), " \n", seed=11)
    picture(inside / "trigger.png", (64, 64), "sks", seed=12)
    picture(inside / "latin.png", (64, 64), None, seed=13).with_suffix(".txt").write_bytes("sks, café".encode("cp1252"))
    picture(inside / "zcopy.png", (64, 64), "sks, again", seed=0)
    picture(inside / "renamed.jpg", (64, 64), "sks, renamed", seed=14, format="PNG")
    picture(root / "plain" / "cmyk.jpg", (64, 64), "sea", seed=15, mode="CMYK")
    (inside / "broken.png").write_bytes(b"no picture")
    animation(root / "plain" / "moving.gif")
    return root


def test_each_picture_has_the_flags_that_it_deserves(folder: Path) -> None:
    found = known(settings(folder))
    flags = {name: set(each.flags) for name, each in found.items() if each.state == "used"}
    assert flags == {
        "good.png": set(),
        "small.png": {"small"},
        "tall.png": set(),
        "silent.png": {"none"},
        "empty.png": {"empty"},
        "trigger.png": set(),
        "latin.png": {"encoding"},
        "zcopy.png": {"copy"},
        "renamed.jpg": {"format"},
        "cmyk.jpg": {"cmyk"},
    }
    assert {name: found[name].caption for name in ("good.png", "silent.png", "empty.png", "latin.png")} == {
        "good.png": "text", "silent.png": "none", "empty.png": "empty", "latin.png": "encoding",
    }  # fmt: skip
    assert "is not UTF-8" in found["latin.png"].told
    assert found["trigger.png"].caption == "text", "a caption of nothing but the trigger is one"


def test_a_picture_knows_its_bucket_folder_and_size(folder: Path) -> None:
    found = known(settings(folder))
    tall = found["tall.png"]
    assert (tall.width, tall.height, tall.folder, tall.source) == (64, 128, "set/3_mikori", 0)
    assert tall.bucket == "40×88", "of 64² pixels at most, in steps of 8, nearest to 1 : 2"
    assert found["good.png"].bucket == "64×64"
    assert found["cmyk.jpg"].folder == "set/plain"


def test_what_a_bucket_cuts_off_and_missing_faces_are_told(tmp_path: Path) -> None:
    picture(tmp_path / "wide.png", (256, 32))
    picture(tmp_path / "face_10_10_20_20.png", (64, 64), seed=1)
    found = known(settings(tmp_path, bucket=False, face_crop_minimum=1.0, face_crop_maximum=2.0))
    assert found["wide.png"].flags == {"small", "cut", "face"}
    assert found["face_10_10_20_20.png"].flags == set()


def test_impossible_buckets_do_not_hide_the_pictures(folder: Path) -> None:
    found = known(settings(folder, bucket_step=12))
    assert found["good.png"].state == "used"
    assert found["good.png"].bucket == ""


def test_what_is_left_out_excluded_or_removed_is_there_too(folder: Path) -> None:
    data = settings(folder)
    applied(drafted("files", data, action="exclude", files=("3_mikori/good.png",)))
    applied(drafted("files", data, action="remove", files=("3_mikori/tall.png",)))
    found = known(data)
    states = {name: found[name].state for name in ("broken.png", "moving.gif", "good.png", "tall.png", "small.png")}
    assert states == {
        "broken.png": "out", "moving.gif": "out", "good.png": "excluded", "tall.png": "removed", "small.png": "used",
    }  # fmt: skip
    assert "animated" in found["moving.gif"].told
    assert found["good.png"].folder == found["tall.png"].folder == "set/3_mikori"
    assert found["tall.png"].path == folder / "3_mikori" / "tall.png"
    with Image.open(found["tall.png"].file) as held:
        assert held.size == (64, 128)


def test_the_right_source_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "one" / "a.png")
    (tmp_path / "two" / "3_b").mkdir(parents=True)
    noise((64, 64)).save(tmp_path / "two" / "3_b" / "b.png")
    (tmp_path / "two" / "bad.png").write_bytes(b"")
    one, two = settings(tmp_path / "one"), settings(tmp_path / "two")
    found = known(DataConfig(sources=(*one.sources, *two.sources), resolution=64))
    assert {name: each.source for name, each in found.items()} == {"a.png": 0, "b.png": 1, "bad.png": 1}


def some(name: str, **about: object) -> Picture:
    path = Path("/set") / name
    return Picture(path, path, **{"state": "used", "source": 0, "folder": "set", **about})  # type: ignore[arg-type]


PICTURES = (
    some("a.png", width=100, height=50, bucket="64×32", caption="text", text="Sks, red Sky", folder="set/x"),
    some("b.png", width=60, height=60, bucket="64×64", caption="none", flags=frozenset({"none", "small"})),
    some("c.png", width=90, height=90, bucket="64×64", caption="text", flags=frozenset({"small"}), text="sea"),
    some("d.png", state="out"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({}, "abc"),
        ({"state": "out"}, "d"),
        ({"flags": ["small"]}, "bc"),
        ({"flags": ["small", "none"]}, "b"),
        ({"folder": "set/x"}, "a"),
        ({"bucket": "64×64"}, "bc"),
        ({"caption": "none"}, "b"),
        ({"text": "SKY red"}, "a"),
        ({"text": "C.PNG"}, "c"),
        ({"least": 60}, "bc"),
        ({"least": 51, "most": 89}, "b"),
        ({"bucket": "64×64", "text": "sea"}, "c"),
        ({"caption": "none", "text": "sea"}, ""),
    ],
)
def test_a_filter_lets_through_what_is_all_of_it(wanted: dict[str, object], names: str) -> None:
    found = filtered(PICTURES, from_mapping(wanted))
    assert "".join(each.path.stem for each in found.pictures) == names


def test_counts_say_what_each_further_choice_leaves() -> None:
    counts = filtered(PICTURES, Filter(flags=("small",), caption="none")).counts
    assert counts["state"] == {"used": 3, "out": 1}, "a state is chosen anew, without the other choices"
    assert counts["flags"] == {"small": 1, "none": 1}
    assert counts["caption"] == {"none": 1, "text": 1}, "another caption state in place of the chosen one"
    assert counts["bucket"] == {"64×64": 1}
    assert counts["folder"] == {"set": 1}


@pytest.mark.parametrize(
    "values",
    [{"state": "gone"}, {"flags": ["x"]}, {"caption": "x"}, {"least": "1"}, {"text": 1}, {"colour": "red"}],
)
def test_what_is_no_filter_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        from_mapping(values)
