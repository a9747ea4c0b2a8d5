"""Regularization images by the bundled checkpoint: which are made, that a killed run goes on, and what is never lost."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from dying_files import in_child
from fake_host import INFO
from lib_lora_trainer.app import reg_jobs
from lib_lora_trainer.app.reg_jobs import Request, as_source
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ProblemsFound, RunConflict
from lib_lora_trainer.base.events import Finished, Note, SampleMade
from lib_lora_trainer.config.data import SourceConfig
from lib_lora_trainer.config.regularization import RegularizationConfig, SourceMarks
from lib_lora_trainer.dataset.journal import Journal, history
from lib_lora_trainer.dataset.scan import scan
from lib_lora_trainer.dataset.views import views
from lib_lora_trainer.demo.run import CHECKPOINT
from lib_lora_trainer.hosts.api import ImageRequest, Needs
from lib_lora_trainer.hosts.standalone import StandaloneHost
from lib_lora_trainer.plan import checks
from reg_cases import QUICK, config, contents, dataset, drafted, generated
from tool_cases import picture


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    torch.set_num_threads(1)
    host = StandaloneHost(CHECKPOINT, tmp_path_factory.mktemp("adapters"), device="cpu")
    host.load()
    return host


@pytest.fixture(scope="module")
def whole(host, tmp_path_factory):
    """The folder of an uninterrupted run, and the dataset it belongs to."""
    folder = tmp_path_factory.mktemp("whole")
    root = dataset(folder / "train")
    events = generated(host, Request(config(root), QUICK, folder / "reg"))
    return root, folder / "reg", events


@pytest.fixture
def copy(whole, tmp_path):
    """A copy of that folder, to be changed, and the request that made it."""
    root, folder, _ = whole
    shutil.copytree(folder, tmp_path / "reg")
    return Request(config(root), QUICK, tmp_path / "reg")


def test_every_picture_has_an_image_of_its_name_caption_and_bucket(host, whole):
    _, folder, events = whole
    expected = {
        "train/mikori/one": ((96, 96), "1girl, red_hair, smile"),
        "train/mikori/two": ((64, 128), "1girl, red_hair, smile"),
        "train/mikori/three": ((128, 64), "1girl, hat (large)"),
        "train/other/four": ((96, 96), "forest, AND:2"),
    }
    found = contents(folder)
    numbers = {"train/mikori/multiply.txt": b"10\n", "train/other/multiply.txt": b"5\n"}
    assert set(found) == {*(f"{name}{end}" for name in expected for end in (".png", ".txt")), *numbers}
    for name, (size, caption) in expected.items():
        assert found[f"{name}.txt"].decode() == caption
        assert Image.open(folder / f"{name}.png").size == size
    assert {name: found[name] for name in numbers} == numbers
    made = [event for event in events if isinstance(event, SampleMade)]
    assert [os.path.relpath(event.path, folder)[:-4] for event in made] == sorted(expected)  # the pictures' order
    assert len({event.seed for event in made}) == 4
    same = [np.asarray(Image.open(folder / f"train/mikori/{name}.png").resize((64, 64))) for name in ("one", "two")]
    assert np.abs(same[0].astype(int) - same[1]).mean() > 5  # of equal captions
    assert isinstance(events[-1], Finished) and events[-1].reason == "done" and events[-1].step == 4


def test_an_image_is_what_the_base_model_makes_of_the_caption_at_that_seed(host, whole):
    _, folder, _ = whole
    path = folder / "train/mikori/three.png"
    with Image.open(path) as image:
        said, pixels = image.info["parameters"], np.asarray(image)
    seed = int(said.partition("Seed: ")[2].partition(",")[0])
    wanted = ImageRequest(r"1girl, hat \(large\)", "blurry, (bad:1.2)", seed, 2, 3.0, 128, 64, "Euler", 1)
    with host.lease(Needs()) as lease:
        (made,) = lease.generate([wanted])
    assert np.array_equal(np.asarray(made.image), pixels) and made.infotext == said
    assert said.startswith("1girl, hat \\(large\\)\nNegative prompt: blurry, (bad:1.2)\nSteps: 2, Sampler: Euler, ")


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_run_killed_again_and_again_makes_the_files_of_an_uninterrupted_one(host, whole, tmp_path):
    root, folder, _ = whole
    request = Request(config(root), QUICK, tmp_path / "reg")
    deaths = [("sync", 1), ("sync", 2), ("event", 4), ("sync", 3), ("half", 1), ("event", 9), ("sync", 2)]

    def dying(kind, count):
        left = iter(range(count - 1, -1, -1))

        def die_at_last(*_):
            if next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        if kind == "sync":  # content written, its name not given yet
            os.fsync = die_at_last
        if kind == "half":
            Image.Image.save = lambda self, path, **_: path.write_bytes(b"\x89PNG half") and die_at_last()
        for _ in reg_jobs.generate(host, request, Control()):
            if kind == "event":
                die_at_last()

    for death in deaths:
        assert in_child(lambda death=death: dying(*death)) == -signal.SIGKILL
    assert any(path.name.startswith(".writing-") for path in request.folder.rglob("*"))
    before = contents(request.folder)
    done = {name for name in before if name.endswith(".png") and not name.rpartition("/")[2].startswith(".")}
    assert 0 < len(done) < 4
    events = generated(host, request)
    assert len([event for event in events if isinstance(event, SampleMade)]) == 4 - len(done)
    assert contents(request.folder) == contents(folder)


def test_a_wish_to_stop_is_granted_between_images_and_the_next_run_goes_on(host, whole, tmp_path):
    root, folder, _ = whole
    request, control = Request(config(root), QUICK, tmp_path / "reg"), Control()
    events = []
    for event in reg_jobs.generate(host, request, control):
        events.append(event)
        if isinstance(event, SampleMade):
            control.ask("pause")
    assert events[-1].reason == "paused" and len(events[-1].files) == 1
    assert any(isinstance(event, Note) and "3 of 4 images are still to be made" in event.text for event in events)
    stream = reg_jobs.generate(host, request, Control())
    assert any(isinstance(event, SampleMade) for event in stream)
    stream.close()
    with host.lease(Needs()):
        pass  # free again
    generated(host, request)
    assert contents(request.folder) == contents(folder)
    again = generated(host, request)
    assert again[-1].reason == "done" and again[-1].files == () and contents(request.folder) == contents(folder)
    stopped = Control()
    stopped.ask("stop")
    assert [event.reason for event in generated(host, request, stopped) if isinstance(event, Finished)] == ["stopped"]


def test_an_image_nobody_waits_for_ends_between_two_steps(host):
    answers = [True, True, True, False]
    wanted = ImageRequest("1girl", steps=3, width=64, height=64, sampler="Euler")
    with host.lease(Needs()) as lease:
        made = list(lease.generate([wanted, replace(wanted, width=128, steps=9), wanted], lambda: answers.pop(0)))
        assert [image.request for image in made] == [wanted] and answers == []
        assert np.array_equal(np.asarray(next(lease.generate([wanted])).image), np.asarray(made[0].image))


def test_other_pictures_sources_and_their_order_change_no_image(host, whole, tmp_path):
    root, folder, _ = whole
    more = picture(tmp_path / "more" / "3_x" / "five.png", (96, 96), caption="mikori, dog").parent.parent
    later = shutil.copytree(root, tmp_path / "train")
    (later / "10_mikori" / "one.png").unlink()
    (later / "10_mikori").rename(later / "7_mikori")
    both = config(more, later)
    ours = replace(
        both,
        data=replace(both.data, sources=(*both.data.sources, SourceConfig(str(tmp_path / "r"), regularization=True))),
    )
    generated(host, Request(ours, QUICK, tmp_path / "reg", only=("train/*",)))
    now, before = contents(tmp_path / "reg"), contents(folder)
    kept = [name for name in before if not name.startswith("train/mikori/one") and name != "train/mikori/multiply.txt"]
    assert all(now[name] == before[name] for name in kept)
    assert (
        now["train/mikori/multiply.txt"] == b"7\n"
        and "more/x/five.png" not in now
        and "train/mikori/one.png" not in now
    )


def test_changed_settings_make_images_anew_and_the_old_ones_come_back_by_undo(host, copy):
    before = contents(copy.folder)
    changed = replace(copy, options=replace(QUICK, guidance=4.0), only=("one", "two.png"))
    draft = drafted(host, changed)
    assert draft.todo == {"train/mikori/one", "train/mikori/two"} and "Made anew for: guidance." in "".join(
        draft.lines()
    )
    generated(host, changed)
    now = contents(copy.folder)
    assert {name for name in now if now[name] != before[name]} == {"train/mikori/one.png", "train/mikori/two.png"}
    assert [entry.tool for entry in history(copy.folder)] == ["reg", "reg"]
    with Journal(copy.folder) as journal:
        journal.undo()
        journal.undo()
    assert contents(copy.folder) == before
    other = replace(copy, config=replace(copy.config, triggers=("mikori", "red_hair")))
    generated(host, other)
    now = contents(copy.folder)
    assert {name for name in now if now[name] != before[name]} == {
        f"train/mikori/{name}" for name in ("one.png", "two.png", "one.txt", "two.txt")
    }
    assert now["train/mikori/one.txt"] == b"1girl, smile"


def test_a_reroll_has_another_seed_stays_and_is_undone(host, copy):
    before = contents(copy.folder)
    generated(host, replace(copy, reroll=("two",)))
    first = contents(copy.folder)
    assert {name for name in before if first[name] != before[name]} == {"train/mikori/two.png"}
    assert drafted(host, copy).todo == frozenset()  # it is as it should be
    generated(host, replace(copy, reroll=("two",)))
    second = contents(copy.folder)
    assert second["train/mikori/two.png"] not in (first["train/mikori/two.png"], before["train/mikori/two.png"])
    with Journal(copy.folder) as journal:
        journal.undo()
    generated(host, replace(copy, reroll=("two",)))
    assert contents(copy.folder) == second  # the second roll, whenever it is made
    with pytest.raises(ProblemsFound, match="'nobody' is no image here"):
        generated(host, replace(copy, reroll=("nobody",)))


def test_what_the_user_made_or_wrote_stays(host, copy):
    folder = copy.folder / "train" / "mikori"
    Image.new("RGB", (96, 96), "red").save(folder / "one.png")
    (folder / "two.txt").write_text("edited", encoding="utf-8")
    (folder / "three.txt").unlink()
    (copy.folder / "train" / "other" / "four.png").unlink()
    (copy.folder / "train" / "other" / "four.txt").write_text("stale", encoding="utf-8")
    shutil.copyfile(folder / "two.png", folder / "gone.png")
    before = contents(copy.folder)
    said = [str(problem) for problem in drafted(host, copy).problems]
    for words in (
        "1 images were not made here",
        "1 captions beside unchanged images were edited",
        "belong to no training",
    ):
        assert any(words in text for text in said), words
    generated(host, copy)
    now = contents(copy.folder)
    assert all(
        now[f"train/mikori/{name}"] == before[f"train/mikori/{name}"] for name in ("one.png", "two.txt", "gone.png")
    )
    assert now["train/mikori/three.txt"] == b"1girl, hat (large)" and now["train/other/four.txt"] == b"forest, AND:2"
    assert "train/other/four.png" in now
    generated(host, replace(copy, reroll=("one",)))
    assert contents(copy.folder)["train/mikori/one.png"] != before["train/mikori/one.png"]


def test_the_trainer_sees_them_at_their_size_and_weight(whole):
    root, folder, _ = whole
    run = config(root, prefix="mikori, best")
    data = replace(run.data, sources=(*run.data.sources, as_source(folder, run)))
    found = scan(data, run.triggers)
    assert {problem.where for problem in found.problems if problem.severity != "note"} <= {"data.resolution"}
    regularizing = {item.path.stem: item for item in found.items if item.regularization}
    assert {name: item.caption for name, item in regularizing.items()} == {
        "one": "1girl, red_hair, smile", "two": "1girl, red_hair, smile", "three": "1girl, hat (large)", "four": "forest, AND:2",
    }  # fmt: skip
    buckets = {False: {}, True: {}}
    for view in views(found, data):
        item = found.items[view.item]
        buckets[item.regularization][item.path.stem] = (view.placement.bucket, view.repeats)
        assert not item.regularization or view.placement.scaled == (item.width, item.height)
    assert buckets[True] == buckets[False]
    said = [problem.message for problem in checks.check(INFO, replace(run, data=data), found, 100)]
    assert not any("captions of regularization images contain" in text for text in said)


def test_another_model_is_told_and_makes_everything_anew(host, copy, monkeypatch):
    planned = replace(copy, config=replace(copy.config, base_model="another"))
    said = [str(problem) for problem in drafted(host, planned).problems]
    assert any(text.startswith("base_model: the run was planned on another and toy.safetensors") for text in said)
    assert drafted(host, planned).todo == frozenset()
    info = host.info()
    for other, changed in (({"sha256": ""}, False), ({"name": "renamed"}, False), ({"sha256": "0" * 64}, True)):
        monkeypatch.setattr(host, "_info", replace(info, **other))
        assert bool(drafted(host, copy).todo) == changed, other
    monkeypatch.setattr(host, "_info", replace(info, sha256="", name="another"))
    assert {each.changed for each in drafted(host, copy).to_make} == {("model",)}


def test_a_second_run_in_the_same_folder_is_refused(host, copy):
    with Journal(copy.folder), pytest.raises(RunConflict, match="another tool"):
        generated(host, copy)


def test_settings_are_read_from_a_file(tmp_path):
    from lib_lora_trainer.config.regularization import read

    (tmp_path / "reg.toml").write_text('remove = ["hat"]\n[[sources]]\npath = "a"\nremove = ["x"]\n', encoding="utf-8")
    marks = (SourceMarks(str(tmp_path / "a"), ("x",)),)
    assert read(tmp_path / "reg.toml") == RegularizationConfig(remove=("hat",), sources=marks)
