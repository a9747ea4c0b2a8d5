"""Everything a run has settled before its first step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from lib_lora_trainer.adapters.attach import Attachment
from lib_lora_trainer.base.events import Event, Saved
from lib_lora_trainer.config.run import RunConfig
from lib_lora_trainer.dataset.order import Length
from lib_lora_trainer.hosts.api import Lease
from lib_lora_trainer.train.batches import Material
from lib_lora_trainer.train.processes import Processes
from lib_lora_trainer.train.state import Live, Position
from lib_lora_trainer.train.text_cache import TextCache


@dataclass(frozen=True)
class Model:
    """What is trained on: the lease, the adapters in force on it, and the schedule of noise actually used.

    alphas_cumprod: (1000,) float32 on the CPU, after the zero-terminal fix where it applies.
    texts: encoded captions, None when they are encoded anew in each step.
    """

    lease: Lease
    attachment: Attachment
    alphas_cumprod: torch.Tensor
    texts: TextCache | None


@dataclass(frozen=True)
class Outputs:
    """Where results go. state_file: replaced at each resume point; belongs_to: what a state must match.

    save_adapter(position, label) writes an adapter file and yields what it did; make_samples(position) sample images;
    discard(path) removes a save that `save.keep_last` no longer keeps.
    """

    state_file: Path
    belongs_to: str
    save_adapter: Callable[[Position, str], Iterator[Saved]]
    make_samples: Callable[[Position], Iterator[Event]]
    discard: Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """A run: settings, model, dataset, trained objects, length, the processes that share it, and its outputs."""

    config: RunConfig
    model: Model
    material: Material
    live: Live
    length: Length
    processes: Processes
    outputs: Outputs

    @property
    def main(self) -> bool:
        """Whether this process writes files and makes samples."""
        return self.processes.rank == 0
