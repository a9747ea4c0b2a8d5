"""Whatever lies in a folder, a scan ends, counts every picture once and says why one is left out."""

import io
import os
import shutil
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from lib_lora_trainer.config.data import DataConfig, SourceConfig
from lib_lora_trainer.dataset import endings, formats, readings
from lib_lora_trainer.dataset.entries import is_folder, printable
from lib_lora_trainer.dataset.formats import DECODER_ERRORS, FORMATS, OTHER_PICTURES, inspect, readable_extensions
from lib_lora_trainer.dataset.pixels import open_upright
from lib_lora_trainer.dataset.scan import scan

WRITTEN = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "BMP": ".bmp", "GIF": ".gif"}
PICTURES = frozenset(FORMATS) | OTHER_PICTURES


def real_files():
    """Return a small picture of each format as bytes, also with EXIF, alpha, a palette and frames."""
    noise = np.random.default_rng(5).integers(0, 256, (12, 16, 4), dtype=np.uint8)
    image = Image.fromarray(noise)
    exif = Image.Exif()
    exif[0x0112] = 6
    files = []
    for name in WRITTEN:
        for picture in (image.convert("RGB"), image.convert("P"), image):
            stream = io.BytesIO()
            options = {"exif": exif} if name in ("PNG", "JPEG", "WEBP") else {}
            frames = {"save_all": True, "append_images": [picture.rotate(90)]}
            moving = (name, picture.mode) in (("GIF", "P"), ("PNG", "RGBA"), ("WEBP", "RGBA"))
            try:
                picture.save(stream, name, **options, **(frames if moving else {}))
            except OSError:  # JPEG has no palette and no alpha
                continue
            files.append((name, stream.getvalue()))
    return files


REAL = real_files()


@contextmanager
def folder():
    path = Path(tempfile.mkdtemp())
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def look(root, depth):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's words about damaged EXIF data
        return scan(
            DataConfig(sources=(SourceConfig(str(root)),), resolution=64), ("sks",), depth=depth, name_copies=True
        )


def check(root, found, pictures):
    """Everything that holds for every scan."""
    assert len(found.items) + len(found.skipped) == pictures
    assert len({item.path for item in found.items}) == len(found.items)
    assert not {item.path for item in found.items} & set(found.skipped)
    for path in found.skipped:
        said = [p for p in found.problems if p.where == printable(path) or printable(path.name) in p.fix]
        in_folder = [p for p in found.problems if p.where == printable(path.parent)]
        assert said or in_folder, path
    for problem in found.problems:
        str(problem).encode("utf-8")
        assert problem.fix or problem.severity == "note"
    about_files = [p.where for p in found.problems if p.where.startswith(str(root) + os.sep)]
    assert len(set(about_files)) == len(about_files)
    for item in found.items:
        assert item.width > 0 and item.height > 0
        item.caption.encode("utf-8")


