"""The Reg images step: the list of captions, generating, stop and resume, re-roll, undo, the source, every mistake."""

import json
import threading
from dataclasses import replace

import pytest

pytest.importorskip("gradio")

from lib_lora_trainer.app import projects, reg_folder, reg_jobs, reg_project
from lib_lora_trainer.base.control import Control
from lib_lora_trainer.base.errors import DataError, UserError
from lib_lora_trainer.captions import reduced
from lib_lora_trainer.config.regularization import RegularizationConfig, SourceMarks
from lib_lora_trainer.ui import reg_gallery, reg_list, reg_options, reg_state
from lib_lora_trainer.ui.session import opened
from reg_cases import config, contents, dataset
from reg_page import Step
from tool_cases import picture

pytestmark = pytest.mark.usefixtures("quick")

NAMES = ("train/mikori/one", "train/mikori/three", "train/mikori/two", "train/other/four")


@pytest.fixture
def root(tmp_path):
    return dataset(tmp_path / "train")


@pytest.fixture
def step(root, tmp_path):
    made = Step(tmp_path, config(root))
    made.enter(steps=2)
    return made


def seeds(step):
    return {name: reg_folder.read_facts(step.folder / f"{name}.png")["seed"] for name in NAMES}


def test_untouched_the_form_sends_what_the_definition_says(root, tmp_path):
    step = Step(tmp_path, config(root))
    sent = [step.value(component._id) for component in step.tab.entered]
    assert reg_options.entered(sent, RegularizationConfig(), step.session.config) == RegularizationConfig()
    step.do("set_reg_steps", "blur")
    assert not (step.place.projects / "mikori" / reg_project.FILE).exists()  # nothing was changed


def test_the_list_shows_captions_before_and_after_and_makes_nothing(step):
    step.enter(remove="red_hair")
    step.do("reg_list")
    html = step.shown("reg_rows")
    assert html.count("<li ") == 4 and html.count("<img") == 4
    assert "<del>mikori, </del>" in html and "<del>" in html and "red_hair" in html and "64×128" in html
    assert html.index("mikori/one") < html.index("mikori/two")  # in the order of the pictures
    head = step.text("reg_head")
    assert "<b>4</b><span>images in all" in head and "<b>4</b><span>to make<" in head and "10×" in head
    assert not step.folder.exists() and step.of("reg_views", "selected") == "list"


def test_every_tag_can_be_left_out_by_a_click(root, tmp_path):
    odd = r"kayoko \(blue archive\), a*b, ?, x_y, ^_^, <b>, c\d"
    picture(root / "5_other" / "five.png", (96, 96), caption=f"mikori, {odd}")
    step = Step(tmp_path, config(root))
    step.enter(steps=2)
    step.do("reg_list")
    head = step.shown("reg_head")
    for tag in odd.split(", "):
        mark = reg_list.as_mark(tag)
        assert f'data-reg-mark="{reg_list.escape(mark)}" aria-pressed="false"' in head
        assert reduced.reduced(f"a, {tag}, b", reduced.cut((), (mark,)), False) == "a, b", tag
        if tag != "?":
            assert reduced.reduced("ax, axxb", reduced.cut((), (mark,)), False) == "ax, axxb"
    step.enter(remove="smile")
    step.do("reg_list")
    assert '<button type="button" data-reg-mark="smile" aria-pressed="true"><span>smile</span></button>' in step.shown(
        "reg_head"
    )


def test_generate_makes_all_once_and_shows_them(step):
    step.do("reg_make")
    assert sorted(path.relative_to(step.folder).as_posix()[:-4] for path in reg_folder.listed(step.folder)) == [*NAMES]
    assert "4 images made." in step.text("reg_said") and step.refreshed == 1
    gallery = step.shown("reg_gallery")
    assert [gallery.index(f'data-reg-name="{name}"') for name in NAMES] == sorted(
        gallery.index(f'data-reg-name="{name}"') for name in NAMES
    )
    assert "forest, AND:2" in gallery and f"seed {seeds(step)[NAMES[0]]}" in gallery
    assert step.of("reg_views", "selected") == "images" and "made</span>" in step.shown("reg_rows")
    before = contents(step.folder)
    step.do("reg_make")
    assert contents(step.folder) == before and len(step.host.asked) == 4
    assert "Nothing is missing" in step.text("reg_said")


