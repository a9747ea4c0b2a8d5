"""Pictures before and after a tool, small and inside the page: nothing is written, no file of the machine is served."""

from __future__ import annotations

import base64
import io
import tempfile
from functools import partial
from pathlib import Path

from PIL import Image

from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.dataset.formats import FORMATS
from lib_lora_trainer.dataset.masks import same_shape
from lib_lora_trainer.dataset.pixels import open_grey
from lib_lora_trainer.dataset.tools import upscale
from lib_lora_trainer.dataset.tools.operations import Operation
from lib_lora_trainer.dataset.tools.pictures import FrameOf, Rewritten, whole

SMALL = 320  # pixels of the longer side in a preview
MASKED = (0.25, (255, 0, 255))  # how much of the picture shows where nothing is learned, and the colour over it


def data_address(image: Image.Image, side: int = SMALL) -> str:
    """Return a picture as a `data:` address, at most `side` pixels long; with transparency as PNG, else as JPEG."""
    small = image.copy()
    small.info = {}
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    if small.mode in ("RGBA", "L"):
        small.save(stream, "PNG")
        return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
    small.convert("RGB").save(stream, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def before(path: Path) -> Image.Image | None:
    """Return a picture as it is; None for what is no picture or cannot be read, which its problems tell."""
    if not path.is_file():
        return None
    try:
        return whole(path)
    except DataError:
        return None


def made(operation: Operation) -> Image.Image | None:
    """Return the picture that an operation writes; None if it writes none, or a model has to work for it.

    Raises DataError when the file it is made of was changed.
    """
    content = operation.content
    if content is None or operation.path.suffix.lower() not in FORMATS:
        return None
    if isinstance(content, Rewritten):
        return None if _needs_model(content) else content.edit(whole(content.source))
    if isinstance(content, FrameOf):
        return content.frames.frame(content.number)
    with tempfile.TemporaryDirectory(prefix="lora-trainer-") as folder:
        path = Path(folder, f"preview{operation.path.suffix}")
        content(path)
        return whole(path)


def _needs_model(content: Rewritten) -> bool:
    edit = content.edit
    return isinstance(edit, partial) and edit.func is upscale.enlarged and edit.args[0] is not upscale.lanczos


def masked(path: Path, mask: Path) -> Image.Image | None:
    """Return a picture with what its mask leaves out under a colour; None when one of them cannot be read."""
    try:
        image, grey = whole(path).convert("RGB"), open_grey(mask)
    except DataError:
        return None
    if not same_shape(grey.size, image.size):
        return grey
    return veiled(image, grey)


def veiled(image: Image.Image, grey: Image.Image) -> Image.Image:
    """Return a picture with what a mask leaves out under a colour; the mask is brought to the picture's size."""
    image = image.copy()
    image.thumbnail((2 * SMALL, 2 * SMALL), Image.Resampling.LANCZOS)
    share, colour = MASKED
    veil = Image.blend(Image.new("RGB", image.size, colour), image, share)
    return Image.composite(image, veil, grey.resize(image.size, Image.Resampling.BILINEAR))
