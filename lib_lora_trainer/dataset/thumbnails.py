"""Small pictures for galleries, made when first asked for and kept on disk."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from PIL import Image

from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.base.files import replacing
from lib_lora_trainer.dataset.formats import DECODER_ERRORS, explain, opened
from lib_lora_trainer.dataset.pixels import upright_rgb


def thumbnail(path: Path, cache: Path, size: int = 256) -> Path:
    """Return a JPEG of a picture, upright, at most size × size pixels and never enlarged, in the folder `cache`.

    Made anew when the file's path, modification time or length differs. Written atomically, so several threads may
    ask at once. Raises DataError naming the file when it cannot be read.
    """
    try:
        about = path.stat()
        identity = os.fsencode(path.absolute()) + f"\x1f{about.st_mtime_ns}\x1f{about.st_size}\x1f{size}".encode()
        target = cache / f"{hashlib.sha256(identity).hexdigest()[:32]}.jpg"
        if target.exists():
            return target
        with opened(path) as image:
            image.draft(image.mode, (2 * size, 2 * size))  # a JPEG then decodes at a fraction of its size
            small = upright_rgb(image)
    except DECODER_ERRORS as error:
        raise DataError(str(explain(path, error))) from error
    small.thumbnail((size, size), Image.Resampling.LANCZOS)
    with replacing(target) as temporary:
        small.save(temporary, "JPEG", quality=85)
    return target
