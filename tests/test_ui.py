"""The tab without a browser: form and settings, events, what is shown, and what must never be shown."""

import json
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

gr = pytest.importorskip("gradio")

from PIL import Image  # noqa: E402

from fake_host import INFO, FakeHost, Story  # noqa: E402
from lib_lora_trainer.app import projects, runs  # noqa: E402
from lib_lora_trainer.app.queue import Runner  # noqa: E402
from lib_lora_trainer.base.errors import DataError, HostRefusal, Problem, ProblemsFound, UserError  # noqa: E402
from lib_lora_trainer.base.events import Failed, Note, Progress, SampleMade  # noqa: E402
from lib_lora_trainer.config.data import SourceConfig  # noqa: E402
from lib_lora_trainer.config.paths import flat, put  # noqa: E402
from lib_lora_trainer.config.run import RunConfig  # noqa: E402
from lib_lora_trainer.ui import bind, curve, fields, findings, live, pictures, project_bar, tab  # noqa: E402
from lib_lora_trainer.ui.scans import Scans  # noqa: E402
from lib_lora_trainer.ui.session import Session, commit, latest, opened  # noqa: E402

ROOT = Path(__file__).parents[1]
SAMPLERS = ("Euler a", "DDIM")


def entered(config: RunConfig, **changes: Any) -> list[Any]:
    """Return what the form sends for a configuration, with some fields changed by their dotted path (`.` as `__`)."""
    values = bind.values(config)
    places = [field.path for field in fields.all_fields()]
    for name, value in changes.items():
        values[places.index(name.replace("__", "."))] = value
    return values


class Tab:
    """The built tab, whose events a test triggers by the element that a person would press."""

    def __init__(self, folder: Path, story: Story | None = None, gate: Callable[[], None] = lambda: None) -> None:
        self.root = folder / "projects"
        self.host = FakeHost(folder / "Lora")
        self.runner = Runner(story or Story())
        self.blocks = tab.build(self.host, self.runner, self.root, gate, txt2img=True)
        self.values: dict[int, Any] = {}

    def component(self, name: str) -> Any:
        return next(c for c in self.blocks.blocks.values() if getattr(c, "elem_id", None) == f"lora_trainer_{name}")

    def do(self, name: str, trigger: str = "click", **given: Any) -> None:
        """Run the event of an element and every event that follows it, as the page would."""
        for key, value in given.items():
            self.values[self.component(key)._id] = value
        element = self.component(name)
        first = next(
            index
            for index, each in enumerate(self.blocks.dependencies)
            if element._id in each["targets"] and each["trigger"] == trigger
        )
        waiting = [first]
        while waiting:
            index = waiting.pop(0)
            self._run(index)
            waiting += [i for i, each in enumerate(self.blocks.dependencies) if each.get("trigger_after") == index]

    def _run(self, index: int) -> None:
        event, work = self.blocks.dependencies[index], self.blocks.fns[index].fn
        if work is None:
            return
        outputs = event["outputs"]
        got = work(*[self.value(number) for number in event["inputs"]])
        if not isinstance(got, dict) or "__type__" in got:
            got = dict(zip([self.blocks.blocks[i] for i in outputs], got if len(outputs) > 1 else [got], strict=False))
        for component, update in got.items():
            assert component._id in outputs, f"{getattr(component, 'elem_id', component)} is no output of its event"
            if isinstance(update, dict) and str(update.get("__type__")).endswith("update"):
                for key, value in update.items():
                    if key == "value":
                        self.values[component._id] = value
                    elif key != "__type__":
                        setattr(component, f"shown_{key}", value)
            else:
                self.values[component._id] = update

    def value(self, number: int) -> Any:
        return self.values.get(number, getattr(self.blocks.blocks[number], "value", None))

    def shown(self, name: str) -> Any:
        return self.value(self.component(name)._id)

    def of(self, name: str, about: str) -> Any:
        return getattr(self.component(name), f"shown_{about}", None)


@pytest.fixture
def pictures_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures" / "3_mikori"
    folder.mkdir(parents=True)
    for index in range(4):
        Image.new("RGB", (64, 64), (60 * index, 0, 0)).save(folder / f"p{index}.png")
        (folder / f"p{index}.txt").write_text(f"mikori, <img src=x onerror=alert({index})>", encoding="utf-8")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder.parent