def test_stopped_it_goes_on_with_what_is_missing(step):
    reached, go = threading.Event(), threading.Event()

    def before(number):
        if number == 3:
            reached.set()
            assert go.wait(10)

    step.host.before = before
    pressed = threading.Thread(target=step.do, args=("reg_make",))
    pressed.start()
    assert reached.wait(10)
    status = reg_state.state_of(step.place, step.session, step.works)
    step.do("refresh")  # another browser, or this one after a reload
    assert status == "busy" and step.of("reg_stop", "visible") and not step.of("reg_make", "interactive")
    assert step.of("reg_undo", "interactive") is False and not step.of("reg_add", "visible")
    assert "2 / 4" in step.shown("reg_progress") and step.shown("reg_gallery").count("<figure") == 2
    step.do("reg_stop")
    go.set()
    pressed.join(20)
    assert "Stopped." in step.text("reg_said") and "2 of 4 images made" in step.text("reg_said")
    assert len(reg_folder.listed(step.folder)) == 2 and step.of("reg_make", "interactive")
    made = contents(step.folder)
    step.do("reg_make")
    assert len(step.host.asked) == 5  # the third was asked for twice, no other one
    assert all(contents(step.folder)[name] == made[name] for name in made) and len(seeds(step)) == 4


def test_a_reroll_is_another_seed_of_its_own_and_undo_brings_the_image_back(step):
    step.do("reg_make")
    before, old = contents(step.folder), seeds(step)
    step.select(NAMES[1], NAMES[3], "train/gone")
    step.do("reg_reroll")
    new = seeds(step)
    assert {name for name in NAMES if new[name] != old[name]} == {NAMES[1], NAMES[3]}
    assert "re-rolled 1×" in step.shown("reg_gallery") and "2 images made." in step.text("reg_said")
    assert step.of("reg_undo", "interactive") and NAMES[3] in step.shown("reg_undo")
    first = contents(step.folder)
    step.do("reg_undo")
    step.do("reg_undo")
    assert contents(step.folder) == before and not step.of("reg_undo", "interactive")
    step.do("reg_redo")
    assert seeds(step)[NAMES[1]] == new[NAMES[1]]
    step.do("reg_redo")
    assert contents(step.folder) == first
    step.do("reg_make")
    assert contents(step.folder) == first  # a re-rolled image is as it should be
    step.select()
    step.do("reg_reroll")
    assert "none is selected" in step.text("reg_said")


def test_a_stopped_reroll_keeps_what_it_made(step):
    step.do("reg_make")
    old = seeds(step)
    step.host.before = lambda number: step.works.cancel("mikori") if number == 6 else None
    step.select(*NAMES)
    step.do("reg_reroll")
    assert sum(seeds(step)[name] != old[name] for name in NAMES) == 1
    assert "still selected" in step.text("reg_said") and "1 of 4 images made." in step.text("reg_said")


def test_a_name_with_signs_of_a_pattern_means_its_own_image(root, tmp_path):
    for name in ("o*e", "O_e", "o e"):
        picture(root / "10_mikori" / f"{name}.png", (96, 96), caption="mikori, hat")
    step = Step(tmp_path, config(root))
    step.enter(steps=1)
    step.do("reg_make")
    before = contents(step.folder)
    for name in ("o*e", "O_e", "o e"):
        step.select(f"train/mikori/{name}")
        step.do("reg_reroll")
        now = contents(step.folder)
        assert {each for each in now if now[each] != before[each]} == {f"train/mikori/{name}.png"}
        before = now


