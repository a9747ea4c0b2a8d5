"""The tab as tests use it: its events called without a browser."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

gr = pytest.importorskip("gradio")

from PIL import Image  # noqa: E402

from driven_page import DrivenPage  # noqa: E402
from fake_host import FakeHost, Story  # noqa: E402
from lib_lora_trainer.app.queue import Runner  # noqa: E402
from lib_lora_trainer.base.events import Event  # noqa: E402
from lib_lora_trainer.config.run import RunConfig  # noqa: E402
from lib_lora_trainer.ui import bind, fields, tab  # noqa: E402
from lib_lora_trainer.ui.place import Place  # noqa: E402
from lib_lora_trainer.ui.scans import Scans  # noqa: E402
from lib_lora_trainer.ui.searches import Searches  # noqa: E402

ROOT = Path(__file__).parents[1]
SAMPLERS = ("Euler a", "DDIM")


def entered(config: RunConfig, **changes: Any) -> list[Any]:
    """Return what the form sends for a configuration, with some fields changed by their dotted path (`.` as `__`)."""
    values = bind.values(config)
    places = [field.path for field in fields.all_fields()]
    for name, value in changes.items():
        values[places.index(name.replace("__", "."))] = value
    return values


def no_search(*_: object) -> Iterator[Event]:
    """Stand for a search that no test of the page asks for."""
    raise AssertionError("nobody asked for a search")


class Tab(DrivenPage):
    """The built tab, whose events a test triggers by the element that a person would press."""

    def __init__(
        self,
        folder: Path,
        story: Story | None = None,
        gate: Callable[[], None] = lambda: None,
        find: Callable[..., Iterator[Event]] | None = None,
    ) -> None:
        self.root = folder / "projects"
        self.host = FakeHost(folder / "Lora")
        self.runner = Runner(story or Story())
        self.searches = Searches(find or no_search)
        place = Place(self.host, self.runner, self.root, gate, True, Scans(), self.searches)
        self.blocks = tab.at(place)
        self.values: dict[int, Any] = {}


@pytest.fixture
def pictures_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures" / "3_mikori"
    folder.mkdir(parents=True)
    for index in range(4):
        Image.new("RGB", (64, 64), (60 * index, 0, 0)).save(folder / f"p{index}.png")
        (folder / f"p{index}.txt").write_text(f"mikori, <img src=x onerror=alert({index})>", encoding="utf-8")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder.parent


def opened_page(tmp_path: Path, pictures: Path, **of_tab: Any) -> Tab:
    """Return the tab with a project on four pictures. of_tab: passed to Tab."""
    made = Tab(tmp_path, **of_tab)
    made.do("attach")
    made.do("create", new_name="mikori")
    made.do(
        "source_path", "blur", source_path=str(pictures), set_triggers="mikori", set_data_resolution=64,
        set_data_bucket=False, set_samples_prompts="mikori\nmikori, <b>",
    )  # fmt: skip
    return made


@pytest.fixture
def page(tmp_path: Path, pictures_folder: Path) -> Tab:
    return opened_page(tmp_path, pictures_folder)
