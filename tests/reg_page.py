"""The Reg images step within the whole page's layout, on a host that makes images of one colour at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

gr = pytest.importorskip("gradio")

import captions_page  # noqa: E402
from lib_lora_trainer.app import projects, reg_project  # noqa: E402
from lib_lora_trainer.config.run import RunConfig  # noqa: E402
from lib_lora_trainer.hosts.api import ImageRequest, MadeImage, Needs  # noqa: E402
from lib_lora_trainer.ui import reg_actions, tab  # noqa: E402
from lib_lora_trainer.ui.session import opened  # noqa: E402
from lib_lora_trainer.ui.tools_work import Works  # noqa: E402
from tiny_host import TinyHost, TinyLease  # noqa: E402
from tools_page import place_in  # noqa: E402


class TellingLease(TinyLease):
    """A lease that tells of every image before it is made."""

    _host: TellingHost

    def generate(
        self, requests: Sequence[ImageRequest], go_on: Callable[[], bool] = lambda: True
    ) -> Iterator[MadeImage]:
        for request in requests:
            self._host.asked.append(request)
            self._host.before(len(self._host.asked))
            yield from super().generate([request], go_on)


class TellingHost(TinyHost):
    """asked: every image that was asked for; before: called with their number before each is made."""

    def __init__(self, adapters: Path) -> None:
        super().__init__(adapters)
        self.asked: list[ImageRequest] = []
        self.before: Callable[[int], None] = lambda number: None

    def lease(self, needs: Needs) -> TellingLease:
        return TellingLease(self, needs)

    def upscalers(self) -> tuple[()]:
        return ()


class Step(captions_page.Step):
    """The step without a browser, with a project of these settings."""

    def __init__(self, folder: Path, config: RunConfig, gate: Callable[[], None] = lambda: None) -> None:
        self.host = TellingHost(folder / "Lora")
        self.place = replace(place_in(folder, gate), host=self.host)
        project = projects.create(self.place.projects, "mikori")
        projects.save(project, config, projects.load(project).version)
        self.session = opened(self.place.projects, "mikori")
        self.works, self.refreshed = Works(), 0
        self.values: dict[int, Any] = {}
        with gr.Blocks(analytics_enabled=False) as self.blocks:
            self.page = tab._layout(self.place)
            reg_actions.wire(self.place, self.page, self._refresh, self.works)
        self.tab: Any = self.page.reg
        self.values[self.page.session._id] = self.session
        self.folder = reg_project.folder(project)
        self.do("step_reg", "select")

    def scan(self) -> None:
        """Read the project anew, as the page does after a change."""
        self.session = opened(self.place.projects, self.session.project)
        self.values[self.page.session._id] = self.session

    def enter(self, **settings: Any) -> None:
        """Fill in settings and leave their fields, as a person does."""
        for name, value in settings.items():
            element = f"set_reg_{name.replace('_', '-')}"
            trigger = "input" if name in ("prompts", "sampler") else "blur"
            self.do(element, trigger, **{element: value})

    def select(self, *names: str) -> None:
        """Select images, as the page's script sends it."""
        self.values[self.tab.selection._id] = json.dumps(names)
