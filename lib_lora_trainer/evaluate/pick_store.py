"""What a trial has made, kept on disk: an image and what the tagger says about it, each whole or not there.

images/<key>.png, where the key is a digest of everything that decides an image: the adapter's content, the weight, the
request, the model and its arithmetic. scores/<tagger>/<key>.npy: float16 (labels,), where the tagger is its identity.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.base.files import replacing
from lib_lora_trainer.hosts.values import ImageRequest, MadeImage, ModelInfo

VERSION = 1
DIGITS = 12


@dataclass(frozen=True)
class Store:
    """The folder of a trial. tagger: identity of what looks at the images."""

    folder: Path
    tagger: str

    def image(self, key: str) -> Path:
        """Where an image is, or would be."""
        return self.folder / "images" / f"{key}.png"

    def load_image(self, key: str) -> Image.Image | None:
        """Return a kept image; None for one that is absent or damaged."""
        try:
            with Image.open(self.image(key)) as image:
                return image.convert("RGB")
        except (OSError, SyntaxError, ValueError):
            return None

    def put_image(self, key: str, made: MadeImage) -> None:
        """Keep an image with its parameter text. Raises DataError where it cannot be written."""
        text = PngInfo()
        text.add_text("parameters", made.infotext)
        with writing(self.folder), replacing(self.image(key)) as temporary:
            made.image.save(temporary, format="PNG", pnginfo=text)

    def load_scores(self, key: str, labels: int) -> NDArray[np.float32] | None:
        """Return what the tagger said, (labels,) float32; None when it has not looked, or the file is damaged."""
        try:
            found = np.load(self._scores(key), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return found.astype(np.float32) if found.shape == (labels,) else None

    def put_scores(self, key: str, row: NDArray[np.float32]) -> None:
        """Keep what the tagger says; half precision is exact to 0.0005. Raises DataError as `put_image`."""
        with writing(self.folder), replacing(self._scores(key)) as temporary, temporary.open("wb") as stream:
            np.save(stream, row.astype(np.float16))

    def _scores(self, key: str) -> Path:
        name = hashlib.sha256(self.tagger.encode()).hexdigest()[:DIGITS]
        return self.folder / "scores" / name / f"{key}.npy"


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn the system's refusal to write into what the user can do about it."""
    try:
        yield
    except OSError as error:
        text = f"{error.filename or folder}: {error.strerror or error}."
        raise DataError(f"{text} Make room, or make the folder writable, and start again.") from error


def key_of(adapter: str, weight: float, request: ImageRequest, model: ModelInfo, dtype: str) -> str:
    """Return the name of an image: a digest, 40 hexadecimal digits. adapter: digest of its file, "" for the base."""
    about = {
        "version": VERSION,
        "adapter": adapter,
        "weight": weight if adapter else 0.0,
        "request": asdict(request),
        "model": [model.host, model.sha256 or model.title, model.vae, dtype],
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:40]
