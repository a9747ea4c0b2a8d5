"""What each tool can be told: one definition of every option, read by the command line, the tab and the checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.base.setting import setting
from lib_lora_trainer.dataset.entries import absolute

if TYPE_CHECKING:
    from lib_lora_trainer.dataset.tools.kept import Remover
    from lib_lora_trainer.dataset.tools.upscale import Upscaler

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are the first ones outside."""

# How far down each framing goes, in heads of the figure of 7½ heads that artists are taught (Richer, Artistic Anatomy):
# the chin is at 1, the nipples at 2, the navel at 3, the middle of the thighs at 4¾.
FRAMINGS: Mapping[str, float] = {
    "full_body": 7.5, "cowboy_shot": 4.75, "upper_body": 3.25, "portrait": 2.25, "close-up": 1.25,
}  # fmt: skip
GRADES: Mapping[str, float] = {"A": 1.0, "B": 0.8, "C": 0.6, "D": 0.4, "E": 0.2}
"""What share of its exposures a folder of a quality gets: A is large and clean, E small, cropped or badly drawn."""


@dataclass(frozen=True)
class ConvertOptions:
    """What is converted."""

    formats: tuple[str, ...] = setting(
        (), "Convert only files with these extensions, such as .webp or .gif; empty: all that are no still PNG.",
        label="Formats",
    )  # fmt: skip


@dataclass(frozen=True)
class AlphaOptions:
    """What takes the place of transparency."""

    colour: str = setting(
        "white", "What shows where the picture is transparent, such as white or #808080.", label="Colour"
    )
    keep_as_mask: bool = setting(
        False, "Keep the transparency as the picture's mask, where it has none yet.", label="Keep as mask"
    )


@dataclass(frozen=True)
class TrimOptions:
    """What counts as border."""

    tolerance: float = setting(
        20.0, "How far a pixel may be from the corner's colour and still be border, as ImageMagick's -fuzz.",
        minimum=0.0, maximum=100.0, unit="%", label="Tolerance",
    )  # fmt: skip
    shortest: int = setting(
        64, "A picture that would be left with a shorter side is not trimmed.",
        minimum=1, maximum=8192, unit="px", label="Shortest side",
    )  # fmt: skip


@dataclass(frozen=True)
class PadOptions:
    """What fills the square."""

    colour: str = setting("white", "Colour of the bars that are added, such as white or #808080.", label="Colour")


@dataclass(frozen=True)
class CropOptions:
    """Which crops are made.

    boxes: the subject's box by path, of pictures whose own is to be believed. windows: the crops themselves by path and
    framing; of a picture that is named here exactly these are made, however small, and nothing about it is guessed.
    """

    framings: tuple[str, ...] = setting(
        tuple(FRAMINGS), "The crops wanted, of: " + ", ".join(FRAMINGS) + ".", label="Framings", choices=tuple(FRAMINGS)
    )
    resolution: int = setting(
        512, "A crop with fewer pixels than this squared is not made.", minimum=64, maximum=4096, unit="px",
        label="Resolution",
    )  # fmt: skip
    assume_full_body: bool = setting(
        False, "Take pictures without a framing tag as showing the full body; else they are left out.",
        label="Assume full body",
    )  # fmt: skip
    by_contrast: bool = setting(
        False,
        "Guess the subject by its contrast where neither mask nor transparency tells it.",
        label="Guess by contrast",
    )
    boxes: Mapping[Path, Box] = field(default_factory=dict)
    windows: Mapping[Path, Mapping[str, Box]] = field(default_factory=dict)


def boxes_in(texts: Iterable[str], folder: Path) -> dict[Path, Box]:
    """Return the boxes given as FILE=LEFT,TOP,RIGHT,BOTTOM, files from a folder on. Raises ConfigError for other texts."""
    return {_file(text, folder): _box(text, "box", "FILE=LEFT,TOP,RIGHT,BOTTOM") for text in texts}


def windows_in(texts: Iterable[str], folder: Path) -> dict[Path, dict[str, Box]]:
    """Return the crops given as FILE=FRAMING:LEFT,TOP,RIGHT,BOTTOM, as `boxes_in`."""
    found: dict[Path, dict[str, Box]] = {}
    for text in texts:
        file, _, crop = text.rpartition("=")
        framing, _, numbers = crop.partition(":")
        if framing not in FRAMINGS:
            raise ConfigError(f"window: {text!r} names no framing. Write FILE=FRAMING:…, of: {', '.join(FRAMINGS)}.")
        box = _box(f"{file}={numbers}", "window", "FILE=FRAMING:LEFT,TOP,RIGHT,BOTTOM")
        found.setdefault(_file(text, folder), {})[framing] = box
    return found


