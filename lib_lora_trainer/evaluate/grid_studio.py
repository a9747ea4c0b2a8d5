"""Where the images of a grid are made, as far as a grid needs to know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.base.families import Family
from lib_lora_trainer.evaluate.grid_axes import Scene
from lib_lora_trainer.hosts.values import MadeImage

Paint = Callable[[Scene, Callable[[], bool]], MadeImage | None]
"""Makes one image; None when it was interrupted. The second argument is asked between steps whether to go on."""


class Studio(Protocol):
    """A model with a sampler that can change adapters, and perhaps checkpoints, between two images."""

    def family(self) -> Family:
        """Return the family of the loaded model. Raises HostRefusal when none is loaded."""

    def made_by(self, scene: Scene) -> Mapping[str, str]:
        """Return what besides the scene decides about its pixels: the model's and the VAE's identity, the host."""

    def problems(self, scenes: Sequence[Scene]) -> tuple[Problem, ...]:
        """Return what stands against making them, each thing once, by its name."""

    def opened(self) -> AbstractContextManager[Paint]:
        """Return exclusive use of the model, which is afterwards what it was."""