@pytest.fixture
def page(tmp_path: Path, pictures_folder: Path) -> Tab:
    made = Tab(tmp_path)
    made.do("attach")
    made.do("create", new_name="mikori")
    made.do(
        "source_0_path", "blur", source_0_path=str(pictures_folder), set_triggers="mikori", set_data_resolution=64,
        set_data_bucket=False, set_samples_prompts="mikori\nmikori, <b>",
    )  # fmt: skip
    return made


def test_every_setting_has_exactly_one_place(tmp_path: Path) -> None:
    everything = {path for path, _ in flat(RunConfig())} - set(fields.ELSEWHERE)
    unfolded = [field.path for field in fields.visible_fields()]
    folded = [field.path for field in fields.folded_fields()]
    assert sorted([*unfolded, *folded, *fields.IN_DATASET]) == sorted(everything)
    assert {field.group for field in fields.folded_fields()} <= set(fields.GROUPS)
    assert len(unfolded) <= 12, "the settings that matter fit on one screen"


def test_what_the_form_shows_is_what_it_saves() -> None:
    config = RunConfig(name="x", triggers=("a", "b c"))
    config = put(config, "samples.prompts", ("one, two", "three"))
    config = put(config, "optimizer.epsilon", 1e-9)
    config = put(config, "data.sources", (SourceConfig("/a", 3, False, "fallback"), SourceConfig("/b")))
    config = put(config, "base_model", "abc")
    assert bind.configuration(config, bind.values(config), SAMPLERS) == config


def test_more_folders_than_rows_are_kept() -> None:
    sources = tuple(SourceConfig(f"/{number}") for number in range(bind.ROWS + 3))
    config = put(RunConfig(), "data.sources", sources)
    assert bind.configuration(config, entered(config, adapter__rank=4), SAMPLERS).data.sources == sources


def test_every_mistake_is_named_with_its_field() -> None:
    values = entered(
        RunConfig(), adapter__rank=0, training__epochs=2.5, training__seed=None, adapter__method="full",
        optimizer__schedule="'; drop", samples__sampler="unknown", optimizer__unet_learning_rate=float("nan"),
    )  # fmt: skip
    with pytest.raises(ProblemsFound) as caught:
        bind.configuration(RunConfig(), values, SAMPLERS)
    assert {problem.where for problem in caught.value.problems} == {
        "adapter.rank", "training.epochs", "training.seed", "adapter.method", "optimizer.schedule", "samples.sampler",
        "optimizer.unet_learning_rate",
    }  # fmt: skip


def test_a_problem_in_a_list_or_a_folder_finds_its_field() -> None:
    assert bind.element_of("adapter.rank") == "lora_trainer_set_adapter_rank"
    assert bind.element_of("samples.prompts[1]") == "lora_trainer_set_samples_prompts"
    assert bind.element_of("data.sources[2].repeats") == "lora_trainer_source_2_repeats"
    assert bind.element_of("/some/picture.png") == ""


def test_all_components_stay_out_of_ui_config_and_have_harmless_ids(page: Tab) -> None:
    seen = []
    for component in page.blocks.blocks.values():
        if type(component).__name__.lower() in (
            "slider",
            "radio",
            "checkbox",
            "textbox",
            "number",
            "dropdown",
            "button",
        ):
            assert component.do_not_save_to_config is True, component.label
            assert component.elem_id is not None
        if getattr(component, "elem_id", None):
            seen.append(component.elem_id)
    assert len(seen) == len(set(seen))
    assert all(name.startswith("lora_trainer_") for name in seen)
    assert not [name for name in seen if re.search(r"_(generate|interrupt|skip)$", name)]


def test_no_event_is_described_by_the_programming_interface(page: Tab) -> None:
    assert all(each["api_name"] is False for each in page.blocks.dependencies)


def test_an_edit_is_saved_at_once_and_seen_by_another_browser(page: Tab) -> None:
    page.do("set_adapter_rank", "blur", set_adapter_rank=32)
    other = Tab(page.root.parent)
    other.do("attach", remembered="mikori")
    assert other.shown("set_adapter_rank") == 32
    assert other.shown("set_triggers") == "mikori"


def test_a_wrong_value_is_not_saved_and_marked(page: Tab) -> None:
    page.do("set_adapter_rank", "blur", set_adapter_rank=-1)
    assert projects.load(projects.find(page.root, "mikori")).config.adapter.rank == 16
    assert "#lora_trainer_set_adapter_rank" in page.shown("styles")
    page.do("set_adapter_rank", "blur", set_adapter_rank=8)
    assert projects.load(projects.find(page.root, "mikori")).config.adapter.rank == 8
    assert page.shown("styles") == ""


