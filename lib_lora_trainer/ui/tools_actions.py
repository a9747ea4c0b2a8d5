"""The events of the panel of dataset tools: choosing, looking, applying, calling off, undoing, emptying the holding."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import gradio as gr

from lib_lora_trainer.app import dataset_tools
from lib_lora_trainer.ui import tools_masks_actions, tools_work
from lib_lora_trainer.ui.page import QUIET, Page
from lib_lora_trainer.ui.place import Place
from lib_lora_trainer.ui.tools_form import ToolsTab
from lib_lora_trainer.ui.tools_panel import Panel
from lib_lora_trainer.ui.tools_work import Works

WORKING = {"show_progress": "hidden", "api_name": False}  # in gradio's queue, because it may take minutes


def wire(
    place: Place,
    page: Page,
    tools: ToolsTab,
    selection: Any,
    refresh: Callable[[Any], Any],
    works: Works | None = None,
) -> Callable[[Any], Any]:
    """Connect the panel's events; return a function that follows an event by a look at the folders' journals.

    selection: a Textbox with the selected pictures as a JSON list of absolute paths. refresh: follows an event by a new
    scan. works: the jobs under way; the process's own if absent.
    """
    panel = Panel(place, tools, works or tools_work.shared())
    session, queue = page.session, WORKING
    look: dict[str, Any] = {
        "fn": panel.guarded(panel.look),
        "inputs": [session, tools.folder, tools.model],
        "outputs": tools.known | {tools.said},
        **QUIET,
    }

    def looked(event: Any) -> Any:
        return event.then(**look)

    tools.look.click(**look)
    tools.folder.input(**look)
    tools.model.input(**look)
    tools.tool.input(panel.choose, [tools.tool], {tools.about, *tools.columns.values(), *tools.working}, **QUIET)
    wish = [session, tools.tool, tools.folder, tools.on, selection, tools.upscaler, *tools.entered]
    tools.preview.click(panel.steps(panel.preview), wish, tools.working, **queue)
    tools.cancel.click(lambda now: panel.works.cancel(now.project), [session], None, **QUIET)
    for button, change in ((tools.previous, -1), (tools.next, 1)):
        turn = functools.partial(panel.turn, change)
        button.click(panel.steps(turn), [session, tools.held], tools.working - {tools.adjusted}, **queue)
    applied = tools.apply.click(panel.steps(panel.apply), [session, tools.held, tools.adjusted], tools.working, **queue)
    steps = [applied]
    for button, direction in ((tools.undo, dataset_tools.undo), (tools.redo, dataset_tools.redo)):
        back = functools.partial(panel.back, direction)
        steps.append(button.click(panel.steps(back), [session, tools.folder], tools.working, **queue))
    for event in steps:
        looked(event)
        refresh(event)
    looked(tools.install.click(panel.steps(panel.install), [session, tools.model], tools.working, **queue))
    asked = {tools.confirm, tools.question, tools.said}
    tools.empty.click(panel.guarded(panel.ask), [session, tools.folder], asked, **QUIET)
    tools.never.click(lambda: gr.update(visible=False), None, tools.confirm, **QUIET)
    looked(tools.really.click(panel.steps(panel.empty), [session, tools.folder], tools.working, **queue))
    tools_masks_actions.wire(place, page, tools, selection, (refresh, looked))
    return looked
