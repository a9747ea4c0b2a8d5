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

from driven_page import DrivenPage  # noqa: E402
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


class Panel(DrivenPage):
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
        return getattr(self.tools, name, None) or super().component(name)

    def answered(self) -> None:
        self.shown_at.append(dict(self.values))

    def put(self, **given: Any) -> None:
        for key, value in given.items():
            self.values[self.component(key)._id] = (
                json.dumps(value) if isinstance(value, (dict, list)) and key != "values" else value
            )

    def options(self, tool: str, **given: Any) -> None:
        names = [component.elem_id.rpartition("_")[2] for component in self.tools.options[tool]]
        for name, value in given.items():
            self.values[self.tools.options[tool][names.index(name)]._id] = value

    def said(self) -> str:
        """Return what the panel tells, as a person reads it."""
        return html.unescape(self.shown("said"))
