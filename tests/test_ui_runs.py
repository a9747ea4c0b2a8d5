"""The tab: planning, starting, watching and comparing runs."""

import json
import re
import threading
from dataclasses import replace

import pytest

gr = pytest.importorskip("gradio")


from fake_host import INFO, Story  # noqa: E402
from lib_lora_trainer.app import projects, runs  # noqa: E402
from lib_lora_trainer.base.errors import HostRefusal  # noqa: E402
from lib_lora_trainer.base.events import Progress  # noqa: E402
from ui_page import ROOT, SAMPLERS, Tab, entered, page, pictures_folder  # noqa: E402, F401


def test_start_waits_for_a_plan_without_errors(page: Tab) -> None:
    assert page.of("start", "interactive") is False
    page.do("set_adapter_unet", "input", set_adapter_unet=False)
    page.do("set_adapter_text-encoder", "input", **{"set_adapter_text-encoder": False})
    page.do("plan")
    assert "cannot start" in page.shown("planned")
    assert page.of("start", "interactive") is False
    assert "#lora_trainer_set_adapter_unet" in page.shown("styles")
    page.do("start")
    assert page.runner.status() is None, "a page that presses a switched-off button is refused by the server"
    page.do("set_adapter_unet", "input", set_adapter_unet=True)
    page.do("plan")
    assert page.of("start", "interactive") is True
    assert "Ready to start" in page.shown("planned")
    page.do("set_adapter_rank", "blur", set_adapter_rank=4)
    assert page.of("start", "interactive") is False
    assert "changed since the plan" in page.shown("planned")


def test_a_run_is_watched_from_a_browser_opened_meanwhile(page: Tab) -> None:
    gate = threading.Semaphore(10)
    page.runner._train = Story(gate=gate)
    page.do("plan")
    page.do("start")
    status = page.runner.status()
    assert status is not None
    while len([e for e in page.runner.events(status.project, status.run) if isinstance(e, Progress)]) < 10:
        pass
    page.do("refresh")
    assert "step 10 of 20" in page.shown("live")
    assert "<svg" in page.shown("live")
    assert 'data-active="1"' in page.shown("status")
    assert (page.of("pause", "visible"), page.of("stop", "visible")) == (True, True)
    assert page.shown("samples").count("<figure>") == 4
    assert "mikori, &lt;b&gt;" in page.shown("samples")
    page.do("start")
    assert "is training" in page.shown("planned"), "a second start is refused"
    page.do("pause")
    gate.release(100)
    page.runner.wait(10)
    page.do("refresh")
    assert "Paused" in page.shown("live")
    assert page.of("resume", "visible") is True
    page.do("resume")
    page.runner.wait(10)
    page.do("refresh")
    assert "Done" in page.shown("live")
    assert page.of("test_row", "visible") is True


def test_the_finished_file_goes_to_txt2img_and_into_the_list(page: Tab) -> None:
    page.do("plan")
    page.do("start")
    page.runner.wait(10)
    page.do("refresh")
    stem = page.shown("test_file")
    assert stem == "mikori-000020"
    page.do("test")
    assert json.loads(page.shown("to_txt2img")) == {"prompt": "<lora:mikori-000020:1> mikori"}
    assert page.host.announced == [str(page.host.folder / "mikori-000020.safetensors")]
    page.do("test", test_file="../../secret")
    assert page.shown("to_txt2img") == ""
    assert "secret" in page.shown("notice")
    assert len(page.host.announced) == 1


def test_an_interrupted_run_of_an_earlier_process_is_offered_to_resume(page: Tab) -> None:
    project = projects.find(page.root, "mikori")
    run = runs.create(project, projects.load(project).config, __import__("datetime").datetime(2024, 1, 2))
    page.do("refresh")
    assert "Interrupted" in page.shown("live")
    assert page.of("resume", "visible") is True
    page.do("resume")
    page.runner.wait(10)
    assert [line.state for line in page.runner.history(project)] == ["done"]
    assert page.runner.status().run == run  # type: ignore[union-attr]


def test_runs_are_compared_and_their_settings_taken_over(page: Tab) -> None:
    for rank in (4, 8):
        page.do("set_adapter_rank", "blur", set_adapter_rank=rank)
        page.do("plan")
        page.do("start")
        page.runner.wait(10)
    page.do("refresh")
    project = projects.find(page.root, "mikori")
    late, early = runs.identifiers(project)
    assert early in page.shown("history")
    page.do("run_second", "input", run_first=early, run_second=late)
    detail = page.shown("run_detail")
    assert re.search(r"<th>Rank \(dim\)</th><td>4</td><td>8</td>", detail)
    assert detail.count("<polyline") == 2
    page.do("run_settings")
    assert page.shown("set_adapter_rank") == 4
    page.do("undo")
    assert page.shown("set_adapter_rank") == 8


def test_a_recipe_says_what_it_changes_and_can_be_taken_back(page: Tab) -> None:
    page.do("apply_recipe", recipe="locon-g2")
    assert page.shown("set_adapter_method") == "locon"
    assert "Method lora → locon" in page.shown("notice")
    assert page.of("undo", "visible") is True
    page.do("undo")
    assert page.shown("set_adapter_method") == "lora"
    page.do("apply_recipe", recipe="__import__")
    assert "Choose a recipe" in page.shown("notice")


def test_exported_settings_come_back_by_import(page: Tab) -> None:
    page.do("export")
    text = page.shown("toml")
    page.do("set_adapter_rank", "blur", set_adapter_rank=64)
    page.do("import", toml=text)
    assert page.shown("set_adapter_rank") == 16
    page.do("import", toml="[adapter]\nrankk = 3")
    assert "rankk" in page.shown("notice")
    assert projects.load(projects.find(page.root, "mikori")).config.adapter.rank == 16


def test_the_bar_warns_of_another_model_and_of_none(page: Tab) -> None:
    page.do("plan")
    assert "Planned on" not in page.shown("model")
    page.host.model = replace(INFO, name="other", sha256="f" * 64, title="other")
    page.do("refresh")
    assert "Planned on 0123456789" in page.shown("model")

    def nothing() -> None:
        raise HostRefusal("Nothing is loaded. Choose a checkpoint.")

    page.host.info = nothing  # type: ignore[method-assign,assignment]
    page.do("refresh")
    assert "Nothing is loaded" in page.shown("model")
    page.do("plan")
    assert "Nothing is loaded" in page.shown("planned")
