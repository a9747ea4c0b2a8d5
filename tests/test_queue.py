"""The runner: one run at a time, watched from anywhere, paused, resumed, stopped, failed, outlived."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fake_host import FakeHost, Story
from lib_lora_trainer.app import projects, runs
from lib_lora_trainer.app.projects import Project
from lib_lora_trainer.app.queue import Runner
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError, Problem, ProblemsFound, RunConflict
from lib_lora_trainer.base.events import Failed, Finished, Note, Progress
from lib_lora_trainer.config.run import RunConfig


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return projects.create(tmp_path / "projects", "mikori")


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path / "Lora")


def until(met: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not met():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.005)


def steps(runner: Runner, project: Project, run: str) -> list[int]:
    return [event.step for event in runner.events(project, run) if isinstance(event, Progress)]


def test_a_run_goes_to_its_end_and_its_journal_tells_the_same(project: Project, host: FakeHost) -> None:
    story = Story()
    runner = Runner(story)
    assert runner.status() is None
    run = runner.start(host, project, RunConfig(name="mikori"))
    runner.wait(10)
    status = runner.status()
    assert status is not None
    assert (status.run, status.state, status.busy, status.project) == (run, "done", False, project)
    known = runner.events(project, run)
    assert isinstance(known[-1], Finished)
    assert known == runs.read_events(project.runs / run)
    assert steps(runner, project, run) == list(range(1, 21))
    assert runner.events(project, run, since=len(known) - 1) == known[-1:]
    assert story.closed == 1


def test_two_watchers_see_the_same_while_it_trains(project: Project, host: FakeHost) -> None:
    gate = threading.Semaphore(7)
    runner = Runner(Story(gate=gate))
    run = runner.start(host, project, RunConfig())
    until(lambda: len(steps(runner, project, run)) == 7)
    status = runner.status()
    assert status is not None
    assert (status.state, status.busy) == ("running", True)
    assert steps(runner, project, run) == list(range(1, 8))
    on_disk = [event.step for event in runs.read_events(project.runs / run) if isinstance(event, Progress)]
    assert on_disk == list(range(1, 8)), "the journal is written line by line"
    gate.release(100)
    runner.wait(10)


def test_a_second_run_is_refused_while_one_trains(project: Project, host: FakeHost) -> None:
    gate = threading.Semaphore(1)
    runner = Runner(Story(gate=gate))
    run = runner.start(host, project, RunConfig(name="first"))
    with pytest.raises(RunConflict, match="first"):
        runner.start(host, project, RunConfig(name="second"))
    with pytest.raises(RunConflict, match="first"):
        runner.resume(host, project, run)
    assert runs.identifiers(project) == (run,), "the refused run left no folder"
    gate.release(100)
    runner.wait(10)


def test_pause_and_resume_take_every_step_once(project: Project, host: FakeHost) -> None:
    gate = threading.Semaphore(5)
    runner = Runner(Story(gate=gate))
    run = runner.start(host, project, RunConfig())
    until(lambda: len(steps(runner, project, run)) == 5)
    runner.pause()
    assert runner.status().state == "pausing"  # type: ignore[union-attr]
    gate.release(100)
    runner.wait(10)
    assert runner.status().state == "paused"  # type: ignore[union-attr]
    assert len(steps(runner, project, run)) < 20
    runner.resume(host, project, run)
    runner.wait(10)
    assert runner.status().state == "done"  # type: ignore[union-attr]
    assert steps(runner, project, run) == list(range(1, 21))
    assert runs.read_events(project.runs / run) == runner.events(project, run)


def test_stop_ends_a_run_that_trains(project: Project, host: FakeHost) -> None:
    gate = threading.Semaphore(5)
    runner = Runner(Story(gate=gate))
    run = runner.start(host, project, RunConfig())
    until(lambda: len(steps(runner, project, run)) == 5)
    runner.stop()
    assert runner.status().state == "stopping"  # type: ignore[union-attr]
    runner.pause()
    assert runner.status().state == "stopping", "a pause does not take a stop back"  # type: ignore[union-attr]
    gate.release(100)
    runner.wait(10)
    assert runner.status().state == "stopped"  # type: ignore[union-attr]


def test_stop_of_a_paused_run_takes_it_up_to_save_its_files(project: Project, host: FakeHost) -> None:
    gate = threading.Semaphore(3)
    runner = Runner(Story(gate=gate))
    run = runner.start(host, project, RunConfig())
    until(lambda: len(steps(runner, project, run)) == 3)
    runner.pause()
    gate.release(100)
    runner.wait(10)
    before = steps(runner, project, run)
    runner.stop()
    runner.wait(10)
    assert runner.status().state == "stopped"  # type: ignore[union-attr]
    assert steps(runner, project, run) == before
    finals = [event.reason for event in runner.events(project, run) if isinstance(event, Finished)]
    assert finals == ["paused", "stopped"]


def test_an_exception_is_told_with_its_traceback_and_the_next_run_starts(project: Project, host: FakeHost) -> None:
    story = Story(trouble=RuntimeError("out of memory"), trouble_at=3)
    runner = Runner(story)
    run = runner.start(host, project, RunConfig())
    runner.wait(10)
    last = runner.events(project, run)[-1]
    assert isinstance(last, Failed)
    assert last.error == "RuntimeError: out of memory"
    assert "fake_host.py" in last.detail
    assert runner.status().state == "failed"  # type: ignore[union-attr]
    assert story.closed == 1
    story.trouble = None
    runner.start(host, project, RunConfig())
    runner.wait(10)
    assert runner.status().state == "done"  # type: ignore[union-attr]


def test_the_users_mistakes_are_told_one_by_one_without_a_traceback(project: Project, host: FakeHost) -> None:
    problem = Problem("error", "adapter.rank", "is odd.", "Use 16.")
    runner = Runner(Story(trouble=ProblemsFound((problem,)), trouble_at=1))
    run = runner.start(host, project, RunConfig())
    runner.wait(10)
    last = runner.events(project, run)[-1]
    assert isinstance(last, Failed)
    assert last.problems == ({"severity": "error", "where": "adapter.rank", "message": "is odd.", "fix": "Use 16."},)
    assert last.detail == ""
    assert runs.read_events(project.runs / run)[-1] == last


def test_a_training_that_ends_without_a_word_has_failed(project: Project, host: FakeHost) -> None:
    def silent(*_: object) -> Iterator[Progress]:
        return iter(())

    runner = Runner(silent)
    run = runner.start(host, project, RunConfig())
    runner.wait(10)
    assert isinstance(runner.events(project, run)[-1], Failed)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_after_the_process_died_a_run_is_interrupted_and_resumes(project: Project, host: FakeHost) -> None:
    first = Runner(Story(trouble=SystemExit(), trouble_at=8))  # ends the thread in the middle, as a kill would
    run = first.start(host, project, RunConfig())
    first.wait(10)
    journal = project.runs / run / runs.JOURNAL
    journal.write_bytes(journal.read_bytes()[:-20])  # and cut a line
    second = Runner(Story())
    assert [line.state for line in second.history(project)] == ["interrupted"]
    second.resume(host, project, run)
    second.wait(10)
    assert [line.state for line in second.history(project)] == ["done"]
    known = runs.read_events(project.runs / run)
    assert known == second.events(project, run), "the first event after the cut stands on a line of its own"
    assert sum(isinstance(event, Note) for event in known) == 1
    assert [point.step for point in runs.curve(known)][-1] == 20


def test_runs_of_earlier_processes_can_be_read_and_unknown_ones_are_named(project: Project, host: FakeHost) -> None:
    first = Runner(Story())
    run = first.start(host, project, RunConfig())
    first.wait(10)
    assert Runner(Story()).events(project, run) == first.events(project, run)
    with pytest.raises(ConfigError, match="nothing"):
        first.events(project, "nothing")
    with pytest.raises(ConfigError, match="nothing"):
        first.resume(host, project, "nothing")


def test_a_resumed_run_has_the_settings_it_began_with(project: Project, host: FakeHost) -> None:
    seen: list[RunConfig] = []
    story = Story()

    def noting(fake: FakeHost, config: RunConfig, paths: object, control: Control) -> object:
        seen.append(config)
        return story(fake, config, paths, control)  # type: ignore[arg-type]

    runner = Runner(noting)  # type: ignore[arg-type]
    run = runner.start(host, project, RunConfig(name="then"))
    runner.wait(10)
    projects.save(project, RunConfig(name="now"), projects.version(project))
    runner.resume(host, project, run)
    runner.wait(10)
    assert [config.name for config in seen] == ["then", "then"]


def test_a_journal_that_cannot_be_written_is_told_to_whoever_watches(project: Project, host: FakeHost) -> None:
    gate = threading.Semaphore(0)
    runner = Runner(Story(gate=gate))
    original = runs.create

    def blocked(*details: object) -> str:
        run = original(*details)  # type: ignore[arg-type]
        (project.runs / run / runs.JOURNAL).mkdir()
        return run

    runs.create = blocked  # type: ignore[assignment]
    try:
        run = runner.start(host, project, RunConfig())
    finally:
        runs.create = original
    runner.wait(10)
    assert isinstance(runner.events(project, run)[-1], Failed)
    assert runner.status().busy is False  # type: ignore[union-attr]
