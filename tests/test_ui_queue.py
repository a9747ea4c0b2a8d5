"""The tab: the queue, sweeps, and the search for a learning rate."""

import math
import re
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

gr = pytest.importorskip("gradio")

from fake_host import FakeHost, Story  # noqa: E402
from lib_lora_trainer.app import projects, runs  # noqa: E402
from lib_lora_trainer.app.jobs import RunPaths  # noqa: E402
from lib_lora_trainer.base.control import Control  # noqa: E402
from lib_lora_trainer.base.errors import ConfigError  # noqa: E402
from lib_lora_trainer.base.events import Event, Finished, Phase, RateFound, RateTried  # noqa: E402
from lib_lora_trainer.config.paths import put  # noqa: E402
from lib_lora_trainer.config.run import RunConfig  # noqa: E402
from lib_lora_trainer.ui import rate_form, waiting_list  # noqa: E402
from lib_lora_trainer.ui.curve import HEIGHT, WIDTH  # noqa: E402
from lib_lora_trainer.ui.searches import Searches  # noqa: E402
from ui_page import Tab, opened_page, page, pictures_folder  # noqa: E402, F401


class Search:
    """A search that tells a story: each try waits for `gate`, when there is one."""

    def __init__(self, found: float = 2e-3, gate: threading.Semaphore | None = None) -> None:
        self.found, self.gate, self.paths, self.closed = found, gate, [], 0

    def __call__(self, host: FakeHost, config: RunConfig, paths: RunPaths, control: Control) -> Iterator[Event]:
        self.paths.append(paths)
        try:
            yield Phase("caching latents", 1, 2)
            tried = 0
            for step in range(1, 31):
                if control.wish != "go":
                    break
                if self.gate is not None:
                    assert self.gate.acquire(timeout=10)
                rate = 1e-6 * 10 ** (step / 5)
                loss = 0.12 - 0.05 * math.exp(-((math.log10(rate) + 3) ** 2)) + (step > 25) * 5.0
                yield RateTried(step, 30, rate, loss, loss)
                tried = step
            yield RateFound(self.found, 1e-5, 1e-2, "The loss falls <b> here.")
            yield Finished("done", tried, (), 1.0)
        finally:
            self.closed += 1


@pytest.fixture
def searching(tmp_path: Path, pictures_folder: Path) -> tuple[Tab, Search]:
    search = Search()
    return opened_page(tmp_path, pictures_folder, find=search), search


def waits(page: Tab) -> list[str]:
    return [entry.name for entry in page.runner.waiting(projects.find(page.root, "mikori"))]


def held(page: Tab) -> threading.Semaphore:
    """Let the training of a page wait at each step until it is released."""
    gate = threading.Semaphore(0)
    page.runner._train = Story(gate=gate)
    return gate


def test_runs_are_added_to_the_queue_and_trained_one_after_the_other(page: Tab) -> None:
    gate = held(page)
    page.do("enqueue")
    assert "mikori was added to the queue" in page.shown("planned")
    assert page.runner.status().busy, "nothing was in work, so it begins at once"  # type: ignore[union-attr]
    page.do("enqueue", set_adapter_rank=4)
    page.do("enqueue", set_adapter_rank=64)
    assert waits(page) == ["mikori", "mikori"]
    page.do("refresh")
    assert page.of("waiting", "visible") is True
    assert "2 waiting" in page.shown("running")
    labels = [label for label, _ in page.of("waiting_chosen", "choices")]
    assert "Rank (dim) 4" in labels[0]
    assert "Rank (dim)" not in labels[1], "a line says what differs from the settings as they are"
    gate.release(1000)
    page.runner.wait(30)
    project = projects.find(page.root, "mikori")
    ranks = [runs.configuration(project, run).adapter.rank for run in reversed(runs.identifiers(project))]
    assert ranks == [16, 4, 64]
    page.do("refresh")
    assert page.of("waiting", "visible") is False


def test_a_plan_with_errors_adds_nothing(page: Tab) -> None:
    page.do("set_adapter_unet", "input", set_adapter_unet=False)
    page.do("enqueue", **{"set_adapter_text-encoder": False})
    assert "cannot start" in page.shown("planned")
    assert page.runner.status() is None
    page.do("sweep_add", sweep="adapter.rank: 4, 8")
    assert page.runner.status() is None


