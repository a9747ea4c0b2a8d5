"""The tab in the WebUI: registered at every (re)load of the interface; the runner outlives it."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

from lib_lora_trainer.base.errors import UserError

_REQUIRED = {"tomlkit": "tomlkit", "lycoris": "lycoris-lora"}  # module: the package that contains it


def register() -> None:
    """Ask the WebUI to show the tab, and have block weights in prompts."""
    from modules import script_callbacks

    script_callbacks.on_ui_tabs(tabs)
    if not missing():
        from lib_lora_trainer.hosts.webui import blockweights

        blockweights.register()


def tabs() -> list[tuple[Any, str, str]]:
    """Return the tab as `on_ui_tabs` wants it: (blocks, title, element id)."""
    return [(_blocks(), "LoRA Trainer", "lora_trainer")]


def missing() -> tuple[str, ...]:
    """Return the required packages that are not installed."""
    return tuple(package for module, package in _REQUIRED.items() if importlib.util.find_spec(module) is None)


def gate() -> None:
    """Raise UserError where strangers could reach this WebUI: folders of this machine are then not read."""
    from modules import shared

    if shared.cmd_opts.disable_extension_access:
        raise UserError(
            "This WebUI can be reached over the network (--share, --listen or the like), so reading folders of this "
            "machine is switched off. Start it without that, or add --enable-insecure-extension-access if you trust "
            "everyone who can reach it."
        )


@functools.lru_cache(maxsize=1)
def runner() -> Any:
    """Return the process's one runner: "Reload UI" runs the extension's script anew but keeps this module."""
    from lib_lora_trainer.app import jobs
    from lib_lora_trainer.app.queue import Runner

    return Runner(jobs.train)


def _blocks() -> Any:
    absent = missing()
    if absent:
        return _sentence(
            f"LoRA Trainer needs {' and '.join(absent)}, which {'is' if len(absent) == 1 else 'are'} not installed. "
            "Restart the WebUI without --skip-install and it will be added, or install it yourself into the WebUI's "
            f"Python: pip install {' '.join(absent)}"
        )
    from modules import call_queue, paths

    from lib_lora_trainer.app.tag_jobs import Place
    from lib_lora_trainer.hosts.webui.grid_images import WebuiStudio
    from lib_lora_trainer.hosts.webui.host import WebuiHost
    from lib_lora_trainer.ui.tab import build

    folder, models = Path(paths.data_path) / "lora-trainer" / "projects", Path(paths.models_path)
    # Another extension's folder is read, never written to: it stops at names that it does not know.
    taggers = Place(models / "lora-trainer-taggers", (models / "TaggerOnnx",), lambda: call_queue.queue_lock)
    return build(WebuiHost(), runner(), folder, gate, txt2img=True, taggers=taggers, studio=WebuiStudio())


def _sentence(text: str) -> Any:
    from lib_lora_trainer.ui.sentence import sentence

    return sentence(text)
