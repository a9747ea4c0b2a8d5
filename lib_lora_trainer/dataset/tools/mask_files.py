"""Where a new mask of a picture goes, and what becomes of the old one."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from PIL import Image

from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.dataset.tools.disk import Content
from lib_lora_trainer.dataset.tools.members import Dataset, Member
from lib_lora_trainer.dataset.tools.operations import Operation, remove, replace, write
from lib_lora_trainer.dataset.tools.pictures import is_png


def require_folder(dataset: Dataset) -> Path:
    """Return the folder of a source's masks. Raises ConfigError when it has none."""
    if dataset.masks is None:
        raise ConfigError("masks: the source has no folder for masks. Choose one, then begin again.")
    return dataset.masks


def taken(dataset: Dataset, member: Member, content: Content) -> list[Operation]:
    """Return the operations that make new content a picture's own mask, a PNG; the last one is about its file.

    It goes to the subfolder that answers to the picture's. A mask there is replaced and goes to the holding; one that
    lies directly in the masks' folder, where other pictures may find it too, stays.
    """
    inside = require_folder(dataset) / member.path.parent.relative_to(dataset.root)
    target, old = inside / f"{member.path.stem}.png", member.mask
    if old is None or old.parent != inside or old.stem != target.stem:
        return [write(target, content)]
    if is_png(old):
        return [replace(old, content)]
    return [remove(old), replace(target, content) if target.exists() else write(target, content)]


def drawn(dataset: Dataset, member: Member, grey: Image.Image) -> list[Operation]:
    """Return the operations that make a picture's mask of an image, 8-bit grey."""
    return taken(dataset, member, partial(_save, grey))


def _save(grey: Image.Image, path: Path) -> None:
    grey.save(path, "PNG")
