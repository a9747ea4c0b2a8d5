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
    """Which crops are made. boxes: the subject's box by path, of pictures whose own is to be believed."""

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


def boxes_in(texts: Iterable[str], folder: Path) -> dict[Path, Box]:
    """Return the boxes given as FILE=LEFT,TOP,RIGHT,BOTTOM, files from a folder on. Raises ConfigError for other texts."""
    found = {}
    for text in texts:
        file, _, numbers = text.rpartition("=")
        try:
            left, top, right, bottom = map(int, numbers.split(","))
        except ValueError as error:
            raise ConfigError(f"box: {text!r} is no box. Write FILE=LEFT,TOP,RIGHT,BOTTOM in pixels.") from error
        found[absolute(str(folder / file))] = (left, top, right, bottom)
    return found


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
    "files": FileOptions,
}
"""By the tool's name."""
