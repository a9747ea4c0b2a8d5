"""The analysis and the search with a studio whose blocks' effects are known, so that the answers are."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from PIL import Image

from block_cases import BLOCKS, NEEDED, TRIGGER, KnownStudio, adapter, additive, request, without
from lib_lora_trainer.adapters import blocks as adapter_blocks
from lib_lora_trainer.app import block_jobs, block_sets
from lib_lora_trainer.app.block_jobs import Analysed, Draft
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import DataError, ProblemsFound
from lib_lora_trainer.base.events import Finished, Note, Phase, SampleMade
from lib_lora_trainer.evaluate import blocks, blocks_page, blocks_report
from lib_lora_trainer.workshop import presets


def done(events) -> Analysed:
    *_, last = events
    assert isinstance(last, Analysed)
    return last


def test_known_effects_are_found_exactly(tmp_path):
    studio, asked = KnownStudio(additive), request(tmp_path)
    events = list(block_jobs.analyse(studio, asked, Control()))
    found = done(events)
    analysis = found.report.analysis
    assert analysis.blocks == BLOCKS and set(analysis.full.recall) == {1.0} and set(analysis.base.recall) == {0.0}
    rows = {row.block: row for row in blocks.rows(analysis)}
    for block in BLOCKS:
        third = 1 / 3 if block in NEEDED.values() else 0.0
        assert (rows[block].lost.mean, rows[block].brought.mean) == pytest.approx((third, third)), block
        assert rows[block].share == pytest.approx(third)
        # One channel of three differs by 240, in the third of the images that has the trigger.
        assert rows[block].pixels_off == rows[block].pixels_alone == pytest.approx(240 * third / 3)
        assert rows[block].drift_alone == 0
    assert analysis.off["MID"].traits == {"blue eyes": 1.0, "green skirt": 1.0, "red hair": 0.0}
    assert [row.block for row in blocks.rows(analysis)][:3] == ["IN04", "MID", "OUT04"]

    # Base, all, 7 off and 7 alone; "mikori, smile" twice with the trigger, "1girl" and "smile" twice without it.
    assert found.images == len(studio.painted) == 16 * 6
    assert [event.done for event in events if isinstance(event, Phase) and event.total == 96] == list(range(1, 97))
    assert any(isinstance(event, Note) and event.text.startswith("About") for event in events)
    assert {scene.seed for scene in studio.painted if TRIGGER in scene.prompt} == {1, 2}
    assert {scene.prompt for scene in studio.painted} == {f"{TRIGGER}, smile", "smile", "1girl"}
    assert all(TRIGGER not in prompt for prompt in found.report.controls)


def test_the_smallest_set_is_found_and_said_in_three_ways(tmp_path):
    studio, asked = KnownStudio(additive), request(tmp_path)
    chosen = done(block_jobs.search(studio, asked, Control())).report.chosen
    assert set(chosen.blocks) == set(NEEDED.values())
    assert (chosen.share, chosen.fresh, chosen.before, chosen.after) == (1, 1, 1, 1)
    assert chosen.without == pytest.approx(dict.fromkeys(NEEDED.values(), 2 / 3))
    assert {scene.seed for scene in studio.painted if TRIGGER in scene.prompt} == {1, 2, 1_000_001, 1_000_002}

    # 17 numbers, in lora-block-weight's order; M00 is the eighth, OUT04 the tenth.
    assert chosen.preset == "0,0,0,1,0,0,0,1,0,1,0,0,0,0,0,0,0"
    vector = presets.choose(chosen.preset, "sd1")
    assert {block for block in adapter_blocks.names("sd1") if vector.of(block)} == set(chosen.blocks)
    # The file has layers of the text encoder, which are not to be trained: only numbers say so.
    assert chosen.training == chosen.preset
    assert adapter_blocks.parse(chosen.training, "sd1") == set(chosen.blocks)

    # A lower share to keep needs less, and takes all it can from what was measured before.
    count = len(studio.painted)
    less = done(block_jobs.search(studio, replace(asked, options=replace(asked.options, keep=0.6)), Control()))
    assert len(less.report.chosen.blocks) == 2 and less.report.chosen.share == pytest.approx(2 / 3)
    assert len(studio.painted) - count == less.images < 10


def test_what_one_seed_hides_another_shows(tmp_path):
    # For seeds of the second look red hair needs OUT05 too.
    def brings(on: frozenset[str], seed: int) -> list[bool]:
        return [*additive(on, seed)[:2], "MID" in on and (seed < 1000 or "OUT05" in on)]

    chosen = done(block_jobs.search(KnownStudio(brings), request(tmp_path), Control())).report.chosen
    assert set(chosen.blocks) == {*NEEDED.values(), "OUT05"} and chosen.fresh == 1
    assert any(each.fresh and each.share == pytest.approx(2 / 3) for each in chosen.tried)


def test_work_that_was_stopped_goes_on_and_finds_the_same(tmp_path):
    studio, asked = KnownStudio(additive), request(tmp_path)
    whole = done(block_jobs.search(studio, asked, Control()))
    painted = len(studio.painted)
    again, studio = replace(asked, folder=tmp_path / "again"), KnownStudio(additive)
    for stop_at in (0, 40, 96, 99):
        control, events, made = Control(), [], 0
        for event in block_jobs.search(studio, again, control):
            events.append(event)
            made += isinstance(event, SampleMade)
            if len(studio.painted) >= stop_at:
                control.ask("stop")
        assert isinstance(events[-1], Finished) and events[-1].reason == "stopped" and events[-1].step == made
    assert blocks_report.read(again.folder).chosen is None  # the analysis is written as soon as it is there
    image = next((again.folder / "images").glob("*.png"))
    image.write_bytes(b"damaged")
    last = done(block_jobs.search(studio, again, Control()))
    assert len(studio.painted) == painted + 1
    assert last.path.read_text() == whole.path.read_text()
    # Nothing is left to make, so the model is not taken.
    opened = studio.opened_times
    assert done(block_jobs.search(studio, again, Control())).images == 0 and studio.opened_times == opened


def test_a_draft_counts_and_makes_nothing(tmp_path):
    studio, asked = KnownStudio(additive), request(tmp_path)
    *_, made = block_jobs.draft(studio, asked, Control())
    assert isinstance(made, Draft) and (made.images, made.missing) == (96, 96) and not studio.painted
    assert "7 blocks" in made.lines()[0] and "96 still to be made" in made.lines()[0]
    assert "blue eyes" in "".join(made.lines())
    done(block_jobs.analyse(studio, asked, Control()))
    *_, made = block_jobs.draft(studio, asked, Control())
    assert (made.images, made.missing) == (96, 0)
    # Without prompts they are made of the trigger and the captions.
    plain = replace(asked, options=replace(asked.options, prompts=(), count=3))
    *_, made = block_jobs.draft(studio, plain, Control())
    assert made.shots.recall[0].prompt == TRIGGER and all(TRIGGER not in shot.prompt for shot in made.shots.drift)


def test_the_report_is_read_as_it_was_written_and_kept_with_its_search(tmp_path):
    studio, asked = KnownStudio(additive), request(tmp_path)
    found = done(block_jobs.search(studio, asked, Control()))
    assert blocks_report.read(asked.folder) == found.report
    data = json.loads(found.path.read_text(encoding="utf-8"))
    assert [row["block"] for row in data["ranking"]] == [row.block for row in blocks.rows(found.report.analysis)]
    assert all((asked.folder / "images" / f"{name}.png").is_file() for name in data["full"]["images"])
    # The analysis alone keeps the search of the same images, and loses that of others.
    assert done(block_jobs.analyse(studio, asked, Control())).report.chosen == found.report.chosen
    other = KnownStudio(lambda on, seed: [True, "MID" in on, "MID" in on])
    changed = replace(asked, options=replace(asked.options, weight=0.5))
    assert done(block_jobs.analyse(other, changed, Control())).report.chosen is None
    found.path.write_text('{"version": 1}', encoding="utf-8")
    assert blocks_report.read(asked.folder) is None


def test_the_page_and_the_sheet_show_every_block(tmp_path):
    asked = request(tmp_path)
    found = done(block_jobs.search(KnownStudio(additive), asked, Control()))
    page = found.page.read_text(encoding="utf-8")
    assert page.count("<rect") == 6 * len(BLOCKS) and page.count("data-kept") - page.count("[data-kept]") == 3
    assert found.report.chosen.preset in page and "http" not in page
    assert "33% ±" in blocks_page.ranking(found.report)
    with Image.open(found.sheet) as sheet:
        assert sheet.width > 4 * 64 and sheet.height > (len(BLOCKS) + 1) * 64


def test_a_file_without_text_encoder_is_trained_by_names(tmp_path):
    asked = without(request(tmp_path), "BASE", "OUT03")
    chosen = done(block_jobs.search(KnownStudio(additive), asked, Control())).report.chosen
    assert chosen.training == "IN04,MID,OUT04"


def test_of_two_blocks_one_alone_is_the_other_off(tmp_path):
    studio, asked = KnownStudio(additive), without(request(tmp_path), *(set(BLOCKS) - {"IN04", "MID"}))
    events = list(block_jobs.search(studio, asked, Control()))
    report = done(events).report
    assert report.order == ("IN04", "MID") and len(studio.painted) == 4 * 6  # all are needed
    assert [event.done for event in events if isinstance(event, Phase) and event.total == 24] == list(range(1, 25))
    assert report.analysis.off["MID"] == report.analysis.alone["IN04"]


def test_layers_in_no_block_act_always(tmp_path):
    asked = request(tmp_path)
    adapter(asked.file, [*BLOCKS, ""])
    studio = KnownStudio(additive)
    *_, made = block_jobs.draft(studio, asked, Control())
    assert made.inside.outside and "in no block" in made.lines()[-1]
    done(block_jobs.analyse(studio, asked, Control()))
    assert all(scene.adapter is not None for scene in studio.painted)


@pytest.mark.parametrize(
    ("chosen", "family", "text"),
    [
        (("BASE", "IN04", "IN05", "IN07", "MID"), "sd1", "BASE,IN04-05,IN07,MID"),
        (("IN11", "MID", "OUT00", "OUT01", "OUT02"), "sd1", "IN11,MID,OUT00-02"),
        (("IN08", "OUT08"), "sdxl", "IN08,OUT08"),
        (adapter_blocks.names("sdxl"), "sdxl", "BASE,IN00-08,MID,OUT00-08"),
    ],
)
def test_names_are_read_back_as_the_same_blocks(chosen, family, text):
    assert block_sets.named(chosen, family) == text
    assert adapter_blocks.parse(text, family) == set(chosen)


def test_a_preset_is_short_where_it_can_be():
    inside = block_sets.FileBlocks("sdxl", adapter_blocks.names("sdxl"), outside=False)
    assert inside.preset(("IN04", "OUT05")).count(",") == 11
    assert inside.preset(("IN04", "OUT06")).count(",") == 19
    assert inside.weights(inside.names) == "" and inside.weights(()).count(",") == 19


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"steps": 0}, ProblemsFound, "too small"),
        ({"keep": 1.5}, ProblemsFound, "too large"),
        ({"sampler": "none"}, ProblemsFound, "'none'"),
        ({"prompts": ("1girl",)}, ProblemsFound, "none has a trigger"),
    ],
)
def test_impossible_requests_are_refused_before_any_image(tmp_path, options, kind, said):
    studio = KnownStudio(additive)
    with pytest.raises(kind, match=said):
        list(block_jobs.search(studio, request(tmp_path, **options), Control()))
    assert not studio.painted


def test_an_adapter_that_adds_nothing_has_no_smallest_set(tmp_path):
    always = KnownStudio(lambda *_: [True] * 3)
    *events, last = block_jobs.search(always, request(tmp_path), Control())
    assert isinstance(last, Analysed) and last.report.chosen is None
    assert any(isinstance(event, Note) and "nothing to keep" in event.text for event in events)
    assert {row.share for row in blocks.rows(last.report.analysis)} == {0.0}


def test_a_file_that_is_none_is_refused(tmp_path):
    asked = request(tmp_path)
    asked.file.write_bytes(b"none")
    with pytest.raises(DataError, match=r"a\.safetensors"):
        list(block_jobs.draft(KnownStudio(additive), asked, Control()))
