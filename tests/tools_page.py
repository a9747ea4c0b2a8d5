"""The panel of dataset tools by itself, whose events a test triggers as a browser would."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

gr = pytest.importorskip("gradio")

from fake_host import FakeHost, Story  # noqa: E402
from lib_lora_trainer.app import projects  # noqa: E402
from lib_lora_trainer.app.queue import Runner  # noqa: E402
from lib_lora_trainer.base.events import Event  # noqa: E402
from lib_lora_trainer.config.data import DataConfig  # noqa: E402
from lib_lora_trainer.config.run import RunConfig  # noqa: E402
from lib_lora_trainer.dataset.tools.upscale import NamedUpscaler  # noqa: E402
from lib_lora_trainer.ui import tools_actions, tools_form  # noqa: E402
from lib_lora_trainer.ui.place import Place  # noqa: E402
from lib_lora_trainer.ui.scans import Scans  # noqa: E402
from lib_lora_trainer.ui.searches import Searches  # noqa: E402
from lib_lora_trainer.ui.session import Session, opened  # noqa: E402
from lib_lora_trainer.ui.tools_work import Works  # noqa: E402


class UpscalingHost(FakeHost):
    """A fake host with upscalers, which a test fills in."""

    offered: tuple[NamedUpscaler, ...] = ()

    def upscalers(self) -> tuple[NamedUpscaler, ...]:
        return self.offered


def no_search(*_: object) -> Iterator[Event]:
    """Stand for a search that no test of the panel asks for."""
    raise AssertionError("nobody asked for a search")


def place_in(folder: Path, gate: Callable[[], None] = lambda: None) -> Place:
    """Return a place with a fake host and its projects in a folder."""
    host = UpscalingHost(folder / "Lora")
    return Place(host, Runner(Story()), folder / "projects", gate, False, Scans(), Searches(no_search))


def project_with(place: Place, data: DataConfig, name: str = "mikori") -> Session:
    """Create a project with these settings and return a session on it."""
    project = projects.create(place.projects, name)
    snapshot = projects.load(project)
    config = RunConfig(data=data)
    projects.save(project, config, snapshot.version)
    return opened(place.projects, name)


def blocks_of(place: Place, session: Session, works: Works | None = None, **look: Any) -> Any:
    """Return Blocks with the panel alone, its tab, and the places where a test reads and writes."""
    refreshed: list[int] = []
    with gr.Blocks(analytics_enabled=False, **look) as blocks, gr.Column(elem_id="lora_trainer_root"):
        state = gr.State(session)
        selection = gr.Textbox("[]", elem_id="lora_trainer_selection")
        tools = tools_form.layout()
        follow = lambda event: event.then(lambda: refreshed.append(1), None, None, queue=False)  # noqa: E731
        tools_actions.wire(place, SimpleNamespace(session=state), tools, selection, follow, works)
    return SimpleNamespace(blocks=blocks, state=state, selection=selection, tools=tools, refreshed=refreshed)


class Panel:
    """The panel, without a browser. do: runs an event and what follows it; every update of a generator is kept."""

    def __init__(self, folder: Path, data: DataConfig, gate: Callable[[], None] = lambda: None) -> None:
        self.place = place_in(folder, gate)
        self.session = project_with(self.place, data)
        self.works = Works()
        made = blocks_of(self.place, self.session, self.works)
        self.blocks, self.tools, self.refreshed, self.selection = (
            made.blocks,
            made.tools,
            made.refreshed,
            made.selection,
        )
        self.values: dict[int, Any] = {}
        self.shown_at: list[dict[int, Any]] = []

    def component(self, name: str) -> Any:
        return next(c for c in self.blocks.blocks.values() if getattr(c, "elem_id", None) == f"lora_trainer_{name}")

    def enter(self, **given: Any) -> None:
        for key, value in given.items():
            component = getattr(self.tools, key, None) or self.component(key)
            self.values[component._id] = (
                json.dumps(value) if isinstance(value, (dict, list)) and key != "values" else value
            )

    def options(self, tool: str, **given: Any) -> None:
        names = [component.elem_id.rpartition("_")[2] for component in self.tools.options[tool]]
        for name, value in given.items():
            self.values[self.tools.options[tool][names.index(name)]._id] = value

    def do(self, name: str, trigger: str = "click", **given: Any) -> None:
        self.enter(**given)
        element = getattr(self.tools, name, None) or self.component(name)
        dependencies = self.blocks.dependencies
        starts = [
            i for i, each in enumerate(dependencies) if element._id in each["targets"] and each["trigger"] == trigger
        ]
        waiting = starts[:1]
        assert waiting, f"nothing happens on {trigger} of {name}"
        while waiting:
            index = waiting.pop(0)
            self._run(index)
            waiting += [i for i, each in enumerate(dependencies) if each.get("trigger_after") == index]

    def _run(self, index: int) -> None:
        event, work = self.blocks.dependencies[index], self.blocks.fns[index].fn
        got = work(*[self.value(number) for number in event["inputs"]])
        for answer in got if hasattr(got, "__next__") else [got]:
            updates = answer
            if not isinstance(answer, dict) or "__type__" in answer:
                outputs = [self.blocks.blocks[number] for number in event["outputs"]]
                updates = dict(zip(outputs, [answer], strict=False))
            for component, update in updates.items():
                assert component._id in event["outputs"], f"{component.elem_id} is no output of its event"
                self._take(component, update)
            self.shown_at.append(dict(self.values))

    def _take(self, component: Any, update: Any) -> None:
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
        return self.value((getattr(self.tools, name, None) or self.component(name))._id)

    def said(self) -> str:
        """Return what the panel tells, as a person reads it."""
        return html.unescape(self.shown("said"))

    def of(self, name: str, about: str) -> Any:
        return getattr(getattr(self.tools, name), f"shown_{about}", None)