def test_a_removal_that_is_called_off_changes_nothing_and_hidden_files_are_no_images(step):
    step.do("reg_make")
    before = contents(step.folder)
    control = Control()
    control.ask("stop")
    *_, last = reg_jobs.remove(step.folder, NAMES, (".txt",), control)
    assert last.reason == "stopped" and contents(step.folder) == before
    with pytest.raises(DataError, match="is not in"):
        list(reg_jobs.remove(step.folder, ["../project"], (".txt",), Control()))
    (step.folder / ".hidden").mkdir()
    for name in (".hidden/a.png", ".b.png", "c.jpg"):
        (step.folder / name).write_bytes(b"")
    assert len(reg_folder.listed(step.folder)) == 4 and reg_folder.holds_any(step.folder)
    assert not reg_folder.holds_any(step.folder / ".hidden" / "none")


def test_other_settings_are_asked_about_before_anything_is_made_anew(step):
    step.do("reg_make")
    (step.folder / "train" / "other" / "four.png").unlink()
    before = contents(step.folder)
    step.enter(steps=3)
    step.do("reg_make")
    question = step.text("reg_question")
    assert step.of("reg_asking", "visible") and "<b>3</b>" in question and "Sampling steps" in question
    assert contents(step.folder) == before
    step.do("reg_rest")
    now = contents(step.folder)
    assert {name for name in now if now[name] != before.get(name)} == {"train/other/four.png"}
    step.do("reg_make")
    assert step.of("reg_rest", "visible") is False
    step.do("reg_remake")
    assert all(reg_folder.read_facts(path)["steps"] == 3 for path in reg_folder.listed(step.folder))
    assert "Undo: Made" in step.shown("reg_undo")


def test_removed_images_go_to_the_holding_and_come_back(step):
    step.do("reg_make")
    before = contents(step.folder)
    step.select(NAMES[0])
    step.do("reg_remove")
    assert set(before) - set(contents(step.folder)) == {f"{NAMES[0]}.png", f"{NAMES[0]}.txt"}
    assert "1 image removed." in step.text("reg_said") and "have changed since this list" in step.text("reg_stale")
    step.do("reg_undo")
    assert contents(step.folder) == before and "Taken back" in step.text("reg_said")
    for bad in ('["../../project"]', '["train"]', "[1]", "no JSON", '{"a": 1}'):
        step.values[step.tab.selection._id] = bad
        step.do("reg_remove")
        assert "lora-trainer-error" in step.shown("reg_said"), bad
    assert contents(step.folder) == before


def test_the_images_become_a_source_of_the_project_once(step, root):
    assert not step.of("reg_add", "visible") and reg_state.state_of(step.place, step.session, step.works) == "todo"
    step.do("reg_add")
    assert "there are none yet" in step.text("notice")
    step.do("reg_make")
    assert step.of("reg_add", "visible") and reg_state.state_of(step.place, step.session, step.works) == "look"
    step.do("reg_add")
    sources = opened(step.place.projects, "mikori").config.data.sources
    assert [source.path for source in sources] == [str(root), str(step.folder)]
    assert sources[1].regularization and sources[1].keep_tokens == 0 and sources[1].repeats == 1
    assert "Regularization images added" in step.text("notice") and not step.of("reg_add", "visible")
    assert "The project trains on them." in step.shown("reg_about") and step.refreshed == 3
    assert reg_state.state_of(step.place, step.session, step.works) == "done"
    step.do("reg_add")
    assert len(opened(step.place.projects, "mikori").config.data.sources) == 2
    assert "already" in step.text("notice")
    step.do("reg_list")
    assert step.shown("reg_rows").count("<li ") == 4  # not of themselves


