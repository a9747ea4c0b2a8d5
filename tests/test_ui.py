"""The tab without a browser: form and settings, events, what is shown, and what must never be shown."""

import re
import threading
from dataclasses import replace
from pathlib import Path

import pytest

gr = pytest.importorskip("gradio")

from PIL import Image  # noqa: E402

from fake_host import INFO  # noqa: E402
from lib_lora_trainer.app import projects  # noqa: E402
from lib_lora_trainer.base.errors import DataError, Problem, UserError  # noqa: E402
from lib_lora_trainer.base.events import Failed, Note, Progress, SampleMade  # noqa: E402
from lib_lora_trainer.config.data import SourceConfig  # noqa: E402
from lib_lora_trainer.config.paths import put  # noqa: E402
from lib_lora_trainer.config.run import RunConfig  # noqa: E402
from lib_lora_trainer.ui import curve, findings, live, pictures, project_bar  # noqa: E402
from lib_lora_trainer.ui.scans import Scans  # noqa: E402
from lib_lora_trainer.ui.session import Session, commit, latest, opened  # noqa: E402
from ui_page import ROOT, SAMPLERS, Tab, entered, page, pictures_folder  # noqa: E402, F401


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
            "checkboxgroup",
            "tabs",
        ):
            assert component.do_not_save_to_config is True, component.elem_id
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


def test_scan_shows_concepts_and_problems(page: Tab) -> None:
    page.do("scan")
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
    page.do("source_path", "blur", source_path=str(pictures_folder))
    spots = {"plan": "planned", "start": "planned", "enqueue": "planned", "sweep_add": "sweep_result"}
    for button in ("scan", "plan", "start", "enqueue", "sweep_add", "rate_begin", "import_from_path", "waiting_begin"):
        place = spots.get(button, "notice")
        page.do(button, sweep="adapter.rank: 4, 8", import_path=str(pictures_folder))
        assert "not from here" in page.shown(place), button
    assert 'data-mark=""' in page.shown("gallery_mark")
    assert page.runner.status() is None


def test_messages_beside_fields_cannot_break_out_of_their_style() -> None:
    style = findings.beside_fields([Problem("error", "adapter.rank", '"}</style><script>', "x")])
    assert style.count("<") == 4, "the style's own two tags, and those of the list of marked fields"
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
    two = curve.drawn([curve.Line("a", points), curve.Line("b", points)], band=False)
    numbers = [float(y) for y in re.findall(r"[\d.]+,(-?[\d.]+)", re.findall(r'line-1" points="([^"]*)"', two)[0])]
    assert max(numbers) - min(numbers) > curve.HEIGHT / 2, "where no raw loss is drawn, none takes room"
    broken = replace(points[0], loss=float("nan"), loss_average=float("nan"))
    assert curve.drawn([curve.Line("a", [broken])]) == ""


def test_colours_come_from_the_theme_alone() -> None:
    style = (ROOT / "style.css").read_text(encoding="utf-8")
    style = re.sub(r"--lora-trainer-frame: hsl[^;]+;", "", style)  # drawn over pictures, whatever the theme
    assert not re.search(r"#[0-9a-fA-F]{3,8}\b(?![-_\w])(?=[;\s])", re.sub(r"#lora_trainer\w*", "", style))
    assert not re.search(r"\b(rgb|rgba|hsl|hsla)\(", style)
