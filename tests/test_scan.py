"""What a scan finds in folders as people really have them, and how it says what is wrong."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.config.data import CaptionConfig, DataConfig, SourceConfig
from lib_lora_trainer.dataset import caption_files, formats
from lib_lora_trainer.dataset.caption_files import find_caption, read_caption
from lib_lora_trainer.dataset.exif import ORIENTATION
from lib_lora_trainer.dataset.scan import scan

WHERE = "data.sources[0].path"


def picture(path, size=(64, 64), caption="sks, hat", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 100, 50)).save(path, **options)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def look(*folders, triggers=("sks",), **details):
    data = DataConfig(sources=tuple(SourceConfig(str(folder)) for folder in folders), resolution=64)
    return scan(replace(data, **details), triggers)


def told(found, severity=None):
    return [(p.where, p.message) for p in found.problems if severity in (None, p.severity)]


def concepts(found):
    return [(c.name, c.images, c.repeats, c.exposures) for c in found.concepts]


def test_one_picture(tmp_path):
    path = picture(tmp_path / "set" / "a.png", (80, 64))
    found = look(tmp_path / "set")
    (item,) = found.items
    assert (item.path, item.concept, item.repeats) == (path, "set", 1)
    assert (item.width, item.height) == (80, 64)
    assert (item.caption, item.caption_file) == ("sks, hat", path.with_suffix(".txt"))
    assert concepts(found) == [("set", 1, 1, 1)]
    assert found.problems == found.skipped == ()


def test_repeats_come_from_the_nearest_folder_name(tmp_path):
    for name in ("loose.png", "5_sks girl/a.png", "5_sks girl/b.png", "plain/c.png"):
        picture(tmp_path / "set" / name)
    for name in ("5_sks girl/closeup/d.png", "5_sks girl/2_far/e.png", "plain/3_/f.png", "10x/g.png"):
        picture(tmp_path / "set" / name)
    found = look(tmp_path / "set")
    assert concepts(found) == [
        ("set", 1, 1, 1),
        ("set/10x", 1, 1, 1),
        ("set/5_sks girl", 2, 5, 10),
        ("set/5_sks girl/2_far", 1, 2, 2),
        ("set/5_sks girl/closeup", 1, 5, 5),
        ("set/plain", 1, 1, 1),
        ("set/plain/3_", 1, 3, 3),
    ]
    assert [item.path for item in found.items] == sorted((tmp_path / "set").rglob("*.png"), key=lambda p: p.as_posix())
    repeats = {concept.name: concept.repeats for concept in found.concepts}
    assert all(item.repeats == repeats[item.concept] for item in found.items)
    assert found.problems == ()


def test_the_leaf_folder_itself_may_be_chosen(tmp_path):
    picture(tmp_path / "10_sks" / "a.png")
    assert concepts(look(tmp_path / "10_sks")) == [("10_sks", 1, 10, 10)]


def test_repeats_of_the_source_replace_those_of_names(tmp_path):
    picture(tmp_path / "10_sks" / "a.png")
    picture(tmp_path / "10_sks" / "4_b" / "a.png")
    data = DataConfig(sources=(SourceConfig(str(tmp_path / "10_sks"), repeats=3),), resolution=64)
    assert [concept.repeats for concept in scan(data, ()).concepts] == [3, 3]


def test_subfolders_only_if_wanted(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "sub" / "b.png")
    picture(tmp_path / "other" / "5_x" / "c.png")
    source = SourceConfig(str(tmp_path), recursive=False)
    assert [item.path.name for item in scan(DataConfig(sources=(source,), resolution=64), ()).items] == ["a.png"]
    source = SourceConfig(str(tmp_path / "other"), recursive=False)
    found = scan(DataConfig(sources=(source,), resolution=64), ())
    assert [(p.severity, p.where) for p in found.problems] == [("error", WHERE)]
    assert "switch subfolders on" in found.problems[0].fix


@pytest.mark.parametrize(
    ("name", "repeats", "said"),
    [("2024_summer", 2024, "makes 2024 repeats"), ("20240131_x", 1, "too large for repeats"), ("999_x", 999, None)],
)
def test_numbers_that_may_be_dates_are_pointed_out(tmp_path, name, repeats, said):
    picture(tmp_path / name / "a.png")
    found = look(tmp_path)
    assert [concept.repeats for concept in found.concepts] == [repeats]
    assert [p.severity for p in found.problems] == (["warning"] if said else [])
    assert said is None or said in found.problems[0].message


def test_zero_repeats_switch_a_folder_off(tmp_path):
    picture(tmp_path / "0_off" / "a.png")
    picture(tmp_path / "on" / "b.png")
    found = look(tmp_path)
    assert [item.path.name for item in found.items] == ["b.png"]
    assert "its pictures (1) are not used" in found.problems[0].message
    alone = look(tmp_path / "0_off")
    assert [p.severity for p in alone.problems] == ["warning", "error"]


@pytest.mark.parametrize(
    ("path", "message", "fix"),
    [
        ("", "is empty", "Choose the folder"),
        ("{}/missing", "missing does not exist.", "Choose an existing folder."),
        ('"{}/missing"', "is no folder's path", "Remove the quotation marks."),
        ("{}/file.txt", "file.txt is a file, not a folder.", "Choose "),
        ("{}/file.txt/x", "does not exist", "Choose"),
        ("{}/empty", "empty contains no pictures.", "Choose a folder with pictures ("),
        ("{}/loop", "cannot be read", "Grant access"),
        ("{}/nul\0", "cannot be read", "Grant access"),
    ],
)
def test_a_source_that_gives_nothing_is_one_error(tmp_path, path, message, fix):
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.md").write_text("x")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    found = look(path.format(tmp_path))
    (problem,) = found.problems
    assert (problem.severity, problem.where) == ("error", WHERE)
    assert message in problem.message
    assert problem.fix.startswith(fix)
    assert found.items == found.concepts == ()


def test_no_source_at_all_is_one_error():
    assert told(scan(DataConfig(), ()), "error") == [("data.sources", "is empty.")]


def test_broken_files_are_skipped_and_named(tmp_path, monkeypatch):
    good = picture(tmp_path / "good.png")
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:-300])
    (tmp_path / "empty.PNG").write_bytes(b"")
    (tmp_path / "text.webp").write_text("hello")
    (tmp_path / "lost.png").symlink_to(tmp_path / "nowhere.png")
    frames = [Image.new("L", (8, 8), shade) for shade in (0, 99)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "still.gif")
    (tmp_path / "phone.heic").write_bytes(b"x")
    Image.new("RGB", (200, 200)).save(tmp_path / "huge.bmp")
    monkeypatch.setattr(formats, "MAXIMUM_PIXELS", 39_999)
    found = look(tmp_path)
    assert [item.path for item in found.items] == [good, tmp_path / "still.gif"]
    expected = {
        "cut.jpg": "is damaged or incomplete: image file is truncated",
        "empty.PNG": "is empty (0 bytes)",
        "text.webp": "is not a picture",
        "lost.png": "links to nothing",
        "moving.gif": "is animated",
        "huge.bmp": "million pixels",
    }
    messages = {Path(where).name: text for where, text in told(found, "warning")}
    for name, text in expected.items():
        assert text in messages[name]
    assert (WHERE, "pictures in formats not read here (.heic) are left out, 1 in all.") in told(found, "warning")
    assert {path.name for path in found.skipped} == {*expected, "phone.heic"}
    assert told(found, "error") == []
    assert all(problem.fix for problem in found.problems if problem.severity != "note")


def test_only_broken_files_are_one_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "b.png").write_bytes(b"x")
    found = look(tmp_path)
    assert told(found, "error") == [("data.sources", "every picture found is left out, 2 in all.")]
    assert len(found.skipped) == 2


def test_litter_and_hidden_things_are_passed_over(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "._a.png").write_bytes(b"x")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "b.png").write_bytes(b"x")
    picture(tmp_path / ".thumbs" / "c.png")
    picture(tmp_path / ".hidden.png")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    found = look(tmp_path)
    assert [item.path.name for item in found.items] == ["a.png"]
    message = "what macOS leaves in archives (._*, __MACOSX) is ignored, 2 in all."
    assert told(found) == told(found, "note") == [(WHERE, message)]
    assert found.skipped == ()


def test_links_in_a_circle_end(tmp_path):
    picture(tmp_path / "set" / "z" / "a.png")
    (tmp_path / "set" / "z" / "up").symlink_to(tmp_path / "set", target_is_directory=True)
    (tmp_path / "set" / "again").symlink_to(tmp_path / "set" / "z", target_is_directory=True)
    (tmp_path / "set" / "self").symlink_to(tmp_path / "set" / "self")
    found = look(tmp_path / "set")
    assert concepts(found) == [("set/z", 1, 1, 1)]
    assert sorted(Path(where).name for where, _ in told(found, "note")) == ["again", "up"]
    assert told(found, "warning") == told(found, "error") == []


def test_a_pipe_named_like_a_picture_does_not_hang(tmp_path):
    picture(tmp_path / "a.png")
    if not hasattr(os, "mkfifo"):
        pytest.skip("no named pipes here")
    os.mkfifo(tmp_path / "b.png")
    assert len(look(tmp_path).items) == 1


def test_a_folder_that_may_not_be_read_is_an_error(tmp_path, monkeypatch):
    picture(tmp_path / "a.png")
    picture(tmp_path / "closed" / "b.png")
    real = os.scandir

    def guarded(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", guarded)
    found = look(tmp_path)
    assert told(found, "error") == [(str(tmp_path / "closed"), "cannot be read: Permission denied.")]
    assert len(found.items) == 1
    (only,) = look(tmp_path / "closed").problems
    assert only.severity == "error"


def test_the_same_folder_twice_counts_once(tmp_path):
    picture(tmp_path / "set" / "a.png")
    picture(tmp_path / "set" / "5_x" / "b.png")
    (tmp_path / "link").symlink_to(tmp_path / "set", target_is_directory=True)
    found = look(tmp_path / "set", tmp_path / "link", tmp_path / "set" / "5_x")
    assert concepts(found) == [("set", 1, 1, 1), ("set/5_x", 1, 5, 5)]
    assert told(found) == [
        ("data.sources[1].path", f"pictures counted under {WHERE} already are not counted again, 2 in all."),
        ("data.sources[2].path", f"pictures counted under {WHERE} already are not counted again, 1 in all."),
    ]
    assert {p.severity for p in found.problems} == {"warning"}


def test_a_second_source_adds_what_the_first_left_out(tmp_path):
    picture(tmp_path / "set" / "a.png")
    picture(tmp_path / "set" / "sub" / "b.png")
    sources = (SourceConfig(str(tmp_path / "set"), recursive=False), SourceConfig(str(tmp_path / "set")))
    found = scan(DataConfig(sources=sources, resolution=64), ())
    assert concepts(found) == [("set", 1, 1, 1), ("set/sub", 1, 1, 1)]


def test_equal_folder_names_of_two_sources_stay_apart(tmp_path):
    picture(tmp_path / "one" / "10_sks" / "a.png")
    picture(tmp_path / "two" / "10_sks" / "b.png")
    found = look(tmp_path / "one" / "10_sks", tmp_path / "two" / "10_sks")
    assert [concept.name for concept in found.concepts] == ["10_sks", "10_sks (2)"]
    assert [item.concept for item in found.items] == ["10_sks", "10_sks (2)"]


def test_names_in_any_script(tmp_path):
    picture(tmp_path / "3_猫 🐱" / "été ß.JPEG", caption="кот, 🐱")
    (item,) = look(tmp_path / "3_猫 🐱").items
    assert (item.concept, item.repeats, item.caption) == ("3_猫 🐱", 3, "кот, 🐱")


def test_names_that_are_no_unicode_are_left_out_with_a_printable_warning(tmp_path):
    picture(tmp_path / "a.png")
    try:
        os.link(tmp_path / "a.png", os.fsencode(tmp_path) + b"/caf\xe9.png")
    except OSError:
        pytest.skip("this file system keeps names in Unicode")
    found = look(tmp_path)
    assert len(found.items) == 1
    (problem,) = found.problems
    assert problem.message.startswith("its name is not valid Unicode")
    assert str(problem).encode("utf-8")


def test_turned_and_tiny_pictures(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 8
    picture(tmp_path / "turned.jpg", (80, 96), exif=exif)
    picture(tmp_path / "tiny.png", (1, 1))
    found = look(tmp_path)
    assert {item.path.name: (item.width, item.height) for item in found.items} == {
        "tiny.png": (1, 1),
        "turned.jpg": (96, 80),
    }
    message = "1 of 2 pictures have fewer pixels than 64×64 and will be enlarged: tiny.png."
    assert told(found) == [("data.resolution", message)]
    assert "will be trained at a smaller size" in look(tmp_path, no_upscale=True).problems[0].message


def test_a_picture_that_fills_its_bucket_is_not_called_too_small(tmp_path):
    picture(tmp_path / "exact.png", (576, 448))
    assert look(tmp_path, resolution=512).problems == ()
    picture(tmp_path / "near.png", (575, 448))
    assert look(tmp_path, resolution=512).problems[0].message.endswith("will be enlarged: near.png.")


def test_without_buckets_the_shorter_side_counts(tmp_path):
    picture(tmp_path / "flat.png", (1000, 40))
    assert look(tmp_path).problems == ()
    message = "1 of 1 pictures have a side shorter than 64 and will be enlarged: flat.png."
    assert told(look(tmp_path, bucket=False)) == [("data.resolution", message)]


def test_conversions_are_noted_with_count_and_names(tmp_path):
    for number in range(7):
        picture(tmp_path / f"{number}.jpg", format="PNG")
    Image.new("RGBA", (64, 64), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("CMYK", (64, 64)).save(tmp_path / "print.jpg")
    Image.fromarray(np.full((64, 64), 999, np.uint16)).save(tmp_path / "deep.png")
    found = look(tmp_path)
    misnamed = "7 of 10 pictures are of another format than their extension says, and are used: "
    assert told(found, "note") == [
        (WHERE, "1 of 10 pictures have transparent areas, which become white: clear.png."),
        (WHERE, "1 of 10 pictures are CMYK and are converted without their colour profile: print.jpg."),
        (WHERE, "1 of 10 pictures have 16 bits per channel and are reduced to 8: deep.png."),
        (WHERE, misnamed + "0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg and 2 more."),
    ]
    assert len(found.items) == 10


def test_missing_and_empty_captions_use_the_fallback(tmp_path):
    for number in range(6):
        picture(tmp_path / f"m{number}.png", caption=None)
    picture(tmp_path / "e.png", caption=" \n\n")
    picture(tmp_path / "good.png", caption="own")
    found = look(tmp_path, triggers=("sks", "girl"))
    captions = {item.path.name: (item.caption, item.caption_file) for item in found.items}
    assert captions["m0.png"] == ("sks, girl", None)
    assert captions["e.png"] == ("sks, girl", tmp_path / "e.txt")
    assert captions["good.png"][0] == "own"
    lacking = "6 of 8 pictures have no caption file and are trained with 'sks, girl': "
    assert told(found, "warning") == [
        (WHERE, lacking + "m0.png, m1.png, m2.png, m3.png, m4.png and 1 more."),
        (WHERE, "1 of 8 pictures have an empty caption file and are trained with 'sks, girl': e.png."),
    ]
    source = SourceConfig(str(tmp_path), fallback_caption="a cat")
    found = scan(DataConfig(sources=(source,), resolution=64), ("sks",))
    assert {item.caption for item in found.items} == {"a cat", "own"}
    found = look(tmp_path, triggers=())
    assert {item.caption for item in found.items} == {"", "own"}
    assert "are trained without any text" in told(found, "warning")[0][1]


def test_captions_without_a_picture_are_noted(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "b.txt").write_text("x")
    (tmp_path / "c.caption").write_text("x")
    (tmp_path / "broken.png").write_bytes(b"")
    (tmp_path / "broken.txt").write_text("x")
    (tmp_path / "d.json").write_text("x")
    message = "caption files that belong to no picture are ignored, 2 in all: b.txt, c.caption."
    assert told(look(tmp_path), "note") == [(WHERE, message)]


def test_the_first_extension_found_is_used(tmp_path):
    path = picture(tmp_path / "a.b.png", caption="from txt")
    (tmp_path / "a.b.caption").write_text("from caption")
    assert look(tmp_path).items[0].caption == "from txt"
    other = CaptionConfig(extensions=("caption", ".txt"))
    assert look(tmp_path, caption=other).items[0].caption == "from caption"
    assert find_caption(path, (".wd", ".txt")) == tmp_path / "a.b.txt"
    assert find_caption(path, (".wd",)) is None
    (tmp_path / "a.b.txt").rename(tmp_path / "a.b.TXT")
    assert find_caption(path, (".txt",)).read_text() == "from txt"


@pytest.mark.parametrize("extension", ["", ".", " ", "a/b", ".."])
def test_an_impossible_caption_extension_is_an_error(tmp_path, extension):
    picture(tmp_path / "a.png")
    found = look(tmp_path, caption=CaptionConfig(extensions=(extension, ".txt")))
    assert [where for where, _ in told(found, "error")] == ["data.caption.extensions[0]"]
    assert found.items[0].caption == "sks, hat"


@pytest.mark.parametrize(
    ("text", "saved", "read"),
    [
        ("sks, été", "utf-8", "utf-8"),
        ("sks, été", "utf-8-sig", "utf-8-sig"),
        ("sks, 猫", "utf-16", "utf-16"),
        ("sks, 猫", "utf-32", "utf-32"),
        ("sks, 帽子, リボン", "cp932", "cp932"),
        ("sks, été, naïve", "cp1252", "cp1252"),
        ("sks, Ärger", "cp1252", "cp1252"),  # also valid cp932: "sks, ﾄrger"
    ],
)
def test_encodings(tmp_path, monkeypatch, text, saved, read):
    monkeypatch.setattr(caption_files.locale, "getpreferredencoding", lambda _set: "UTF-8")
    (tmp_path / "a.txt").write_bytes(text.encode(saved))
    assert read_caption(tmp_path / "a.txt") == (text, read)


def test_the_systems_own_encoding_comes_before_guesses(tmp_path, monkeypatch):
    monkeypatch.setattr(caption_files.locale, "getpreferredencoding", lambda _set: "cp1251")
    (tmp_path / "a.txt").write_bytes("кот, шляпа".encode("cp1251"))
    assert read_caption(tmp_path / "a.txt") == ("кот, шляпа", "cp1251")


def test_guessed_encodings_are_warned_about_and_no_text_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(caption_files.locale, "getpreferredencoding", lambda _set: "UTF-8")
    guessed = picture(tmp_path / "a.png", caption=None).with_suffix(".txt")
    guessed.write_bytes(b"sks, \xe9t\xe9")
    broken = picture(tmp_path / "b.png", caption=None).with_suffix(".txt")
    broken.write_bytes(b"\xff\x81\x00")
    found = look(tmp_path)
    assert [item.caption for item in found.items] == ["sks, été", "sks"]
    assert told(found, "warning") == [(str(guessed), "is not UTF-8 and was read as cp1252: 'sks, été'.")]
    assert told(found, "error") == [
        (str(broken), "is no text in any known encoding. Save it as UTF-8, or remove it."),
    ]
    with pytest.raises(DataError, match=r"b\.txt: is no text"):
        read_caption(broken)
    with pytest.raises(DataError, match=r"gone\.txt: cannot be read"):
        read_caption(tmp_path / "gone.txt")


def test_utf_16_without_a_mark_is_refused_not_read_as_letters_with_gaps(tmp_path):
    (tmp_path / "a.txt").write_bytes("sks".encode("utf-16-le"))
    with pytest.raises(DataError, match=r"a\.txt"):
        read_caption(tmp_path / "a.txt")


def test_all_lines_count_joined_by_a_space(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"  A girl in the rain. \r\n\r\nShe  smiles,\nsoftly \n")
    assert read_caption(tmp_path / "a.txt")[0] == "A girl in the rain. She  smiles, softly"


def test_a_long_caption_is_read_to_its_end(tmp_path):
    text = ", ".join(f"tag {number}" for number in range(20_000))
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    assert read_caption(tmp_path / "a.txt") == (text, "utf-8")


def test_progress_counts_every_picture(tmp_path):
    for name in ("a.png", "sub/b.png"):
        picture(tmp_path / name)
    (tmp_path / "c.png").write_bytes(b"")
    seen = []
    data = DataConfig(sources=(SourceConfig(str(tmp_path)),), resolution=64)
    scan(data, (), lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_scan_is_deterministic(tmp_path):
    for name in ("b.png", "a.png", "5_x/c.png", "B/d.png", "ß/e.png"):
        picture(tmp_path / name, caption=None)
    assert look(tmp_path) == look(tmp_path)