def test_settings_stay_with_the_project_and_two_browsers_merge(step, root, tmp_path):
    step.enter(remove="red_hair\nsmile", prompts="class", texts="1girl", guidance=3.5)
    held = step.value(step.tab.held._id)
    other = reg_project.load(projects.find(step.place.projects, "mikori"))
    reg_project.save(
        projects.find(step.place.projects, "mikori"), replace(other.options, negative="blurry"), other.options
    )
    step.enter(seed=7)
    project = projects.find(step.place.projects, "mikori")
    kept = reg_project.load(project).options
    assert kept == RegularizationConfig(
        prompts="class",
        remove=("red_hair", "smile"),
        texts=("1girl",),
        guidance=3.5,
        negative="blurry",
        seed=7,
        steps=2,
    )
    assert held.kept.options.negative == ""
    step.values[step.tab.held._id] = type(held)()
    step.values[step.tab.settings["negative"]._id] = ""
    step.do("step_reg", "select")
    assert step.shown("set_reg_negative") == "blurry" and step.shown("set_reg_remove") == "red_hair\nsmile"
    assert step.of("set_reg_texts", "visible") and not step.of("set_reg_remove", "visible")


def test_a_form_of_another_project_is_never_saved_into_this_one(step):
    other = projects.create(step.place.projects, "other")
    step.values[step.page.session._id] = opened(step.place.projects, "other")
    step.do("set_reg_seed", "blur", set_reg_seed=99)
    assert "another project" in step.text("reg_said") and not (other.folder / reg_project.FILE).exists()
    step.do("refresh")
    assert step.shown("set_reg_seed") == 1 and step.shown("set_reg_steps") == 20
    step.do("set_reg_seed", "blur", set_reg_seed=99)
    assert reg_project.load(other).options.seed == 99


def test_one_folder_leaves_out_more_and_a_folder_that_goes_is_no_obstacle(step, root, tmp_path):
    more = picture(tmp_path / "more" / "five.png", (96, 96), caption="mikori, smile, hat").parent
    session = step.session
    projects.save(projects.find(step.place.projects, "mikori"), config(root, more), session.version)
    step.scan()
    step.do("step_reg", "select")
    step.values[step.tab.held._id] = type(step.value(step.tab.held._id))()
    step.do("step_reg", "select")
    assert step.of("reg_of", "choices") == [f"1: {root}", f"2: {more}"]
    step.do("reg_of", "input", reg_of=f"2: {more}")
    step.do("reg_sources", "blur", reg_sources="smile")
    step.do("reg_of", "input", reg_of=f"1: {root}")
    assert step.shown("reg_sources") == ""
    step.do("reg_of", "input", reg_of=f"2: {more}")
    assert step.shown("reg_sources") == "smile"
    project = projects.find(step.place.projects, "mikori")
    assert reg_project.load(project).options.sources == (SourceMarks(str(more), ("smile",)),)
    step.do("reg_make")
    captions = {name.rpartition("/")[2]: text for name, text in contents(step.folder).items() if name.endswith(".txt")}
    assert captions["five.txt"] == b"hat" and captions["one.txt"] == b"1girl, red_hair, smile"
    projects.save(project, config(root), opened(step.place.projects, "mikori").version)
    step.scan()
    step.do("reg_of", "input", reg_of=f"1: {root}")
    step.do("reg_list")
    assert "is no source" not in step.text("reg_said") and step.shown("reg_rows").count("<li ") == 4


def test_mistakes_stand_beside_their_settings_and_start_nothing(step):
    step.enter(steps=0, guidance="x")
    assert "#lora_trainer_set_reg_steps{" in step.shown("reg_beside")
    assert "#lora_trainer_set_reg_guidance{" in step.shown("reg_beside")
    assert "Sampling steps" in step.text("reg_said") and "0 is too small" in step.text("reg_said")
    step.do("reg_make")
    assert not step.folder.exists() and "0 is too small" in step.text("reg_said")
    step.enter(steps=2, guidance=7)
    assert step.shown("reg_beside") == "" and step.shown("reg_said") == ""
    step.enter(remove="/(/")
    step.do("reg_list")
    assert "#lora_trainer_set_reg_remove{" in step.shown("reg_beside") and "Leave out" in step.text("reg_said")
    step.enter(remove="", prompts="class")
    step.do("reg_make")
    assert "#lora_trainer_set_reg_texts{" in step.shown("reg_beside") and "Name the class" in step.text("reg_said")
    step.enter(texts="1girl", sampler="Nonsense")
    step.do("reg_make")
    assert "#lora_trainer_set_reg_sampler{" in step.shown("reg_beside") and not step.folder.exists()


