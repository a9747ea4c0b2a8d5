"""A log that TensorBoard shows: loss, learning rates and sample images of a run."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from lib_lora_trainer.base.errors import Problem, UserError
from lib_lora_trainer.base.events import Event, Progress, SampleMade
from lib_lora_trainer.config.run import RunConfig

_FLUSH_SECONDS = 10  # so that the curve is seen to grow
_PROMPT_LENGTH = 60  # characters of a prompt in the name of its images


def problems(config: RunConfig) -> tuple[Problem, ...]:
    """Return an error when a log is wanted and the package tensorboard is not installed."""
    if not config.save.tensorboard or importlib.util.find_spec("tensorboard") is not None:
        return ()
    fix = f'Run "{sys.executable}" -m pip install tensorboard and start again, or switch the log off.'
    return (Problem("error", "save.tensorboard", "the package tensorboard is not installed.", fix),)


class Sink:
    """Writes the events it is given into a folder that TensorBoard reads; leave it with `with` to complete the file.

    Scalars by optimizer step: loss/current, loss/average, and lr/<group> for each parameter group, with the learning
    rate that had effect: Progress tells of D-Adaptation and Prodigy d·lr and nothing else, so that there is one curve
    where sd-scripts draws lr and lr/d*lr. Images: samples/<number of the prompt>_<prompt>.

    folder: of one run; a resumed run goes on in it. step: the last one that is done; what the folder has of later steps,
    for they are taken again, TensorBoard then leaves out (its purge_step).
    Raises UserError when the package tensorboard cannot be imported.
    """

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(
                f'The log for TensorBoard cannot be written ({error}). Run "{sys.executable}" -m pip install '
                "tensorboard, or switch save.tensorboard off."
            ) from error
        # Samples made before the first step belong to step 0.
        purged = step + 1 if step else 0
        self._writer: Any = SummaryWriter(str(folder), purge_step=purged, flush_secs=_FLUSH_SECONDS)
        self._prompts: dict[tuple[str, int], int] = {}

    def take(self, event: Event) -> None:
        """Write what an event tells; events without figures or pictures are passed over."""
        if isinstance(event, Progress):
            self._writer.add_scalar("loss/current", event.loss, event.step)
            self._writer.add_scalar("loss/average", event.loss_average, event.step)
            for group, rate in event.learning_rates.items():
                self._writer.add_scalar(f"lr/{_name(group)}", rate, event.step)
        elif isinstance(event, SampleMade):
            number = self._prompts.setdefault((event.prompt, event.seed), len(self._prompts) + 1)
            tag = f"samples/{number:02d}_{_name(event.prompt[:_PROMPT_LENGTH])}".rstrip("_")
            self._add_image(tag, Path(event.path), event.step)

    def _add_image(self, tag: str, path: Path, step: int) -> None:
        from PIL import Image

        if not path.is_file():  # removed by the user meanwhile; a log is no reason to end a training
            return
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        self._writer.add_image(tag, pixels, step, dataformats="HWC")

    def __enter__(self) -> Sink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()


def _name(text: str) -> str:
    """Return a text with the letters that TensorBoard takes in names, which it else replaces with a warning each."""
    return re.sub(r"[^-\w.]+", "_", text.replace("×", "x")).strip("_")