def test_a_sweep_is_shown_and_becomes_runs(page: Tab) -> None:
    gate = held(page)
    lines = "optimizer.unet_learning_rate: 1e-4, 2e-4\n\nadapter.rank: 8, 16"
    page.do("sweep_preview", sweep=lines)
    shown = page.shown("sweep_result")
    assert "4 runs" in shown
    assert "UNet learning rate 0.0002" in shown
    assert page.runner.status() is None, "to look is not to start"
    page.do("sweep_add", sweep=lines)
    assert "4 runs were added" in page.shown("planned")
    names = waits(page)
    assert len(names) == 3
    assert len(set(names)) == 3
    gate.release(1000)
    page.runner.wait(30)
    project = projects.find(page.root, "mikori")
    found = [runs.configuration(project, run) for run in runs.identifiers(project)]
    rates = {(config.optimizer.unet_learning_rate, config.adapter.rank) for config in found}
    assert rates == {(1e-4, 8), (1e-4, 16), (2e-4, 8), (2e-4, 16)}
    assert projects.load(project).config.adapter.rank == 16, "the project's own settings stay"


@pytest.mark.parametrize("lines", ["", "adapter.rnk: 4", "adapter.rank: four", "adapter.rank 4", "name: a, b"])
def test_mistakes_in_a_sweep_are_told_beside_it(page: Tab, lines: str) -> None:
    for button in ("sweep_preview", "sweep_add"):
        page.do(button, sweep=lines)
        assert "lora-trainer-error" in page.shown("sweep_result"), lines
    assert page.runner.status() is None


def test_waiting_runs_are_removed_by_choice_and_altogether(page: Tab) -> None:
    gate = held(page)
    for rank in (4, 8, 12, 16):
        page.do("enqueue", set_adapter_rank=rank)
    page.do("waiting_remove", waiting_chosen=[])
    assert "Tick the ones" in page.shown("notice")
    second = page.runner.waiting()[1].waiting
    page.do("waiting_remove", waiting_chosen=[second, "../../secret"])
    assert len(waits(page)) == 2
    page.do("waiting_clear")
    assert waits(page) == []
    gate.release(1000)
    page.runner.wait(30)
    assert len(runs.identifiers(projects.find(page.root, "mikori"))) == 1


def test_what_an_earlier_process_left_begins_when_somebody_says_so(page: Tab) -> None:
    project = projects.find(page.root, "mikori")
    runs.enlist(project, projects.load(project).config)
    page.do("refresh")
    assert page.of("waiting_begin", "visible") is True
    assert page.of("waiting_chosen", "choices")[0][0].endswith("left from before")
    assert page.runner.status() is None
    page.do("waiting_begin")
    page.runner.wait(10)
    assert [line.state for line in page.runner.history(project)] == ["done"]


def test_a_waiting_run_that_cannot_be_read_is_named_in_its_line(page: Tab) -> None:
    project = projects.find(page.root, "mikori")
    waiting = runs.enlist(project, RunConfig(name="x"))
    (project.folder / runs.WAITING / f"{waiting}.toml").write_text("nmae = 1", encoding="utf-8")
    form = page_waiting(page)
    updates = waiting_list.shown(form, page.runner, project, RunConfig())
    assert "nmae" in updates[form.chosen]["choices"][0][0]


def page_waiting(page: Tab) -> Any:
    names = ("waiting", "waiting_chosen", "waiting_others", "waiting_begin", "waiting_remove", "waiting_clear")
    return waiting_list.WaitingList(*(page.component(name) for name in names))


def test_a_rate_is_searched_shown_and_put_into_the_settings(searching: tuple[Tab, Search]) -> None:
    page, search = searching
    page.do("set_optimizer_text-learning-rate", "blur", **{"set_optimizer_text-learning-rate": 2.5e-5})
    page.do("rate_begin")
    page.searches.wait(10)
    page.do("refresh")
    panel = page.shown("rate")
    assert "<svg" in panel
    assert "2e-3" in panel
    assert "falls &lt;b&gt; here" in panel
    assert "lora-trainer-suggested" in panel
    assert "For the settings: UNet learning rate 2e-3, Text encoder learning rate 5e-4" in panel
    assert page.of("rate_use", "visible") is True
    assert projects.load(projects.find(page.root, "mikori")).config.optimizer.unet_learning_rate == 1e-4
    page.do("rate_use")
    optimizer = projects.load(projects.find(page.root, "mikori")).config.optimizer
    assert (optimizer.unet_learning_rate, optimizer.text_learning_rate) == (2e-3, 5e-4), "in proportion"
    assert page.shown("set_optimizer_unet-learning-rate") == 2e-3
    page.do("undo")
    assert projects.load(projects.find(page.root, "mikori")).config.optimizer.unet_learning_rate == 1e-4
    assert search.closed == 1
    assert search.paths[0].cache == page.root / "mikori" / "cache", "the latents serve the training that follows"
    assert not search.paths[0].run.exists(), "nothing of the search is kept"


