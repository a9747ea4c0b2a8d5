"""WD14 taggers: pictures to probabilities of tags, through onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib_lora_trainer.base.errors import DataError, UserError
from lib_lora_trainer.tagging.labels import Label, read_labels


@dataclass(frozen=True)
class Tagger:
    """A loaded tagger. side: of the square input, pixels."""

    session: Any
    labels: tuple[Label, ...]
    side: int


def load(folder: Path) -> Tagger:
    """Return the tagger in a folder with `model.onnx` and `selected_tags.csv`.

    Raises UserError when onnxruntime is missing, DataError when the files do not fit together.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"onnxruntime cannot be imported ({error}). Install it: pip install onnxruntime.") from error
    model = folder / "model.onnx"
    if not model.is_file():
        raise DataError(f"{model}: there is no such file. Choose a folder with model.onnx and selected_tags.csv.")
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    labels = read_labels(folder / "selected_tags.csv")
    outputs = session.get_outputs()[0].shape[-1]
    if outputs != len(labels):
        raise DataError(f"{folder}: the model has {outputs} outputs and the list {len(labels)} tags. Get both anew.")
    return Tagger(session, labels, int(session.get_inputs()[0].shape[1]))


def preprocess(image: Image.Image, side: int) -> NDArray[np.float32]:
    """Return a picture as the WD14 models take it: (side, side, 3) float32, BGR, 0…255.

    Transparency on white, padded with white to a centred square, resized bicubic (the models' own demo space).
    """
    if image.mode != "RGB":
        rgba = image.convert("RGBA")
        canvas = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        canvas.alpha_composite(rgba)
        image = canvas.convert("RGB")
    longest = max(image.size)
    square = Image.new("RGB", (longest, longest), (255, 255, 255))
    square.paste(image, ((longest - image.width) // 2, (longest - image.height) // 2))
    if longest != side:
        square = square.resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(square, dtype=np.float32)[:, :, ::-1]


def probabilities(tagger: Tagger, images: Sequence[Image.Image], batch_size: int = 8) -> NDArray[np.float32]:
    """Return the probability of every label for every picture, (N, labels) float32 in [0, 1]."""
    fixed = tagger.session.get_inputs()[0].shape[0]
    size = fixed if isinstance(fixed, int) and fixed > 0 else batch_size
    name = tagger.session.get_inputs()[0].name
    parts = []
    for start in range(0, len(images), size):
        batch = [preprocess(image, tagger.side) for image in images[start : start + size]]
        missing = size - len(batch) if isinstance(fixed, int) and fixed > 0 else 0
        batch += batch[-1:] * missing  # some exports have a fixed batch
        found = tagger.session.run(None, {name: np.stack(batch)})[0]
        parts.append(found[: len(found) - missing])
    return np.concatenate(parts) if parts else np.zeros((0, len(tagger.labels)), np.float32)
