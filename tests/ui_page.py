"""The tab as tests use it: its events called without a browser."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

gr = pytest.importorskip("gradio")

from PIL import Image  # noqa: E402

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


class Tab:
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
