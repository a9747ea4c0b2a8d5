"""Results of slow work on pictures, kept on disk: what was done before an end, or a crash, is not done again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from lib_lora_trainer.base.files import replacing
from lib_lora_trainer.dataset.tools.upscale import Upscaler

Remover = Callable[[Image.Image], Image.Image]
"""Takes an RGB picture and returns its mask, 8-bit grey of the same size: white where the subject is."""


def kept_upscaler(upscaler: Upscaler, name: str, folder: Path) -> Upscaler:
    """Return an upscaler whose results are kept in a folder; name: tells it from others."""

    def upscale(image: Image.Image, size: tuple[int, int]) -> Image.Image:
        return _kept(folder, f"{name}\x1f{size}", image, lambda: upscaler(image, size))

    return upscale


def kept_remover(remover: Remover, name: str, folder: Path) -> Remover:
    """Return a remover whose masks are kept in a folder; name: tells it from others."""

    def remove(image: Image.Image) -> Image.Image:
        return _kept(folder, name, image, lambda: remover(image))

    return remove


def drop(folder: Path) -> None:
    """Delete what was kept in a folder; a file that is being written is left to its writer."""
    for path in folder.glob("*.png"):
        if not path.name.startswith("."):
            path.unlink(missing_ok=True)


def _kept(folder: Path, about: str, image: Image.Image, make: Callable[[], Image.Image]) -> Image.Image:
    identity = f"{about}\x1f{image.mode}\x1f{image.size}\x1f".encode()
    path = folder / f"{hashlib.sha256(identity + image.tobytes()).hexdigest()[:32]}.png"
    if path.is_file():
        with Image.open(path, formats=["PNG"]) as known:
            known.load()
            return known
    made = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        made.save(temporary, "PNG", compress_level=1)
    return made