def test_two_browsers_lose_nothing_and_are_told(page: Tab) -> None:
    other = Tab(page.root.parent)
    other.do("attach", remembered="mikori")
    page.do("set_adapter_rank", "blur", set_adapter_rank=32)
    page.do("set_training_epochs", "blur", set_training_epochs=3)
    other.do("set_training_epochs", "blur", set_training_epochs=9)
    other.do("set_training_batch-size", "blur", **{"set_training_batch-size": 2})
    config = projects.load(projects.find(page.root, "mikori")).config
    assert (config.adapter.rank, config.training.epochs, config.training.batch_size) == (32, 3, 2)
    other.do("refresh")
    assert 'data-stale="1"' in other.shown("status")
    other.do("attach")
    assert "Rank (dim) is now 32" in other.shown("notice") or "Epochs = 9" in other.shown("notice")
    assert other.shown("set_training_epochs") == 3
    other.do("refresh")
    assert 'data-stale="0"' in other.shown("status")


def test_two_quick_edits_of_one_browser_are_no_conflict(tmp_path: Path) -> None:
    projects.create(tmp_path, "p")
    session = opened(tmp_path, "p")
    first = put(session.config, "adapter.rank", 32)
    commit(tmp_path, session, first)
    late = commit(tmp_path, session, put(first, "training.epochs", 3))  # its session does not know of the first yet
    assert (late.messages, late.reload) == ((), False)
    assert (late.session.config.adapter.rank, late.session.config.training.epochs) == (32, 3)


def test_the_page_opens_what_this_browser_had_else_what_changed_last(tmp_path: Path) -> None:
    assert latest(tmp_path, Session(), "") == Session()
    for name in ("one", "two"):
        projects.create(tmp_path, name)
    assert latest(tmp_path, Session(), "one").project == "one"
    assert latest(tmp_path, Session(), "gone").project == projects.names(tmp_path)[0]


def test_scan_shows_pictures_captions_and_problems_and_escapes_them(page: Tab) -> None:
    page.do("scan")
    assert page.shown("pictures").count("<figure>") == 4
    assert "<img src=x" not in page.shown("pictures")
    assert "&lt;img src=x" in page.shown("pictures")
    assert "3_mikori" in page.shown("concepts")
    assert "× 3" in page.shown("concepts")
    assert ">12<" in page.shown("concepts")
    assert "broken.png" in page.shown("scan_problems")
    page.do("refresh")
    assert 'data-dataset="look"' in page.shown("status")


def test_a_scan_tells_how_far_it_is_and_can_be_called_off(tmp_path: Path, pictures_folder: Path) -> None:
    scans, seen = Scans(), []
    config = put(RunConfig(), "data.sources", (SourceConfig(str(pictures_folder)),))
    assert scans.progress("p") is None
    watching = threading.Event()

    def watch() -> None:
        while not watching.is_set():
            if (at := scans.progress("p")) not in (None, *seen):
                seen.append(at)

    watcher = threading.Thread(target=watch)
    watcher.start()
    scans.scan("p", config)
    watching.set()
    watcher.join()
    assert all(done <= whole for done, whole in seen)
    assert scans.progress("p") is None
    assert len(scans.last("p").items) == 4  # type: ignore[union-attr]
    assert scans.current("p", config)
    assert not scans.current("p", put(config, "triggers", ("x",)))

    announced = scans._announce

    def announced_and_cancelled(project: str) -> object:
        reading = announced(project)
        scans.cancel(project)
        return reading

    scans._announce = announced_and_cancelled  # type: ignore[method-assign,assignment]
    with pytest.raises(UserError, match="called off"):
        scans.scan("p", config)
    assert scans.progress("p") is None


def test_nothing_needs_gradios_queue(page: Tab) -> None:
    """With --no-gradio-queue the WebUI would not even start: gradio refuses generators, progress and `every`."""
    page.blocks.enable_queue = False
    page.blocks.validate_queue_settings()


def test_a_gallery_has_pages(page: Tab, pictures_folder: Path) -> None:
    for index in range(4, 30):
        Image.new("RGB", (64, 64), (index, 9, 0)).save(pictures_folder / "3_mikori" / f"p{index:02d}.png")
    page.do("scan")
    assert "1–24 of 30" in page.shown("page")
    page.do("next_page")
    page.do("next_page")
    assert "25–30 of 30" in page.shown("page")
    assert page.shown("pictures").count("<figure>") == 6
    page.do("filter", "input", filter="Without caption")
    assert "1–24 of 26" in page.shown("page")


