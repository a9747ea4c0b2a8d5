"""Every file of a corpus of bad and odd ones is counted once, named, and stops nothing."""

import os
import warnings
from pathlib import Path

import pytest
from PIL import Image

import bad_files
from lib_lora_trainer.config.data import DataConfig, SourceConfig
from lib_lora_trainer.dataset import caption_files, endings, readings
from lib_lora_trainer.dataset.entries import printable
from lib_lora_trainer.dataset.formats import FORMATS, readable_extensions
from lib_lora_trainer.dataset.masks import load_mask
from lib_lora_trainer.dataset.pixels import open_upright
from lib_lora_trainer.dataset.scan import scan
from lib_lora_trainer.dataset.thumbnails import thumbnail, thumbnails

DEPTHS = ("headers", "whole")
SEEN_WHOLE_ONLY = {"flipped byte.png", "no data.png"}  # well formed outside, broken inside
TRANSPARENT = "which become white"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus") / "set"
    return root, bad_files.make(root)


def look(root, depth="whole", **options):
    return scan(DataConfig(sources=(SourceConfig(str(root)),), resolution=64), ("sks",), depth=depth, **options)


def shown(root, path):
    return printable(path.relative_to(root)).replace(os.sep, "/")


def test_the_corpus_is_large_enough(corpus):
    _, cases = corpus
    assert len(cases) >= 60
    assert len({case.name for case in cases}) == len(cases)
    assert {case.fate for case in cases} == {"used", "left out", "ignored"}


@pytest.mark.parametrize("depth", DEPTHS)
def test_each_file_has_its_fate_and_the_totals_add_up(corpus, depth):
    root, cases = corpus
    found = look(root, depth)
    used = {shown(root, item.path): (item.width, item.height) for item in found.items}
    skipped = [shown(root, path) for path in found.skipped]
    allowed = SEEN_WHOLE_ONLY if depth == "headers" else set()
    for case in cases:
        was_used = case.name in used
        was_skipped = any(name.startswith(case.name) for name in skipped)
        if case.name in allowed:
            assert was_used != was_skipped
            continue
        assert (case.name, was_used, was_skipped) == (case.name, case.fate == "used", case.fate == "left out")
        assert not was_used or used[case.name] == case.size
    pictures = sum(case.fate != "ignored" for case in cases)
    assert len(used) == len(found.items) and len(set(skipped)) == len(skipped)
    assert len(found.items) + len(found.skipped) == pictures
    assert sum(concept.images for concept in found.concepts) == len(found.items)


@pytest.mark.parametrize("depth", DEPTHS)
def test_each_file_left_out_is_named_in_one_problem(corpus, depth):
    root, cases = corpus
    found = look(root, depth)
    for path in found.skipped:
        about = [p for p in found.problems if p.where == printable(path) or path.name in p.fix.split(": ")[-1]]
        assert len(about) == 1, (path, about)
        (problem,) = about
        assert "left out" in problem.message and problem.fix
        case = next(case for case in cases if shown(root, path).startswith(case.name))
        assert case.said in problem.message
    about_files = [p.where for p in found.problems if p.where.startswith(str(root))]
    assert len(set(about_files)) == len(about_files)
    for problem in found.problems:
        str(problem).encode("utf-8")
        assert problem.severity != "error"


def test_what_is_odd_about_used_pictures_is_said(corpus, monkeypatch):
    root, cases = corpus
    notes = [problem.message for problem in look(root).problems if problem.where == "data.sources[0].path"]
    for case in cases:
        if case.fate == "used" and case.said:
            assert sum(case.said in note for note in notes) == 1, case
    for said in {case.said for case in cases if case.fate == "used" and case.said}:
        count = sum(case.said == said for case in cases if case.fate == "used")
        (note,) = [note for note in notes if said in note]
        assert note.startswith(f"{count} of "), note
    monkeypatch.setattr(readings, "_readings", readings.Readings())  # nothing is known from another scan
    headers = " ".join(problem.message for problem in look(root, "headers").problems)
    assert TRANSPARENT not in headers  # only decoding tells


