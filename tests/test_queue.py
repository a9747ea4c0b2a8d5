"""The runner: one run at a time, watched from anywhere, paused, resumed, stopped, failed, outlived."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from fake_host import FakeHost, Story
from lib_lora_trainer.app import projects, runs, sweeps
from lib_lora_trainer.app.jobs import RunPaths
from lib_lora_trainer.app.projects import Project
from lib_lora_trainer.app.queue import Runner, Waiting
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import ConfigError, Problem, ProblemsFound, RunConflict
from lib_lora_trainer.base.events import Event, Failed, Finished, Note, Progress, SampleMade
from lib_lora_trainer.config.output import SampleConfig
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


def called(names: str) -> list[RunConfig]:
    return [RunConfig(name=name) for name in names.split()]


def listed(waiting: Sequence[Waiting]) -> list[tuple[str, bool]]:
    return [(entry.name, entry.queued) for entry in waiting]


def begun(project: Project) -> list[str]:
    """Return the names of the project's runs in the order of their beginning."""
    return [runs.name_of(run) for run in reversed(runs.identifiers(project))]


def test_runs_are_taken_one_after_another_in_order(project: Project, host: FakeHost) -> None:
    gate, seen = threading.Semaphore(2), []
    story = Story(gate=gate)

    def noting(fake: FakeHost, config: RunConfig, paths: RunPaths, control: Control) -> Iterator[Event]:
        seen.append((config.name, paths.cache))
        return story(fake, config, paths, control)

    runner = Runner(noting)  # type: ignore[arg-type]
    added = runner.add(host, project, called("b a c"))
    assert listed(added) == [("b", True), ("a", True), ("c", True)]
    until(lambda: seen)
    assert listed(runner.waiting()) == listed(runner.waiting(project)) == [("a", True), ("c", True)]
    status = runner.status()
    assert status is not None
    assert (runs.name_of(status.run), status.busy, status.waiting) == ("b", True, runner.waiting())
    runner.add(host, project, called("d"))
    assert listed(runner.waiting()) == [("a", True), ("c", True), ("d", True)]
    with pytest.raises(RunConflict, match="b of project"):
        runner.start(host, project, RunConfig(name="e"))
    gate.release(1000)
    runner.wait(10)
    assert [name for name, _ in seen] == ["b", "a", "c", "d"]
    assert {cache for _, cache in seen} == {project.cache}, "one cache serves all runs of a project"
    assert sorted(begun(project)) == ["a", "b", "c", "d"]
    assert [line.state for line in runner.history(project)] == ["done"] * 4
    assert runner.waiting(project) == ()
    assert runner.status().waiting == ()  # type: ignore[union-attr]
    assert not list((project.folder / runs.WAITING).iterdir())


def test_a_failed_run_does_not_stop_the_queue_and_the_next_one_says_so(project: Project, host: FakeHost) -> None:
    story = Story()

    def failing(fake: FakeHost, config: RunConfig, paths: RunPaths, control: Control) -> Iterator[Event]:
        told = Story(trouble=RuntimeError("out of memory"), trouble_at=2) if config.name == "bad" else story
        return told(fake, config, paths, control)

    runner = Runner(failing)  # type: ignore[arg-type]
    runner.add(host, project, called("good bad after"))
    runner.wait(10)
    lines = {line.name: line for line in runner.history(project)}
    assert {name: line.state for name, line in lines.items()} == {"good": "done", "bad": "failed", "after": "done"}
    first = runs.read_events(project.runs / lines["after"].run)[0]
    assert first == Note("warning", "bad, the run before this one, failed: RuntimeError: out of memory")
    assert runner.events(project, lines["after"].run)[0] == first
    assert not isinstance(runs.read_events(project.runs / lines["bad"].run)[0], Note)


