"""The Evaluate step's frame: which run, what it is, the way there from a run that has ended, work that others began."""

import json
import threading

import pytest

pytest.importorskip("gradio")

from evaluate_page import FILES, TRIGGER, Step
from lib_lora_trainer.app import projects, runs
from lib_lora_trainer.app.work import failure
from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.base.events import Finished, Phase, Saved
from lib_lora_trainer.ui import evaluate_form, live
from lib_lora_trainer.ui.session import Session


@pytest.fixture
def step(tmp_path):
    return Step(tmp_path)


def ids(step):
    return step.of("evaluate_run", "choices")


def test_without_a_run_it_says_what_to_do_first(tmp_path):
    step = Step(tmp_path, trained=False)
    step.look()
    assert ids(step) == [] and "Train first" in step.text("evaluate_about")
    step.do("pick_begin")
    assert "run: none is chosen" in step.text("evaluate_said")
    step.do("bake_begin")
    assert "run: none is chosen" in step.text("evaluate_said")


def test_the_newest_run_with_files_is_shown_first_and_another_on_request(step):
    step.look()
    assert step.shown("evaluate_run") == step.run
    about = step.text("evaluate_about")
    assert f"{FILES} of {FILES} steps" in about and f"trigger {TRIGGER}" in about and "Done" in about
    assert f"{FILES} files: mikori-000001 … mikori" in about
    newer = step.train(name="newer")
    without = runs.create(step.project, step.config, __import__("datetime").datetime(2124, 1, 2))
    step.look()
    assert step.shown("evaluate_run") == step.run, "what was chosen stays"
    assert ids(step) == [newer, step.run] and without not in ids(step)
    step.look(newer)
    assert "newer-000001 … newer" in step.text("evaluate_about")


def test_the_list_follows_a_run_that_ends(step):
    step.look()
    newer = step.train(name="newer")
    step.do("history", "change")
    assert ids(step) == [newer, step.run] and step.shown("evaluate_run") == step.run
    for path in step.files:
        path.unlink()
    step.do("history", "change")
    assert ids(step) == [newer] and step.shown("evaluate_run") == newer
    assert "newer" in step.text("evaluate_about")
    step.values[step.page.session._id] = Session()
    step.do("history", "change")
    assert ids(step) == [] and step.shown("evaluate_run") is None


def test_the_live_panel_leads_to_its_run(step):
    events = step.place.runner.events(step.project, step.run)
    assert 'data-evaluate=""' in live.panel(TRIGGER, "done", events)
    assert "data-evaluate" not in live.panel(TRIGGER, "running", events)
    assert "data-evaluate" not in live.panel(TRIGGER, "failed", [failure(DataError("x"))]), "it has no file"
    older, newer = step.run, step.train(name="newer")
    step.look(older)
    step.do("step_evaluate", "select", evaluate_wanted="live")
    assert step.shown("evaluate_run") == newer and step.shown("evaluate_wanted") == ""
    step.do("step_evaluate", "select", evaluate_wanted=older)
    assert step.shown("evaluate_run") == older


def test_the_steps_mark(step):
    mark = lambda state: evaluate_form.mark_of(step.project, step.run, state)  # noqa: E731
    assert (mark("done"), mark("stopped"), mark("running"), mark("failed")) == ("todo", "todo", "", "")
    report = step.project.runs / step.run / "pick" / "report.json"
    report.parent.mkdir()
    assert mark("done") == "todo", "begun is not done"
    report.write_text("{}", encoding="utf-8")
    assert mark("done") == "done"


def test_a_broken_configuration_is_told(step):
    (step.project.runs / step.run / runs.CONFIG).write_text("rank = ", encoding="utf-8")
    step.look()
    assert "config.toml" in step.text("evaluate_about") + step.text("evaluate_said")


def test_work_that_another_page_began_is_shown_and_can_be_called_off(step):
    step.look()
    go, told = threading.Event(), []

    def job(control):
        yield Phase("making images", 3, 9)
        while control.wish == "go":
            go.wait(0.01)
        yield Finished("stopped", 0, (), 0.0)

    work = step.works.start(step.session.project, "Pick", job)
    take = step._take

    def seen(component, update):
        if component.elem_id == "lora_trainer_evaluate_progress":
            told.append(update)
            step.works.cancel(step.session.project)
        take(component, update)

    step._take = seen
    step.look()
    assert work.ended.is_set() and "making images 3 of 9" in "".join(told) and told[-1] == ""
    assert step.of("evaluate_cancel", "visible") is False and step.of("pick_begin", "interactive") is True


def test_work_is_refused_while_a_training_uses_the_model(step):
    step.look()
    hold = threading.Event()

    def training(*_):
        hold.wait(10)
        yield Saved("x", "adapter", 1, 1)
        yield Finished("done", 1, (), 0.0)

    step.place.runner._train = training
    step.place.runner.start(step.host, step.project, step.config)
    try:
        step.do("pick_begin")
        assert "A training uses the model" in step.text("evaluate_said")
    finally:
        hold.set()
        step.place.runner.wait(10)


def test_another_project_has_its_own_runs(step):
    step.look()
    other = projects.create(step.place.projects, "other")
    projects.save(other, step.config, projects.load(other).version)
    step.values[step.page.session._id] = Session("other")
    step.do("history", "change")
    assert ids(step) == [] and "Nothing to evaluate yet" in step.text("evaluate_about")
    assert json.loads(json.dumps(step.shown("pick_files"))) == []