def test_each_file_alone_says_the_same(corpus, tmp_path):
    """One bad file of each kind is found whatever lies beside it."""
    root, cases = corpus
    for number, case in enumerate(cases):
        source = root / case.name
        if "/" in case.name or source.is_symlink() or not source.is_file():
            continue
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / case.name).write_bytes(source.read_bytes())
        found = look(folder)
        assert len(found.items) == (case.fate == "used"), case
        assert len(found.skipped) == (case.fate == "left out"), case
        if not found.items:
            assert [problem.severity for problem in found.problems].count("error") == 1, (case, found.problems)


def test_used_pictures_can_be_trained_on(corpus):
    root, cases = corpus
    found = look(root)
    for item in found.items:
        assert open_upright(item.path).size == (item.width, item.height)
        assert load_mask(item._replace(mask=None), False, None) is None
    assert len(found.items) == sum(case.fate == "used" for case in cases)


def test_a_picture_is_decoded_once_while_its_file_stays_as_it_is(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    bad_files.photo().save(path)
    read, inspect = [], readings.inspect
    monkeypatch.setattr(readings, "_readings", readings.Readings())
    monkeypatch.setattr(readings, "inspect", lambda path, depth: read.append(depth) or inspect(path, depth))
    for _ in range(2):
        look(tmp_path)
    assert read == ["whole", "whole"]  # written a moment ago: another change might not show in its date
    clock = endings.time.time
    monkeypatch.setattr(endings.time, "time", lambda: clock() + 60)
    read.clear()
    for depth in ("headers", "headers", "whole", "headers", "whole"):
        assert len(look(tmp_path, depth).items) == 1
    assert read == ["headers", "whole"]
    path.write_bytes(path.read_bytes()[:-300])
    assert look(tmp_path, "headers").items == ()


def test_copies_are_named_if_that_is_asked_for(tmp_path):
    for name in ("a.png", "b.png", "more/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        bad_files.photo().save(tmp_path / name)
    bad_files.photo(seed=1).save(tmp_path / "other.png")
    bad_files.photo(seed=1).save(tmp_path / "retold.png")
    (tmp_path / "retold.txt").write_text("another caption")
    assert "same content" not in " ".join(problem.message for problem in look(tmp_path).problems)
    told = [(p.severity, p.message) for p in look(tmp_path, name_copies=True).problems if "same content" in p.message]
    names = "b.png = a.png, more/a.png = "
    assert told[0][0] == "warning" and told[0][1].startswith(
        f"2 pictures have the same content and caption as another and count again: {names}"
    )
    assert told[1] == (
        "note",
        "1 picture has the same content as another with another caption: retold.png = other.png.",
    )
    assert len(look(tmp_path, name_copies=True).items) == 5  # they are used all the same


@pytest.mark.parametrize("depth", DEPTHS)
def test_captions_of_every_kind(tmp_path, monkeypatch, depth):
    monkeypatch.setattr(caption_files.locale, "getpreferredencoding", lambda _set: "UTF-8")
    for stem, data, _, _ in bad_files.CAPTIONS:
        bad_files.photo().save(tmp_path / f"{stem}.png")
        if data is not None:
            (tmp_path / f"{stem}.txt").write_bytes(data)
    (tmp_path / "orphan.txt").write_text("x")
    (tmp_path / "folder.txt").mkdir()
    bad_files.photo().save(tmp_path / "folder.png")
    found = look(tmp_path, depth)
    captions = {item.path.stem: item.caption for item in found.items}
    assert captions == {stem: caption for stem, _, caption, _ in bad_files.CAPTIONS} | {"folder": "sks"}
    for stem, _, _, said in bad_files.CAPTIONS:
        own = [p.message for p in found.problems if p.where == str(tmp_path / f"{stem}.txt")]
        listed = [p.message for p in found.problems if p.where == "data.sources[0].path" and f"{stem}.png" in p.message]
        assert len(own) + len(listed) == (said != ""), stem
        assert not said or said in (own + listed)[0]
    assert sum("belong to no picture" in p.message and "orphan.txt" in p.message for p in found.problems) == 1


def test_files_and_folders_that_may_not_be_read(tmp_path, monkeypatch):
    for name in ("a.png", "closed.png", "shut/b.png", "bad disk.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        bad_files.photo().save(path)
    real_scandir, real_inspect = os.scandir, readings.inspect

    def scandir(path):
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied")
        return real_scandir(path)

    def inspect(path, depth):
        if path.name == "closed.png":
            raise PermissionError(13, "Permission denied")
        if path.name == "bad disk.png":
            raise OSError(5, "Input/output error")
        return real_inspect(path, depth)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(readings, "inspect", inspect)
    found = look(tmp_path)
    assert [item.path.name for item in found.items] == ["a.png"]
    assert [
        (p.severity, Path(p.where).name, p.message) for p in found.problems if p.where.startswith(str(tmp_path))
    ] == [
        ("error", "shut", "cannot be read: Permission denied."),
        ("warning", "bad disk.png", "cannot be read: Input/output error. It is left out."),
        ("warning", "closed.png", "cannot be opened: permission denied. It is left out."),
    ]
    assert len(found.items) + len(found.skipped) == 3


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a system and a user that permissions bind")
def test_permissions_that_really_bind(tmp_path):
    bad_files.photo().save(tmp_path / "closed.png")
    (tmp_path / "closed.png").chmod(0)
    assert "permission denied" in look(tmp_path).problems[0].message


def test_warnings_turned_into_errors_by_a_host_are_a_named_problem(tmp_path):
    """Pillow warns of half the size that it refuses; its manual suggests making an error of that."""
    row = bytes(1 + 3 * 12_000)
    data = bad_files.png_header(12_000, 9_000)
    (tmp_path / "large.png").write_bytes(data + bad_files.chunk(b"IDAT", row) + bad_files.chunk(b"IEND", b""))
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        found = look(tmp_path, "headers")
    assert len(found.skipped) == 1
    assert "million pixels" in found.problems[0].message


def test_formats_of_plugins_are_read_or_named(tmp_path):
    for extension in (".avif", ".jxl"):
        name = FORMATS[extension][0]
        if extension in readable_extensions():
            bad_files.photo((64, 64)).save(tmp_path / f"good{extension}", name)
        (tmp_path / f"bad{extension}").write_bytes(b"\x00\x00\x00\x1cftypavif" + bytes(64))
    found = look(tmp_path)
    assert {path.stem for path in found.skipped} == {"bad"} and len(found.skipped) == 2
    assert len(found.items) == len({".avif", ".jxl"} & readable_extensions())


def test_thumbnails_are_kept_by_content_and_come_in_order(tmp_path):
    folder, cache = tmp_path / "set", tmp_path / "cache"
    bad_files.make(folder)
    for number in range(30):
        bad_files.photo(seed=number).save(folder / f"page {number:02d}.png")
    (folder / "page 07.png").write_bytes(b"no picture")
    page = sorted(folder.glob("page *.png"))
    made = list(thumbnails(page, cache))
    assert [isinstance(each, Path) for each in made] == [path.name != "page 07.png" for path in page]
    assert "page 07.png" in str(made[7])
    assert len({each for each in made if isinstance(each, Path)}) == 29
    count = len(list(cache.iterdir()))
    (folder / "moved").mkdir()
    page[3].rename(folder / "moved" / "renamed.png")
    (folder / "again.png").write_bytes(page[4].read_bytes())
    assert thumbnail(folder / "moved" / "renamed.png", cache) == made[3]
    assert thumbnail(folder / "again.png", cache) == made[4]
    assert len(list(cache.iterdir())) == count
    everything = sorted(path for path in folder.rglob("*.*") if path.is_file())
    assert len(list(thumbnails(everything, cache, 32))) == len(everything)
    first = next(thumbnails(page, cache))  # a page that is left early leaves nothing half done
    assert first == made[0] and not list(cache.glob(".writing-*"))
