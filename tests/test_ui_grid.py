"""The Grid panel: ready-made grids, one's own, mistakes beside their fields, stop and resume, and what is shown."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

pytest.importorskip("gradio")

from PIL import Image

from evaluate_page import TRIGGER, PictureHost, Step
from lib_lora_trainer.app import grid_jobs, grid_store
from lib_lora_trainer.app.grid_jobs import Request
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.events import Phase
from lib_lora_trainer.demo.run import CHECKPOINT
from lib_lora_trainer.evaluate import grid_axes
from lib_lora_trainer.evaluate.grid import KINDS, Axis, GridConfig
from lib_lora_trainer.hosts.standalone import StandaloneHost
from lib_lora_trainer.ui import evaluate_grid_form, evaluate_grid_work
from lib_lora_trainer.ui.evaluate_grid_form import FIELDS, READY, SIDES


class StoppingHost(PictureHost):
    """A host that asks for a stop after some images, as a person who presses Cancel does."""

    left, cancel = 10**6, staticmethod(lambda: None)

    def lease(self, needs: Any) -> Any:
        lease, made = super().lease(needs), []
        generate = lease.generate

        def counted(requests: Any, go_on: Any = lambda: True) -> Any:
            made.append(requests)
            if len(made) > self.left:
                self.cancel()
            return generate(requests, go_on)

        lease.generate = counted
        return lease


@pytest.fixture
def step(tmp_path, quick):
    made = Step(tmp_path, StoppingHost(tmp_path / "Lora"))
    made.host.cancel = lambda: made.works.cancel(made.session.project)
    made.look()
    return made


def enter(step: Step, **options: Any) -> None:
    """Enter settings as a person does: small images, and what is named."""
    given = {"width": 64, "height": 64, "steps": 1, **options}
    for name, value in given.items():
        step.values[step.component(f"set_grid_{name.replace('_', '-')}")._id] = value


def axes(step: Step, *wanted: tuple[str, str]) -> None:
    for side, (kind, values) in zip(SIDES, [*wanted, ("", ""), ("", ""), ("", "")], strict=False):
        step.values[step.component(f"grid_{side}_kind")._id] = KINDS.get(kind, "nothing")
        step.values[step.component(f"grid_{side}_values")._id] = values


def entered(step: Step) -> list[tuple[str, list[str]]]:
    kinds = {text: kind for kind, text in KINDS.items()}
    found = [(step.shown(f"grid_{side}_kind"), step.shown(f"grid_{side}_values").split("\n")) for side in SIDES]
    return [(kinds[kind], values) for kind, values in found if kind != "nothing"]


def said(step: Step) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", step.text("evaluate_said"))).strip()


def grid_folder(step: Step, name: str) -> Path:
    return step.project.runs / step.run / "grids" / name


def cells(step: Step) -> dict[str, str]:
    """Return the place and the infotext of every cell that is shown with an image."""
    return dict(re.findall(r'data-grid-cell="([0-9,]+)".*?data-infotext="([^"]*)"', step.shown("grid_cells")))


def test_a_run_fills_in_what_it_knows(step):
    names = [path.stem for path in step.files]
    assert step.of("set_grid_adapter", "choices") == ["The newest", *reversed(names)]
    assert step.of("set_grid_prompt", "placeholder") == TRIGGER
    assert step.of("grid_second-run", "choices") == []
    assert sorted(step.of("grid_other", "choices")) == sorted(names)
    assert "No grid yet" in step.shown("grid_cells")
    assert step.of("grid_continue", "visible") is False
    assert step.shown("set_grid_width") == step.shown("set_grid_height") == 64  # as it was trained
    enter(step, width=128)
    step.look()
    assert step.shown("set_grid_width") == 128, "what was entered stays while the run does"


def test_last_epochs_by_weights_are_drafted_made_and_shown(step):
    enter(step)
    step.do("grid_last-epochs")
    files = [str(path) for path in step.files]
    assert entered(step) == [("weight", ["0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1"]), ("adapter", files)]
    assert step.shown("grid_name") == "last-epochs"
    assert "21 cells, 21 different images, 21 to make." in step.text("grid_draft")
    assert not grid_folder(step, "last-epochs").exists(), "a draft writes nothing"
    step.values[step.component("grid_columns_values")._id] = "0\n1"
    step.do("grid_start")
    assert said(step) == "" and step.of("evaluate_cancel", "visible") is False
    folder = grid_folder(step, "last-epochs")
    assert len(list((folder / "cells").glob("*.png"))) == 4, "without a weight all epochs are one image"
    shades = {place: image_of(step, place) for place in cells(step)}
    assert set(shades) == {f"{column},{row},0,0" for column in range(2) for row in range(3)}
    assert len({shades[f"0,{row},0,0"] for row in range(3)}) == 1
    assert len({*shades.values()}) > 2, "the weight acts, and so does the epoch"
    html = step.shown("grid_cells")
    assert html.count("data-to-txt2img=") == 6 and "Weight 1" in html and "sheet-01.png" in html
    page = re.search(r'href="file=([^"]+)" target="_blank" rel="noopener">Open as', html)
    assert Path(unquote(page[1])) == folder.resolve() / "grid.html"
    assert step.shown("grid_chosen") == "last-epochs" and step.of("grid_continue", "visible") is False


def image_of(step: Step, place: str) -> tuple[int, int, int]:
    source = re.search(rf'data-grid-cell="{place}" data-whole="file=([^"]+)"', step.shown("grid_cells"))
    with Image.open(unquote(source[1])) as image:
        assert image.size == (64, 64)
        return image.convert("RGB").getpixel((0, 0))


def test_every_ready_made_grid_is_drafted(step):
    enter(step)
    second = step.train(name="other")
    step.look(step.run)
    assert step.of("grid_second-run", "choices") == [second]
    newest, other = str(step.files[-1]), str(next(p for p in step.files[0].parent.glob("other*.safetensors")))
    expected = {
        "presets": [("blocks", "NONE"), ("weight", "0.6")],
        "with-and-without": [("adapter", "none")],
        "progress": [("epoch", "1"), ("adapter", newest)],
        "combination": [("weight", "0.4"), ("second_weight", "0")],
    }
    for kind, sides in expected.items():
        step.do(f"grid_{kind}", **{"grid_second-run": second, "grid_other": Path(other).stem})
        assert said(step) == "", kind
        assert [(name, values[0]) for name, values in entered(step)] == sides
        assert step.shown("set_grid_second") == (other if kind == "combination" else "")
        assert "to make." in step.text("grid_draft")
    assert set(expected) | {"last-epochs", "transfer"} == set(READY)


def test_what_a_ready_made_grid_lacks_is_said(step):
    enter(step)
    for kind, text in {
        "progress": "second run: none is chosen", "combination": "other adapter: none is chosen",
        "transfer": "no other checkpoint was named",
    }.items():  # fmt: skip
        step.do(f"grid_{kind}")
        assert text in said(step) and entered(step) == []
    step.do("grid_transfer", grid_checkpoints="/elsewhere/model.safetensors")
    assert "this host cannot change the checkpoint" in said(step)


def test_ones_own_grid_of_three_axes_and_seeds(step):
    enter(step, prompt="mikori, blue hat", seeds="3, 4")
    axes(step, ("prompt", "blue hat\nred hat\n"), ("weight", "1\n0.5/0.2"), ("blocks", "OUTALL\n" + "1," * 16 + "0"))
    step.do("grid_preview")
    assert "16 cells" in step.text("grid_draft") and "2 pages: Block weights" in step.text("grid_draft")
    step.do("grid_start", grid_name="three sides")
    assert set(cells(step)) == {f"{c},{r},{p},{s}" for c in (0, 1) for r in (0, 1) for p in (0, 1) for s in (0, 1)}
    assert step.shown("grid_cells").count("<h4>") == 4, "a table for each page and seed"
    kept = grid_store.settings(grid_folder(step, "three sides"))
    assert [axis.kind for axis in kept.axes] == ["prompt", "weight", "blocks"] and kept.seeds == (3, 4)
    assert kept.axes[0].values == ("blue hat", "red hat") and kept.adapter == str(step.files[-1])
    tags = {picture.prompt for picture in grid_store.kept(grid_folder(step, "three sides")).pictures}
    assert any(tag.startswith("mikori, red hat <lora:mikori:0.2:0.5:lbw=") for tag in tags)


def test_block_weights_may_be_presets_that_were_kept(step):
    axes(step, ("blocks", "MINE\nALL"))
    step.do("grid_preview")
    assert "MINE" in said(step)
    step.place.own_presets.write_text(f"MINE:1{',0' * 16}\n", encoding="utf-8")
    step.do("grid_preview")
    assert said(step) == "" and "2 different images" in step.text("grid_draft")


def test_mistakes_are_told_beside_their_fields_and_leave_nothing(step):
    enter(step)
    axes(step, ("weight", "1"), ("", "ignored"), ("steps", "5\nmany"))
    step.do("grid_start")
    beside = step.shown("evaluate_beside")
    assert "#lora_trainer_set_grid_pages{" in beside and "#lora_trainer_set_grid_columns{" not in beside
    assert "pages[2] steps 'many': write a whole number" in said(step)
    axes(step, ("weight", ""), ("weight", "1"))
    step.do("grid_start")
    assert "weight is there twice" in said(step) and "#lora_trainer_set_grid_columns{" in step.shown("evaluate_beside")
    axes(step)
    enter(step, steps=0)
    step.do("grid_preview")
    assert "#lora_trainer_set_grid_steps{" in step.shown("evaluate_beside")
    enter(step, weight="much")
    step.do("grid_preview")
    assert "Weight: 'much' is not a number." in said(step)
    enter(step, weight=1.0)
    step.do("grid_start", set_grid_adapter="gone")
    assert "'gone' is no file of this run" in said(step)
    step.do("grid_start", set_grid_adapter="The newest", grid_name="a/b")
    assert "'a/b' contains '/'" in said(step)
    assert not (step.project.runs / step.run / "grids").exists()


def test_a_stopped_grid_is_listed_and_continued(step):
    enter(step)
    axes(step, ("weight", "0.2\n0.6\n1"))
    step.host.left = 1
    step.do("grid_start", grid_name="slow")
    assert "Stopped. Start again to go on where it was." in said(step)
    assert len(cells(step)) == 1 and "2 of 3 cells are still empty" in step.shown("grid_cells")
    first = image_of(step, "0,0,0,0")
    axes(step, ("steps", "9"))  # what is entered meanwhile does not matter
    step.host.left = 10**6
    step.look()
    assert step.of("grid_chosen", "choices") == ["slow"] and step.of("grid_continue", "visible") is True
    step.do("grid_continue")
    assert said(step) == "" and len(cells(step)) == 3 and image_of(step, "0,0,0,0") == first
    assert step.of("grid_continue", "visible") is False
    assert sum(path.suffix == ".png" for path in (grid_folder(step, "slow") / "cells").iterdir()) == 3


def test_a_grid_cut_off_before_its_end_is_continued(step):
    enter(step)
    axes(step, ("weight", "1"))
    step.do("grid_start", grid_name="cut")
    for path in grid_folder(step, "cut").iterdir():
        if path.name != grid_store.SETTINGS:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    step.look()
    assert "was cut off" in step.shown("grid_cells") and step.of("grid_continue", "visible") is True
    step.do("grid_continue")
    assert set(cells(step)) == {"0,0,0,0"}
    (grid_folder(step, "cut") / grid_jobs.RECORD).write_text('{"sides": 3}', encoding="utf-8")
    (grid_folder(step, "cut").parent / "a:b").mkdir()
    (grid_folder(step, "cut").parent / "a:b" / grid_store.SETTINGS).write_text("", encoding="utf-8")
    step.look()
    assert "grid.json: cannot be read" in step.shown("grid_cells") and step.of("grid_chosen", "choices") == ["cut"]
    step.do("grid_continue")
    assert set(cells(step)) == {"0,0,0,0"}


def test_earlier_grids_are_opened_and_their_settings_taken_over(step):
    enter(step, prompt="one", seeds="11", text_weight="0.25")
    axes(step, ("weight", "1"), ("checkpoint", "loaded"))
    step.do("grid_start", grid_name="first")
    enter(step, prompt="two", seeds="1", text_weight="")
    axes(step)
    step.do("grid_start", grid_name="second")
    assert step.of("grid_chosen", "choices") == ["second", "first"]
    step.do("grid_chosen", "input", grid_chosen="first")
    assert step.shown("grid_name") == "second", "a look changes nothing that was entered"
    step.do("grid_settings")
    assert step.shown("grid_name") == "first" and step.shown("set_grid_prompt") == "one"
    assert step.shown("set_grid_seeds") == "11" and step.shown("set_grid_text-weight") == "0.25"
    assert step.shown("set_grid_adapter") == step.files[-1].stem
    assert entered(step) == [("weight", ["1"]), ("checkpoint", ["loaded"])]
    step.do("grid_start")
    assert said(step) == "" and sum(1 for _ in (grid_folder(step, "first") / "cells").iterdir()) == 1


def test_the_page_shows_what_the_command_would_make(step):
    enter(step)
    axes(step, ("weight", "0.5\n1"))
    step.do("grid_start", grid_name="here")
    folder = grid_folder(step, "here")
    config = grid_store.settings(folder)
    there = step.place.projects.parent / "there"
    list(grid_jobs.run(evaluate_grid_work.studio_of(step.place), Request(config, there), Control()))
    names = [sorted(path.name for path in (each / "cells").iterdir()) for each in (folder, there)]
    assert names[0] == names[1] and (there / "grid.html").read_bytes() == (folder / "grid.html").read_bytes()


def test_a_form_reads_what_it_wrote():
    for kind in KINDS:
        axis = evaluate_grid_form.Axis(kind, ("first", "", "a, b") if kind == "prompt" else ("first", "a, b"))
        assert evaluate_grid_form.read(kind, evaluate_grid_form.written(axis)) == axis.values
    assert evaluate_grid_form.read("weight", " 1 \n\n0.5\n") == ("1", "0.5")
    names = {field.path for field in FIELDS}
    assert len(names) == len(FIELDS) and "grid.axes" not in names


def test_the_rest_is_timed_without_the_first_image():
    begun = Phase("making the grid", 0, 5)
    assert evaluate_grid_work.timed(begun, 0, 0) == begun
    assert evaluate_grid_work.timed(replace(begun, done=1), 30, 0).name == "About 2 min left · images:"
    assert evaluate_grid_work.timed(replace(begun, done=3), 34, 4).name == "About 4 s left · images:"
    assert evaluate_grid_work.timed(replace(begun, done=5), 40, 10) == replace(begun, done=5)


def test_nothing_is_offered_without_a_run(tmp_path, quick):
    bare = Step(tmp_path, trained=False)
    bare.look()
    bare.do("grid_start")
    assert "run: none is chosen" in said(bare)
    bare.do("grid_continue")
    assert "run: none is chosen" in said(bare) and bare.shown("grid_cells") == ""


def test_the_loaded_checkpoint_has_a_word_and_another_one_is_opened(step, tmp_path):
    axis = Axis("checkpoint", ("loaded", "", "/models/anime v2.safetensors"))
    assert [grid_axes.label(axis, value) for value in axis.values] == ["loaded", "loaded", "anime v2"]
    scenes = [grid_axes.apply(grid_axes.base(GridConfig()), [(axis, value)]) for value in axis.values]
    assert [scene.checkpoint for scene in scenes] == ["", "", "/models/anime v2.safetensors"]
    host = StandaloneHost(CHECKPOINT, tmp_path, "cpu")
    shutil.copy(CHECKPOINT.with_suffix(".yaml"), tmp_path / "copy.yaml")
    studio = evaluate_grid_work.studio_of(replace(step.place, host=host))
    other = replace(scenes[0], checkpoint=str(shutil.copy(CHECKPOINT, tmp_path / "copy.safetensors")))
    assert studio.made_by(other) == studio.made_by(scenes[0]) and studio.made_by(other)["model"] == host.info().sha256
    assert [problem.where for problem in studio.problems(scenes)] == ["checkpoint"]