def test_stop_ends_one_run_and_a_pause_holds_the_queue(project: Project, host: FakeHost) -> None:
    gate = threading.Semaphore(3)
    runner = Runner(Story(gate=gate))
    runner.add(host, project, called("a b c"))
    until(lambda: runner.status() and len(steps(runner, project, runner.status().run)) == 3)  # type: ignore[union-attr]
    runner.stop()
    gate.release(3)
    until(lambda: runs.name_of(runner.status().run) == "b")  # type: ignore[union-attr]
    assert {line.name: line.state for line in runner.history(project)}["a"] == "stopped"
    run = runner.status().run  # type: ignore[union-attr]
    runner.pause()
    gate.release(100)
    runner.wait(10)
    status = runner.status()
    assert status is not None
    assert (status.state, listed(status.waiting)) == ("paused", [("c", True)])
    runner.add(host, project, called("d"))
    assert runner.status().state == "paused", "what is added during a pause waits as well"  # type: ignore[union-attr]
    runner.resume(host, project, run)
    runner.wait(10)
    assert {line.name: line.state for line in runner.history(project)} == {
        "a": "stopped", "b": "done", "c": "done", "d": "done",
    }  # fmt: skip


@pytest.mark.parametrize("end", ["stop", "go_on"])
def test_a_paused_run_can_be_given_up_for_the_queue(project: Project, host: FakeHost, end: str) -> None:
    gate = threading.Semaphore(3)
    runner = Runner(Story(gate=gate))
    runner.add(host, project, called("a b"))
    until(lambda: runner.status() and len(steps(runner, project, runner.status().run)) == 3)  # type: ignore[union-attr]
    runner.pause()
    gate.release(100)
    runner.wait(10)
    if end == "stop":
        runner.stop()
    else:
        runner.go_on(host, project)
    runner.wait(10)
    expected = {"a": "stopped" if end == "stop" else "paused", "b": "done"}
    assert {line.name: line.state for line in runner.history(project)} == expected


def test_waiting_runs_can_be_removed(project: Project, host: FakeHost, tmp_path: Path) -> None:
    other = projects.create(tmp_path / "projects", "other")
    gate = threading.Semaphore(0)
    runner = Runner(Story(gate=gate))
    runner.add(host, project, called("a b c d"))
    runner.add(host, other, called("e f"))
    until(lambda: len(runner.waiting()) == 5)
    second = runner.waiting()[1]
    assert second.name == "c"
    runner.remove(project, second.waiting)
    runner.remove(project, "../../other/project")
    assert other.file.is_file()
    assert listed(runner.clear(other)) == [("e", True), ("f", True)]
    assert listed(runner.waiting()) == [("b", True), ("d", True)]
    assert listed(runner.clear()) == [("b", True), ("d", True)]
    assert runner.waiting() == runner.waiting(project) == runner.waiting(other) == ()
    gate.release(100)
    runner.wait(10)
    assert begun(project) == ["a"], "the run in work went on"
    assert begun(other) == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_after_the_process_died_the_queue_waits_for_a_click(project: Project, host: FakeHost) -> None:
    first = Runner(Story(trouble=SystemExit(), trouble_at=2))  # ends the thread in the middle, as a kill would
    first.add(host, project, [*called("a b"), RunConfig(name="c", comment="kept")])
    first.wait(10)
    assert begun(project) == ["a"]
    second = Runner(Story())
    assert second.status() is None
    assert second.waiting() == ()
    assert listed(second.waiting(project)) == [("b", False), ("c", False)]
    assert [line.state for line in second.history(project)] == ["interrupted"]
    second.add(host, project, called("d"))
    second.wait(10)
    assert sorted(begun(project)) == ["a", "d"], "nothing that an earlier process left begins by itself"
    second.go_on(host, project)
    second.wait(10)
    assert sorted(begun(project)) == ["a", "b", "c", "d"]
    assert second.waiting(project) == ()
    kept = next(run for run in runs.identifiers(project) if runs.name_of(run) == "c")
    assert runs.configuration(project, kept).comment == "kept"