def _file(text: str, folder: Path) -> Path:
    return absolute(str(folder / text.rpartition("=")[0]))


def _box(text: str, what: str, form: str) -> Box:
    try:
        left, top, right, bottom = map(int, text.rpartition("=")[2].split(","))
    except ValueError as error:
        raise ConfigError(f"{what}: {text!r} is no box. Write {form} in pixels.") from error
    return left, top, right, bottom


@dataclass(frozen=True)
class UpscaleOptions:
    """What enlarges. name: what it is called, for people; a model may add detail, Lanczos cannot."""

    upscaler: Upscaler | None = None
    name: str = "Lanczos"


@dataclass(frozen=True)
class MaskOptions:
    """What makes a mask a bad one, and what happens to it."""

    holes: float = setting(
        1.0, "Holes that are more than this share of the subject make a mask bad; 100 ignores holes.",
        minimum=0.0, maximum=100.0, unit="%", label="Holes",
    )  # fmt: skip
    reject: bool = setting(
        False, "Put bad masks into the holding; their pictures are learned whole.", label="Reject bad masks"
    )


@dataclass(frozen=True)
class MaskImportOptions:
    """Where masks come from, and which are taken."""

    folder: str = setting("", "Folder with masks of the same names as the pictures.", label="Folder")
    replace: bool = setting(False, "Take them also for pictures that have a mask.", label="Replace")
    holes: float = setting(
        1.0, "Masks with holes of more than this share of the subject are not taken; 100 takes all.",
        minimum=0.0, maximum=100.0, unit="%", label="Holes",
    )  # fmt: skip


# As rembg calls them, with what they know and what they weigh.
MASK_MODELS: Mapping[str, tuple[str, int]] = {
    "isnet-anime": ("drawn people", 176), "isnet-general-use": ("anything", 179), "u2net_human_seg": ("photographed people", 176),
    "silueta": ("anything, small", 44), "u2netp": ("anything, rough", 5),
}  # fmt: skip
"""What makes masks: its name → (what it knows, the length of its file in MB)."""


@dataclass(frozen=True)
class MaskGenerateOptions:
    """What makes masks, and which are taken. remover: the model at work."""

    model: str = setting(
        "isnet-anime", "What separates the subject from the background: "
        + ", ".join(f"{name} ({about}, {size} MB)" for name, (about, size) in MASK_MODELS.items()) + ".",
        label="Model", choices=tuple(MASK_MODELS),
    )  # fmt: skip
    replace: bool = setting(False, "Make them also for pictures that have a mask.", label="Replace")
    holes: float = setting(
        100.0, "Masks with holes of more than this share of the subject are not taken; 100 takes all.",
        minimum=0.0, maximum=100.0, unit="%", label="Holes",
    )  # fmt: skip
    remover: Remover | None = None


@dataclass(frozen=True)
class FileOptions:
    """Which files a choice is about: paths from the dataset's folder on, or absolute; to: the folder they go to."""

    action: Literal["exclude", "include", "move", "copy", "remove", "restore"]
    files: tuple[str, ...]
    to: str = ""


@dataclass(frozen=True)
class Empty:
    """The options of a tool that has none."""


@dataclass(frozen=True)
class Goal:
    """How often concepts are to be shown.

    grades: letter of GRADES by concept name, A for all others. groups: trigger by concept name, for concepts that share
    one and are counted together; None finds them by the triggers in the captions.
    """

    exposures: int = setting(
        300, "Exposures per epoch for every concept. 300 is usual with Prodigy, 600 with AdamW.",
        minimum=1, maximum=1_000_000, label="Exposures",
    )  # fmt: skip
    part: int = setting(
        0, "Exposures per epoch for each of several folders that share a trigger, such as the outfits of a character, "
        "usually 100; 0 divides those of one concept among them.", minimum=0, maximum=1_000_000, label="Exposures of a part",
    )  # fmt: skip
    epochs: int = setting(8, "Epochs of the training.", minimum=1, maximum=100_000, label="Epochs")
    budget: int = setting(
        3000, "Exposures in the whole training above which a concept is warned of, usually 3000 with Prodigy, 6000 with "
        "AdamW; 0 = never.", minimum=0, maximum=100_000_000, label="Budget",
    )  # fmt: skip
    grades: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, str] | None = None


OPTIONS: Mapping[str, type] = {
    "convert": ConvertOptions,
    "flatten-alpha": AlphaOptions,
    "trim": TrimOptions,
    "pad": PadOptions,
    "crop": CropOptions,
    "upscale": UpscaleOptions,
    "sort": Empty,
    "flatten": Empty,
    "mask": MaskOptions,
    "mask-import": MaskImportOptions,
    "mask-generate": MaskGenerateOptions,
    "files": FileOptions,
}
"""By the tool's name."""