@st.composite
def damaged_files(draw):
    """Draw a real file with bytes changed, cut, repeated or appended, or random bytes behind a real header."""
    name, data = draw(st.sampled_from(REAL))
    how = draw(st.sampled_from(("cut", "flip", "tail", "splice", "append")))
    if how == "cut":
        data = data[: draw(st.integers(0, len(data)))]
    elif how == "tail":
        data = data[: draw(st.integers(0, 64))] + draw(st.binary(max_size=200))
    elif how == "append":
        data += draw(st.binary(max_size=50))
    elif how == "splice":
        start, end = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
        data = data[:start] + draw(st.binary(max_size=20)) + data[end:]
    else:
        changed = bytearray(data)
        for _ in range(draw(st.integers(1, 6))):
            changed[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
        data = bytes(changed)
    return name, data


@given(st.lists(damaged_files(), min_size=1, max_size=8), st.sampled_from(sorted(WRITTEN.values())))
@settings(max_examples=80)
def test_damaged_files_never_stop_a_scan(files, other):
    with folder() as root:
        for number, (name, data) in enumerate(files):
            (root / f"{number}{WRITTEN[name] if number % 2 else other}").write_bytes(data)
        headers, whole = look(root, "headers"), look(root, "whole")
        check(root, headers, len(files))
        check(root, whole, len(files))
        # What the whole scan lets pass can be trained on, and the quick one never refuses it.
        assert {item.path for item in whole.items} <= {item.path for item in headers.items}
        sizes = {item.path: (item.width, item.height) for item in headers.items}
        for item in whole.items:
            assert sizes[item.path] == (item.width, item.height)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert open_upright(item.path).size == (item.width, item.height)


def told(path):
    """Return what is in a picture, or the class and words of the error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return inspect(path, "headers")
        except DECODER_ERRORS as error:
            return type(error), str(error)


@given(st.one_of(damaged_files(), st.sampled_from(REAL)), st.integers(1, 700), st.binary(max_size=2000))
@settings(max_examples=200)
def test_a_head_of_any_length_tells_what_the_whole_file_tells(file, head, more):
    """Where the part read first ends, within the headers or behind them, changes nothing that is found."""
    name, data = file
    with folder() as root, pytest.MonkeyPatch.context() as patch:
        path = root / f"a{WRITTEN[name]}"
        path.write_bytes(data + more)
        patch.setattr(endings, "HEAD", head)
        found = told(path)
        patch.setattr(formats, "_in_head", lambda ends: None)
        assert told(path) == found


def test_headers_longer_than_the_head_are_read_from_the_file(monkeypatch):
    """A preview in the EXIF data, a long colour profile, many parameters: more than is read at first."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "x" * 40_000
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "x" * 90_000)
    kinds = {"a.jpg": {"exif": exif}, "b.jpg": {"icc_profile": bytes(150_000)}, "c.png": {"pnginfo": text}, "d.png": {}}
    from_head, seen = formats._in_head, []
    monkeypatch.setattr(formats, "_in_head", lambda ends: seen.append(from_head(ends)) or seen[-1])
    with folder() as root:
        for name, options in kinds.items():
            Image.fromarray(np.random.default_rng(1).integers(0, 256, (90, 120, 3), np.uint8)).save(
                root / name, **options
            )
        found = [inspect(root / name, "headers") for name in kinds]
    assert [(facts.width, facts.height) for facts in found] == [(90, 120), (120, 90), (120, 90), (120, 90)]
    assert [facts is None for facts in seen] == [True, True, True, False]
    assert not any(facts.decoded for facts in found)


def test_files_that_only_end_alike_are_no_copies():
    """Of pictures whose fingerprints are the same, the whole content decides."""
    with folder() as root:
        for number, colour in enumerate((1, 2, 1)):
            pixels = np.zeros((64, 64, 3), np.uint8)
            pixels[-1] = colour  # a BMP begins with the bottom row
            Image.fromarray(pixels).save(root / f"{number}.bmp")
        assert len({inspect(path, "headers").fingerprint for path in root.iterdir()}) == 1
        problems = [problem.message for problem in look(root, "headers").problems if "same content" in problem.message]
    assert problems == ["1 picture has the same content and caption as another and count again: 2.bmp = 0.bmp."]


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..") and len(name.encode()) < 200
)
STEMS = st.one_of(
    st.sampled_from(("a", "b", "10_x", "5_5", "0_off", "._a", "__MACOSX", "multiply", "猫", "-rf", "a_1_2_3_4", ".h")),
    NAMES,
)
ENDINGS = st.sampled_from((".png", ".PNG", ".jpg", ".webp", ".tif", ".avif", ".txt", ".caption", ".md", ""))
CONTENTS = st.one_of(st.sampled_from([data for _, data in REAL]), st.binary(max_size=40), st.sampled_from((b"", b"2")))


@st.composite
def trees(draw):
    """Draw what lies in a folder: (folders, name, content); None is a folder, a tuple a link to a place in the tree."""
    return draw(
        st.lists(
            st.tuples(
                st.lists(STEMS, max_size=2),
                st.tuples(STEMS, ENDINGS).map("".join),
                st.one_of(CONTENTS, CONTENTS, st.none(), st.tuples(st.sampled_from(("", "a", "a/b", "nowhere")))),
            ),
            max_size=12,
        )
    )


