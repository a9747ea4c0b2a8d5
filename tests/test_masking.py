"""Masks that are drawn or generated: where they go, what is refused, what is installed, and that all of it comes back."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from commands import runner
from dying_files import tree
from lib_lora_trainer import installer
from lib_lora_trainer.app import dataset_tools, mask_packages, masking
from lib_lora_trainer.app.dataset_tools import Request
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError, DataError, UserError
from lib_lora_trainer.dataset.buckets import Bucket, Placement
from lib_lora_trainer.dataset.masks import load_mask
from lib_lora_trainer.dataset.scan import scan
from lib_lora_trainer.dataset.tools import kept
from lib_lora_trainer.dataset.tools.options import OPTIONS
from tool_cases import applied, drafted, names, noise, picture, run, settings, undo

WEBUI = dict.fromkeys(("numpy", "scipy", "scikit-image", "jsonschema", "tqdm", "onnxruntime", "opencv-python"), "1.0")


def disc(size=(64, 48), box=(10, 8, 50, 44)) -> Image.Image:
    """Return a mask of a rectangle."""
    grey = Image.new("L", size)
    grey.paste(255, box)
    return grey


@pytest.fixture
def root(tmp_path, quick):
    root = tmp_path / "set"
    picture(root / "a" / "one.png", (64, 48), seed=1)
    picture(root / "two.jpg", (48, 64), seed=2)
    (tmp_path / "masks").mkdir()
    return root


@pytest.fixture
def rembg(monkeypatch, tmp_path):
    """Put a package in rembg's place: its mask is where a picture's red is above the middle; it counts its work."""
    package = ModuleType("rembg")
    package.sessions, package.calls = [], 0

    def new_session(name):
        package.sessions.append(name)
        masking.model_file(name).parent.mkdir(parents=True, exist_ok=True)
        masking.model_file(name).write_bytes(b"a model")
        return f"session of {name}"

    def remove(image, session, only_mask):
        assert session == f"session of {package.sessions[-1]}" and only_mask and image.mode == "RGB"
        package.calls += 1
        return image.getchannel("R").point(lambda value: 255 if value > 127 else 0)

    package.new_session, package.remove = new_session, remove
    monkeypatch.setitem(sys.modules, "rembg", package)
    monkeypatch.setenv("U2NET_HOME", str(tmp_path / "models"))
    known = {**WEBUI, "pooch": "1", "pymatting": "1", "rembg": "2"}
    monkeypatch.setattr(installer, "list_installed", lambda: dict(known))
    return package


def test_a_drawn_mask_is_what_masked_loss_reads_and_can_be_taken_back(root, tmp_path):
    data = settings(root, tmp_path / "masks")
    before = tree(root), tree(tmp_path / "masks")
    path = root / "a" / "one.png"
    grey = disc().resize((32, 24), Image.Resampling.NEAREST)  # as the page's canvas may be smaller than the picture
    applied(masking.draft_drawn(Request(data), path, grey))
    assert names(tmp_path / "masks") == {"a/one.png"}
    found = scan(settings(root, tmp_path / "masks", bucket_minimum=64), ())
    (item,) = [each for each in found.items if each.path == path]
    placement = Placement(bucket=Bucket(64, 48), scaled=(64, 48), crop=(0, 0), original=(64, 48))
    learned = load_mask(item, False, placement)
    expected = np.asarray(grey.resize((64, 48), Image.Resampling.BILINEAR), np.float32)
    assert np.allclose(learned, expected.reshape(6, 8, 8, 8).mean(axis=(1, 3)) / 255) and 0 < learned.mean() < 1
    applied(masking.draft_drawn(Request(data), path, Image.new("L", (64, 48), 255)))
    assert Image.open(tmp_path / "masks" / "a" / "one.png").getextrema() == (255, 255)
    undo(root)
    undo(root)
    assert (tree(root), tree(tmp_path / "masks")) == before


def test_a_selection_does_not_make_a_name_unique(root, tmp_path):
    """A mask directly in the other folder belongs to nobody where two pictures have its name, whichever is selected."""
    data, other = settings(root, tmp_path / "masks"), tmp_path / "other"
    picture(root / "b" / "one.png", (64, 48), seed=3)
    disc().save(picture(other / "one.png", caption=None))
    disc((48, 64)).save(picture(other / "two.png", caption=None))
    wish = OPTIONS["mask-import"](folder=str(other))

    def imported(*paths):
        *_, made = dataset_tools.draft("mask-import", Request(data, wish, only=paths), Control())
        return [operation.path.name for operation in made.operations]

    assert imported(root / "a" / "one.png", root / "two.jpg") == ["two.png"]
    (root / "b" / "one.png").unlink()
    assert imported(root / "a" / "one.png") == ["one.png"]


def test_what_cannot_be_drawn_is_said(root, tmp_path):
    with pytest.raises(ConfigError, match="has no folder for masks"):
        masking.draft_drawn(Request(settings(root)), root / "two.jpg", disc())
    with pytest.raises(DataError, match="is no picture of this folder"):
        masking.draft_drawn(Request(settings(root, tmp_path / "masks")), tmp_path / "else.png", disc())
    assert masking.verdict(Image.new("L", (8, 8))).verdict == "black" and masking.verdict(disc()).verdict == "good"


def test_generated_masks_are_checked_written_and_made_once(root, tmp_path, rembg):
    Image.new("RGB", (40, 40), "black").save(root / "black.png")
    split = Image.new("RGB", (40, 40), "black")
    split.paste((255, 0, 0), (0, 0, 20, 40))
    split.save(root / "split.png")
    data, folder = settings(root, tmp_path / "masks"), tmp_path / "kept"
    with pytest.raises(UserError, match=r"the model isnet-anime \(176 MB"):
        masking.remover("isnet-anime", folder)
    rembg.new_session("isnet-anime")
    remover = masking.remover("isnet-anime", folder)
    disc().save(picture(tmp_path / "masks" / "two.png", caption=None))
    made = drafted("mask-generate", data, remover=remover)
    verdicts = {each.about.name: (each.before.get("verdict") or each.after.get("verdict")) for each in made.proposals}
    assert verdicts == {"black.png": "black", "split.png": "good", "one.png": "good", "two.jpg": None}
    assert ["black" in str(problem) for problem in made.problems] == [True]
    calls = rembg.calls
    applied(made)
    assert rembg.calls == calls == 3  # judged and written from one run of the model
    grey = Image.open(tmp_path / "masks" / "split.png")
    assert grey.mode == "L" and grey.getpixel((5, 5)) == 255 and grey.getpixel((30, 5)) == 0
    assert names(tmp_path / "masks") == {"a/one.png", "split.png", "two.png"}
    run("mask-generate", data, remover=remover, replace=True)
    made_of = Image.open(root / "two.jpg").convert("RGB")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "masks" / "two.png")), np.asarray(remover(made_of)))
    assert rembg.calls == 4  # that of the picture that had a mask
    kept.drop(folder)
    assert list(folder.iterdir()) == []


def test_kept_results_tell_pictures_sizes_and_names_apart(tmp_path):
    calls = []

    def enlarge(image, size):
        calls.append(size)
        return image.resize(size)

    one, two = noise((8, 8), 1), noise((8, 8), 2)
    first = kept.kept_upscaler(enlarge, "A", tmp_path)
    assert first(one, (16, 16)).tobytes() == first(one, (16, 16)).tobytes() == one.resize((16, 16)).tobytes()
    first(two, (16, 16))
    first(one, (24, 24))
    kept.kept_upscaler(enlarge, "B", tmp_path)(one, (16, 16))
    assert calls == [(16, 16), (16, 16), (24, 24), (16, 16)]


def test_what_is_missing_is_named_with_its_size_and_nothing_that_is_there():
    assert [str(package) for package in mask_packages.lacking(WEBUI)] == [
        "pooch==1.8.2", "pymatting==1.1.14", "rembg==2.0.67",
    ]  # fmt: skip
    assert mask_packages.lacking({**WEBUI, "pooch": "1", "pymatting": "1", "rembg": "2.0.50"}) == ()
    assert mask_packages.megabytes({**WEBUI, "numba": "0.60", "llvmlite": "0.43"}) == 1
    assert mask_packages.megabytes(WEBUI) == 46 and mask_packages.megabytes({}) > 150
    bare = [package.name for package in mask_packages.lacking({})]
    assert "opencv-python-headless" in bare and "onnxruntime" in bare and bare[-1] == "rembg"
    other = {**WEBUI, "opencv-contrib-python": "4"}
    del other["opencv-python"]
    assert all("opencv" not in package.name for package in mask_packages.lacking(other))


class Pip:
    """Stands in for pip: installs what it is asked for into a dictionary, or fails."""

    def __init__(self, installed, stderr=""):
        self.installed, self.stderr, self.calls, self.held = installed, stderr, [], []

    def __call__(self, command, **_):
        self.calls.append(command)
        with open(command[command.index("-c") + 1], encoding="utf-8") as file:  # noqa: PTH123
            self.held.append(file.read().splitlines())
        if not self.stderr:
            self.installed.update(part.split("==") for part in command if "==" in part)
        return subprocess.CompletedProcess(command, 1 if self.stderr else 0, "", self.stderr)


def test_what_is_missing_is_told_in_a_sentence(monkeypatch, rembg):
    monkeypatch.setattr(installer, "list_installed", lambda: {**WEBUI, "numba": "0.60", "llvmlite": "0.43"})
    assert masking.missing("u2netp") == (
        "pooch 1.8.2, pymatting 1.1.14, rembg 2.0.67 (about 1 MB) and the model u2netp (5 MB, from "
        "github.com/danielgatis/rembg)"
    )


def test_an_install_holds_all_that_is_there_and_rembg_comes_without_its_opencv(monkeypatch, rembg):
    installed = dict(WEBUI)
    monkeypatch.setattr(installer, "list_installed", lambda: dict(installed))
    pip = Pip(installed)
    monkeypatch.setattr(mask_packages.subprocess, "run", pip)
    said = list(masking.install("u2netp", Control()))
    parts, whole = pip.calls
    assert parts[-2:] == ["pooch==1.8.2", "pymatting==1.1.14"] and "--no-deps" not in parts
    assert whole[-1] == "rembg==2.0.67" and "--no-deps" in whole and not any("opencv" in part for part in whole)
    assert pip.held[0] == sorted(f"{name}=={version}" for name, version in WEBUI.items()) == pip.held[1]
    assert rembg.sessions == ["u2netp"] and said[-1].reason == "done"
    assert any("installed pooch 1.8.2" in getattr(event, "text", "") for event in said)


def test_an_install_that_fails_says_why(monkeypatch, rembg):
    monkeypatch.setattr(installer, "list_installed", lambda: dict(WEBUI))
    pip = Pip({}, "ERROR: No matching distribution found for pooch==1.8.2\n")
    monkeypatch.setattr(mask_packages.subprocess, "run", pip)
    heard = []
    with pytest.raises(UserError, match="could not be installed"):
        heard.extend(masking.install("u2netp", Control()))
    assert len(pip.calls) == 1 and not rembg.sessions
    lines = mask_packages.install({"COMMANDLINE_ARGS": "--skip-install"})
    assert len(pip.calls) == 1 and "rembg==2.0.67" in lines[0]


def test_a_model_that_cannot_be_fetched_says_where_it_belongs(monkeypatch, rembg):
    def unreachable(name):
        raise OSError("no route to host")

    rembg.new_session = unreachable
    with pytest.raises(UserError, match=r"no route to host.*put .*u2netp\.onnx there yourself"):
        list(masking.install("u2netp", Control()))
    with pytest.raises(ConfigError, match="is unknown"):
        masking._session("mine")


@pytest.fixture
def main(monkeypatch, capsys):
    return runner(monkeypatch, capsys, "dataset")


def test_the_command_makes_masks_and_takes_them_back(root, tmp_path, rembg, main):
    masks, before = tmp_path / "masks", tree(tmp_path)
    status, _, said = main("mask", root, "--masks", masks, "--generate", "--model", "silueta")
    assert status == 1 and "silueta (44 MB" in said and "--install" in said and tree(tmp_path) == before
    status, lines, _ = main("mask", root, "--masks", masks, "--install", "--model", "silueta")
    assert status == 0 and lines[0].startswith("note: Needs the model silueta") and rembg.sessions == ["silueta"]
    status, events, _ = main("mask", root, "--masks", masks, "--generate", "--model", "silueta", "--json")
    assert status == 0 and events[-1]["reason"] == "done" and names(masks) == {"a/one.png", "two.png"}
    assert main("undo", root)[0] == 0 and names(masks) == set()
    status, lines, _ = main("mask", root, "--masks", masks, "--generate", "--model", "silueta", "--dry-run")
    assert status == 0 and names(masks) == set() and any("Nothing was changed" in line for line in lines)
