"""WD14 taggers: pictures to probabilities of tags."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.tagging import session
from lib_lora_trainer.tagging.labels import Label, read_labels
from lib_lora_trainer.tagging.models import Found, in_folder
from lib_lora_trainer.tagging.preprocess import prepared
from lib_lora_trainer.tagging.session import Session


@dataclass(frozen=True)
class Tagger:
    """A loaded tagger. side: of the square input, pixels."""

    session: Session
    labels: tuple[Label, ...]

    @property
    def side(self) -> int:
        """The side of its square input in pixels."""
        return self.session.layout.side


def load(folder: Path, device: str = "cpu") -> Tagger:
    """Return the tagger in a folder with `model.onnx` and `selected_tags.csv`, open until nobody refers to it.

    Raises UserError when onnxruntime is missing, DataError when the files do not fit together.
    """
    found = in_folder(folder)
    if found is None:
        text = "there is no such file. Choose a folder with model.onnx and selected_tags.csv."
        raise DataError(f"{folder / 'model.onnx'}: {text}")
    return _fitting(session.start(found.model, device), found)


@contextmanager
def opened(found: Found, device: str = "auto") -> Iterator[Tagger]:
    """Yield a tagger, closed when the block ends; as `session.opened`. Raises as `load`."""
    with session.opened(found.model, device) as running:
        yield _fitting(running, found)


def probabilities(tagger: Tagger, images: Sequence[Image.Image], batch_size: int = 8) -> NDArray[np.float32]:
    """Return the probability of every label for every picture, (N, labels) float32 in [0, 1]."""
    layout = tagger.session.layout
    size = layout.batch or batch_size
    parts = [
        tagger.session.run(np.stack([prepared(image, layout) for image in images[start : start + size]]))
        for start in range(0, len(images), size)
    ]
    return np.concatenate(parts) if parts else np.zeros((0, len(tagger.labels)), np.float32)


def _fitting(running: Session, found: Found) -> Tagger:
    labels = read_labels(found.tags)
    if running.outputs not in (0, len(labels)):
        raise DataError(
            f"{found.model.parent}: the model has {running.outputs} outputs and the list {len(labels)} tags. "
            "Get both anew."
        )
    return Tagger(running, labels)