def test_left_runs_can_be_cleared_and_a_broken_one_is_named(project: Project, host: FakeHost) -> None:
    for config in called("a b"):
        runs.enlist(project, config)
    (project.folder / runs.WAITING / "000002-b.toml").write_text("nonsense = 1", encoding="utf-8")
    runner = Runner(Story())
    with pytest.raises(ProblemsFound, match=r"000002-b\.toml"):
        runner.go_on(host, project)
    assert runner.status() is None
    assert listed(runner.waiting(project)) == [("a", False), ("b", False)]
    assert listed(runner.clear(project)) == [("a", False), ("b", False)]
    assert runner.waiting(project) == ()
    with pytest.raises(ConfigError, match="does not wait"):
        runs.enlisted_configuration(project, "000001-a")


def test_one_waiting_run_is_begun_once_by_two_processes(project: Project, host: FakeHost) -> None:
    gate = threading.Semaphore(0)
    first, second = Runner(Story(gate=gate)), Runner(Story(gate=gate))
    first.add(host, project, called("a b"))
    until(lambda: begun(project) == ["a"])
    second.go_on(host, project)
    until(lambda: len(begun(project)) == 2)
    gate.release(100)
    first.wait(10)
    second.wait(10)
    assert sorted(begun(project)) == ["a", "b"]
    assert first.waiting() == ()


def test_an_impossible_name_adds_nothing(project: Project, host: FakeHost) -> None:
    runner = Runner(Story())
    with pytest.raises(ConfigError, match="name"):
        runner.add(host, project, called("a b/c"))
    assert runner.status() is None
    assert runner.waiting(project) == ()


def test_two_runs_are_compared_by_settings_curve_samples_and_files(project: Project, host: FakeHost) -> None:
    runner = Runner(Story())
    samples = SampleConfig(prompts=("red", "blue"))
    sweep = {"optimizer.unet_learning_rate": [1e-4, 2e-4], "adapter.rank": [8]}
    runner.add(host, project, sweeps.expand(RunConfig(name="m", samples=samples), sweep))
    runner.wait(10)
    first, second = sorted(runs.identifiers(project), key=runs.name_of)
    found = runs.compare(project, first, second)
    assert [(difference.path, difference.first, difference.second) for difference in found] == [
        ("name", "m-lr1e-4-rank8", "m-lr2e-4-rank8"),
        ("optimizer.unet_learning_rate", 1e-4, 2e-4),
    ]
    points = runs.points(project, first)
    known = [event for event in runner.events(project, first) if isinstance(event, Progress)]
    assert [(p.step, p.loss, p.loss_average, p.learning_rates) for p in points] == [
        (e.step, e.loss, e.loss_average, e.learning_rates) for e in known
    ]
    assert [point.step for point in points] == list(range(1, 21))
    made = runs.samples(project, first)
    assert [(event.step, event.prompt) for event in made] == [
        (s, p) for s in (4, 8, 12, 16, 20) for p in ("red", "blue")
    ]
    files = runs.adapters(project, first)
    assert [Path(path).name for path in files] == [
        f"m-lr1e-4-rank8-{step:06d}.safetensors" for step in (4, 8, 12, 16, 20)
    ]
    Path(made[1].path).unlink()
    Path(files[-1]).unlink()
    assert runs.samples(project, first) == (made[0], *made[2:])
    assert runs.adapters(project, first) == files[:-1]
    with pytest.raises(ConfigError, match="nothing"):
        runs.compare(project, first, "nothing")


def test_a_sample_made_again_after_a_resume_is_listed_once() -> None:
    made = [SampleMade(f"{step}.png", "red", 1, step, 1) for step in (1, 2, 3, 2, 3, 4)]
    assert [event.step for event in runs.samples_of([Note("note", "n"), *made])] == [1, 2, 3, 4]