def test_a_search_and_a_training_do_not_share_the_model(tmp_path: Path, pictures_folder: Path) -> None:
    search = Search(gate=threading.Semaphore(3))
    page = opened_page(tmp_path, pictures_folder, find=search)
    page.do("plan")
    page.do("rate_begin")
    assert page.of("rate_cancel", "visible") is True
    for button, place in (
        ("start", "planned"), ("enqueue", "planned"), ("sweep_add", "sweep_result"), ("rate_begin", "notice"),
    ):  # fmt: skip
        page.do(button, sweep="adapter.rank: 4, 8")
        assert "search for a learning rate" in page.shown(place), button
    assert page.runner.status() is None
    page.do("rate_cancel")
    assert search.gate is not None
    search.gate.release(100)
    page.searches.wait(10)
    assert not page.searches.busy()
    gate = held(page)
    page.do("start")
    assert page.runner.status().busy  # type: ignore[union-attr]
    page.do("rate_begin")
    assert "A training uses the model" in page.shown("notice")
    gate.release(1000)
    page.runner.wait(10)


def test_a_search_that_fails_says_why(tmp_path: Path, pictures_folder: Path) -> None:
    def fails(*_: object) -> Iterator[Event]:
        yield Phase("caching latents", 0, 1)
        raise ConfigError("optimizer.name: prodigy finds its learning rate itself.")

    page = opened_page(tmp_path, pictures_folder, find=fails)
    page.do("rate_use")
    assert "nothing was found yet" in page.shown("notice")
    page.do("rate_begin")
    page.searches.wait(10)
    page.do("refresh")
    assert "prodigy finds its learning rate itself" in page.shown("rate")
    assert page.of("rate_use", "visible") is False
    assert not page.searches.busy()


def test_searches_remember_each_project_and_one_runs_at_a_time(tmp_path: Path) -> None:
    gate = threading.Semaphore(0)
    searches = Searches(Search(gate=gate))
    host, one, two = FakeHost(tmp_path), *(projects.create(tmp_path, name) for name in "ab")
    searches.start(host, one, RunConfig())
    with pytest.raises(Exception, match="project a uses the model"):
        searches.start(host, two, RunConfig())
    assert searches.busy("a")
    assert not searches.busy("b")
    gate.release(100)
    searches.wait(10)
    assert rate_form.found_in(searches.events("a")) is not None
    assert searches.events("b") == ()


def test_a_found_rate_is_for_what_learns_fastest_and_the_rest_keeps_its_proportion() -> None:
    text_only = put(put(RunConfig(), "adapter.unet", False), "optimizer.text_learning_rate", 1e-5)
    assert rate_form.rates(text_only, 3e-4) == {"optimizer.text_learning_rate": 3e-4}
    unet, text = "optimizer.unet_learning_rate", "optimizer.text_learning_rate"
    assert rate_form.rates(put(RunConfig(), text, 4e-4), 8e-4) == {unet: 2e-4, text: 8e-4}
    assert rate_form.rates(put(RunConfig(), text, 0.0), 8e-4) == {unet: 8e-4}, "0 stays 0"
    faster_up = put(RunConfig(), "optimizer.lora_plus_ratio", 16.0)
    assert rate_form.rates(faster_up, 2e-4) == {unet: 2e-4, text: 1e-4}, "LoRA+ comes on top of the rates found"


def test_the_curve_of_a_search_has_a_logarithmic_axis_and_its_frame_holds_everything() -> None:
    search = list(Search()(FakeHost(Path()), RunConfig(), RunPaths(Path(), Path()), Control()))
    tried = [event for event in search if isinstance(event, RateTried)]
    drawn = rate_form.curve(tried, rate_form.found_in(search))
    line = re.findall(r'lora-trainer-line-0" points="([^"]*)"', drawn)[0]
    points = [tuple(map(float, point.split(","))) for point in line.split()]
    gaps = [second[0] - first[0] for first, second in pairwise(points)]
    assert max(gaps) - min(gaps) < 0.2, "equal factors are equal distances"
    assert all(-0.06 * HEIGHT <= y <= 1.06 * HEIGHT for _, y in points)
    sensible = [y for x, y in points if x < 0.8 * WIDTH]
    assert max(sensible) - min(sensible) > HEIGHT / 5, "divergence does not flatten the rest"
    assert "1e-3" in drawn
    assert rate_form.curve(tried[:1], None) == ""
    assert rate_form.written(1.6e-4) == "1.6e-4"