def test_only_pictures_in_the_projects_folder_are_ever_addressed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    Image.new("RGB", (8, 8)).save(secret)
    (tmp_path / "project").mkdir()
    with pytest.raises(DataError):
        pictures.address(secret, tmp_path / "project")
    with pytest.raises(DataError):
        pictures.address(tmp_path / "project" / ".." / "secret.png", tmp_path / "project")
    hidden = tmp_path / ".hidden"
    hidden.mkdir()
    Image.new("RGB", (8, 8)).save(hidden / "a.png")
    assert pictures.address(hidden / "a.png", hidden).startswith("data:image/png;base64,")
    html = pictures.samples([SampleMade(str(secret), "a", 1, 1, 1)], tmp_path / "project")
    assert "secret" not in html


def test_folders_are_not_read_where_strangers_could_ask(tmp_path: Path, pictures_folder: Path) -> None:
    def closed() -> None:
        raise UserError("not from here")

    page = Tab(tmp_path, gate=closed)
    page.do("attach")
    page.do("create", new_name="p")
    page.do("source_0_path", "blur", source_0_path=str(pictures_folder))
    for button, place in (("scan", "notice"), ("plan", "planned"), ("start", "planned")):
        page.do(button)
        assert "not from here" in page.shown(place), button
    assert "<figure>" not in page.shown("pictures")
    assert page.runner.status() is None


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


def test_folders_can_be_added_and_removed(page: Tab, tmp_path: Path) -> None:
    page.do("add_folder")
    assert page.of("source_1", "visible") is True
    page.do("source_1_path", "blur", source_1_path=str(tmp_path))
    page.do("source_0_remove")
    sources = projects.load(projects.find(page.root, "mikori")).config.data.sources
    assert [source.path for source in sources] == [str(tmp_path)]
    assert page.of("source_1", "visible") is False


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


def test_messages_beside_fields_cannot_break_out_of_their_style() -> None:
    style = findings.beside_fields([Problem("error", "adapter.rank", '"}</style><script>', "x")])
    assert style.count("<") == 2, "the style's own two tags"
    text = re.search(r'content:"([^"]*)"', style)
    assert text is not None
    decoded = "".join(chr(int(code, 16)) for code in re.findall(r"\\([0-9a-f]{6})", text.group(1)))
    assert decoded == '"}</style><script> x'


def test_messages_names_and_details_are_escaped() -> None:
    bad = "<script>alert(1)</script>"
    panel = live.panel(bad, "failed", [Note("warning", bad), Failed(bad, ({"message": bad, "where": bad},), bad)])
    model = project_bar.model_html(replace(INFO, name=bad, title=bad), Session())
    assert "<script" not in panel + model + findings.notice([bad]) + findings.empty(bad, bad)


def test_a_curve_shows_every_run_within_its_frame_even_with_outliers() -> None:
    losses = [0.1] * 300 + [1e6] + [0.1] * 300
    points = [
        Progress(step, 601, step, 601, 1, 1, loss, 0.1 + 0.0001 * step, {}, 1.0, 1.0)
        for step, loss in enumerate(losses, 1)
    ]
    drawn = curve.drawn([curve.Line("a", points)])
    numbers = [
        float(y)
        for y in re.findall(r"[\d.]+,(-?[\d.]+)", re.findall(r'lora-trainer-line-0" points="([^"]*)"', drawn)[0])
    ]
    assert all(0 <= y <= curve.HEIGHT for y in numbers)
    assert max(numbers) - min(numbers) > curve.HEIGHT / 3, "one outlier does not flatten the line"
    assert len(numbers) <= curve.BINS + 1
    broken = replace(points[0], loss=float("nan"), loss_average=float("nan"))
    assert curve.drawn([curve.Line("a", [broken])]) == ""


def test_colours_come_from_the_theme_alone() -> None:
    style = (ROOT / "style.css").read_text(encoding="utf-8")
    assert not re.search(r"#[0-9a-fA-F]{3,8}\b(?![-_\w])(?=[;\s])", re.sub(r"#lora_trainer\w*", "", style))
    assert not re.search(r"\b(rgb|rgba|hsl|hsla)\(", style)


def test_translations_are_of_texts_that_exist(page: Tab) -> None:
    words = json.loads((ROOT / "localizations" / "ja_JP.json").read_text(encoding="utf-8"))
    shown = {
        getattr(c, name, None)
        for c in page.blocks.blocks.values()
        for name in ("label", "info", "value", "placeholder")
    }
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "lib_lora_trainer").rglob("*.py"))
    unknown = [word for word in words if word not in shown and word not in source]
    assert unknown == []
    assert all(words.values())
