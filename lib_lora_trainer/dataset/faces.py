"""Where the face is, from a file name that ends in `_x_y_w_h`, as sd-scripts' face detection writes it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.config.data import DataConfig

_SUFFIX = re.compile(r"_([0-9]+)_([0-9]+)_([0-9]+)_([0-9]+)$")


@dataclass(frozen=True)
class Face:
    """A face in an upright picture. x, y: its centre; size: its longer side; pixels."""

    x: int
    y: int
    size: int


def face_in(path: Path, width: int, height: int) -> Face | None:
    """Return the face that a picture's name gives; None when there is none, or its centre is not in the picture."""
    match = _SUFFIX.search(path.stem)
    if match is None:
        return None
    x, y, across, down = map(int, match.groups())
    inside = x < width and y < height and min(across, down) > 0
    return Face(x, y, max(across, down)) if inside else None


def without_face(stem: str) -> str:
    """Return a file's stem without the face's numbers."""
    return _SUFFIX.sub("", stem)


def crops_faces(data: DataConfig) -> bool:
    """Tell whether pictures are cropped around their faces."""
    return data.face_crop_minimum > 0


def face_problems(data: DataConfig) -> tuple[Problem, ...]:
    """Return an error when the range of the face crop is none."""
    if not crops_faces(data) or data.face_crop_minimum <= data.face_crop_maximum:
        return ()
    text = f"{data.face_crop_maximum:g} is smaller than data.face_crop_minimum, {data.face_crop_minimum:g}."
    return (Problem("error", "data.face_crop_maximum", text, "Use as much, or more."),)
