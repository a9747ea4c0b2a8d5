"""Where the tab is shown: the host behind it, the runner, and what is allowed there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lib_lora_trainer.app import tag_jobs
from lib_lora_trainer.app.queue import Runner
from lib_lora_trainer.evaluate.grid_studio import Studio
from lib_lora_trainer.hosts.api import Host
from lib_lora_trainer.ui.scans import Scans
from lib_lora_trainer.ui.searches import Searches
from lib_lora_trainer.workshop import presets


@dataclass(frozen=True)
class Place:
    """What the tab needs to know of its surroundings.

    projects: the folder that holds one folder per project. gate: raises UserError where folders of this machine must
    not be read on a visitor's word. txt2img: whether a txt2img tab is beside this one. scans: what was found in the
    folders; searches: for a learning rate. taggers: where they are; the command line's folder if absent. studio: where
    grids are made; adapters are attached to the host's model if absent.
    """

    host: Host
    runner: Runner
    projects: Path
    gate: Callable[[], None]
    txt2img: bool
    scans: Scans
    searches: Searches
    taggers: tag_jobs.Place | None = None
    studio: Studio | None = None

    @property
    def own_presets(self) -> Path:
        """Where the user's own block weights are kept: beside the projects, where `lbw=` in the WebUI reads them, too."""
        return self.projects.parent / presets.FILE

    @property
    def presets(self) -> tuple[Path, ...]:
        """The files of block weights that prompts here read, and the user's own, which counts most."""
        return tuple(dict.fromkeys([*self.host.preset_files(presets.FILE), self.own_presets]))