def plant(root, tree):
    """Make a tree as far as the file system takes it."""
    for parents, name, content in tree:
        path = root.joinpath(*parents, name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                path.mkdir(exist_ok=True)
            elif isinstance(content, tuple):
                path.symlink_to(root / content[0])
            elif not path.exists():
                path.write_bytes(content)
        except OSError:  # a name that is taken by a file, or that this file system refuses
            continue


def count_pictures(root):
    """Return how many picture files a scan has to account for, by walking the tree without it."""
    count, waiting, seen = 0, [root], set()
    while waiting:
        here = waiting.pop(0)
        if os.path.realpath(here) in seen:
            continue
        seen.add(os.path.realpath(here))
        inside = sorted(here.iterdir(), key=lambda path: (path.is_symlink(), path.name))
        for path in inside:
            if path.name.startswith(".") or path.name == "__MACOSX":
                continue
            if is_folder(path):
                waiting.append(path)
            else:
                count += path.suffix.lower() in PICTURES
    return count


@given(trees(), st.sampled_from(("headers", "whole")))
@settings(max_examples=80)
def test_any_tree_is_counted(tree, depth):
    with folder() as root:
        plant(root, tree)
        found = look(root, depth)
        check(root, found, count_pictures(root))
        assert [p for p in found.problems if p.severity == "error"] or found.items
        assert look(root, depth) == found


@given(st.binary(max_size=300))
@settings(max_examples=60)
def test_any_caption_is_text_or_a_named_problem(data):
    with folder() as root:
        Image.new("RGB", (8, 8)).save(root / "a.png")
        (root / "a.txt").write_bytes(data)
        found = look(root, "headers")
        check(root, found, 1)
        (item,) = found.items
        refused = [p for p in found.problems if p.where == str(root / "a.txt") and p.severity == "error"]
        assert item.caption_file == root / "a.txt"
        assert "\0" not in item.caption and item.caption == item.caption.strip() != ""
        assert not refused or item.caption == "sks"


@pytest.mark.parametrize("depth", ["headers", "whole"])
def test_what_progress_raises_ends_the_scan_at_once(tmp_path, depth, monkeypatch):
    class CalledOff(Exception):
        pass

    for number in range(600):
        Image.new("RGB", (8, 8), (number % 256, 0, 0)).save(tmp_path / f"{number}.png")
    read, inspect = [], readings.inspect
    monkeypatch.setattr(readings, "inspect", lambda path, depth: read.append(path) or inspect(path, depth))
    seen = []

    def progress(done, total):
        seen.append((done, total))
        if done == 5:
            raise CalledOff

    with pytest.raises(CalledOff):
        scan(DataConfig(sources=(SourceConfig(str(tmp_path)),), resolution=64), (), progress, depth)
    assert seen == [(done, 600) for done in range(1, 6)]
    assert len(read) < 600


@pytest.mark.parametrize(
    ("waits", "threaded"),
    [([0.0] * 29 + [2.0] * 3, False), ([0.0] * 12 + [0.002] * 20, True), ([0.0009] * 32, False)],
    ids=["a busy processor", "a slow disk", "a fast disk"],
)
def test_threads_read_headers_only_where_most_files_are_waited_for(monkeypatch, waits, threaded):
    clock, left = [0.0], iter(waits)
    timers = SimpleNamespace(perf_counter=lambda: clock[0], thread_time=lambda: 0.0)
    monkeypatch.setattr(readings, "time", timers)
    handed, paths = [], [Path(f"{number}.png") for number in range(100)]
    monkeypatch.setattr(
        readings.threads, "in_order", lambda read, rest, together: handed.extend(rest) or map(read, rest)
    )

    def read(path):
        clock[0] += next(left, 0)
        return path

    assert list(readings._in_order(read, paths, "headers")) == paths
    assert handed == (paths[32:] if threaded else [])


def test_every_error_a_decoder_may_raise_is_expected():
    """The list is one of classes and no catch-all: mistakes of the program itself are not taken for broken files."""
    assert not any(
        issubclass(error, DECODER_ERRORS) for error in (NameError, ImportError, KeyboardInterrupt, SystemExit)
    )
    assert readable_extensions() <= set(FORMATS)