def test_nothing_is_made_while_a_training_uses_the_model(step, monkeypatch):
    monkeypatch.setattr(step.place.searches, "busy", lambda *_: True)
    for name in ("reg_make", "reg_reroll"):
        step.do(name)
        assert "A training uses the model" in step.text("reg_said")
    step.do("reg_list")
    assert step.shown("reg_rows").count("<li ") == 4  # looking is no work for the model


def test_the_gate_keeps_pictures_and_work_shut(root, tmp_path):
    closed = []

    def gate():
        if closed:
            raise UserError("closed")

    step = Step(tmp_path, config(root), gate)
    closed.append(1)
    for name in ("reg_list", "reg_make", "reg_reroll", "reg_remove", "reg_undo"):
        step.do(name)
        assert "closed" in step.text("reg_said"), name
    assert not step.folder.exists()


def test_a_thousand_images_are_shown_in_pages(root, tmp_path, monkeypatch):
    monkeypatch.setattr(reg_list, "PAGE", 3)
    monkeypatch.setattr(reg_gallery, "PAGE", 3)
    step = Step(tmp_path, config(root))
    step.enter(steps=1, per_image=2)
    step.do("reg_make")
    assert step.of("reg_list_pager", "visible") and "1 / 3" in step.shown("reg_list_page")
    step.do("reg_list_next")
    step.do("reg_list_next")
    step.do("reg_list_next")
    assert "3 / 3" in step.shown("reg_list_page") and step.shown("reg_rows").count("<li ") == 2
    step.do("reg_images_next")
    assert "2 / 3" in step.shown("reg_images_page") and step.shown("reg_gallery").count("<figure") == 3
    step.select("train/mikori/two")
    step.do("reg_reroll")
    assert "2 / 3" in step.shown("reg_images_page")  # the page stays
    (step.folder / "train" / "mikori" / "two.png").unlink()
    step.do("reg_list")
    kinds = step.of("reg_which", "choices")
    assert [value for _, value in kinds] == ["All", "todo", "made"]
    step.do("reg_which", "input", reg_which="todo")
    assert step.shown("reg_rows").count("<li ") == 1 and "to make" in step.shown("reg_rows")


def test_time_is_estimated_once_images_were_made(step):
    step.do("reg_make")
    step.enter(steps=4)
    step.do("reg_list")
    assert "to make them" in step.shown("reg_head") and "to make anew" in step.shown("reg_rows")
    project = projects.find(step.place.projects, "mikori")
    reg_project.remember_speed(project, "tiny", 8.0, 2.0)
    assert (
        reg_project.seconds_for(project, "tiny", 3.0) == 12.0 and reg_project.seconds_for(project, "other", 3.0) is None
    )
    (project.cache / reg_project.SPEEDS).write_text("[1")
    assert reg_project.seconds_for(project, "tiny", 3.0) is None


def test_words_and_classes_are_listed_without_a_diff(step):
    step.enter(prompts="words", texts="taco\nmona")
    step.do("reg_list")
    html = step.shown("reg_rows")
    assert "<del>" not in html and "taco" in html and "mona" in html and "data-reg-mark" not in step.shown("reg_head")


def test_every_component_stays_out_of_ui_config_and_events_have_no_api_name(step):
    kinds = ("radio", "checkbox", "textbox", "number", "dropdown", "button", "checkboxgroup")
    for component in step.blocks.blocks.values():
        if type(component).__name__.lower() in kinds:
            assert component.do_not_save_to_config is True, component.elem_id
    assert all(each["api_name"] is False for each in step.blocks.dependencies)
    assert json.loads(step.value(step.tab.selection._id)) == []


def test_every_fact_that_can_differ_has_a_name_people_know(step):
    step.do("reg_make")
    facts = reg_folder.read_facts(step.folder / f"{NAMES[0]}.png")
    told = reg_options.differing(facts)
    assert not set(facts) & set(told.split(", ")) and "Model" in told and "CFG scale" in told
