"""The Captions step within the whole page's layout, whose own events a test triggers as a browser would."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

gr = pytest.importorskip("gradio")

from driven_page import DrivenPage  # noqa: E402
from lib_lora_trainer.app import tag_jobs  # noqa: E402
from lib_lora_trainer.config.data import DataConfig  # noqa: E402
from lib_lora_trainer.ui import captions_actions, tab  # noqa: E402
from lib_lora_trainer.ui.session import opened  # noqa: E402
from lib_lora_trainer.ui.tools_work import Works  # noqa: E402
from tools_page import place_in, project_with  # noqa: E402


class Step(DrivenPage):
    """The step without a browser. do: runs an event and what follows it; script: what the page's script would send."""

    def __init__(
        self, folder: Path, data: DataConfig, gate: Callable[[], None] = lambda: None, host: Any = None
    ) -> None:
        self.home = folder / "taggers"
        place = place_in(folder, gate)
        self.place = replace(place, host=host or place.host, taggers=tag_jobs.Place(self.home))
        self.session = project_with(self.place, data)
        self.works, self.refreshed = Works(), 0
        self.values: dict[int, Any] = {}
        with gr.Blocks(analytics_enabled=False) as self.blocks:
            page = tab._layout(self.place)
            captions = page.captions
            captions_actions.wire(
                self.place, page, captions, page.dataset.gallery.selection, self._refresh, self.works
            )
        self.page, self.tab = page, captions
        self.values[page.session._id] = self.session
        self.scan()

    def _refresh(self, event: Any) -> None:
        event.then(self._count, None, None, queue=False, api_name=False)

    def _count(self) -> None:
        self.refreshed += 1
        self.scan()

    def scan(self) -> None:
        """Scan the folders, as the page does."""
        self.session = opened(self.place.projects, self.session.project)
        self.values[self.page.session._id] = self.session
        self.place.scans.scan(self.session.project, self.session.config)

    def ask(self, **question: Any) -> dict[str, Any]:
        """Return the server's answer to a question of the page's script."""
        self.do("captions_ask", captions_question=json.dumps({"number": 7, **question}))
        answer: dict[str, Any] = json.loads(self.shown("captions_answer"))
        assert answer.pop("number") == 7
        return answer

    def text(self, name: str) -> str:
        """Return what a part shows, as a person reads it."""
        return html.unescape(self.shown(name) or "")
