"""What to train on: folders of pictures, their captions, sizes and buckets."""

from __future__ import annotations

from dataclasses import dataclass

from lib_lora_trainer.base.setting import setting


@dataclass(frozen=True)
class SourceConfig:
    """One folder of pictures. A folder of `N_name` folders counts each of them, with its own repeats."""

    path: str = setting("", "Folder with pictures, or with folders named `N_name` (N = repeats).", label="Folder")
    repeats: int = setting(
        0,
        "How often each picture is used per epoch. 0 takes the number in front of the folder's name, else 1.",
        label="Repeats",
        minimum=0,
        maximum=10_000,
    )
    recursive: bool = setting(True, "Look into folders inside the folder as well.", label="Subfolders")
    fallback_caption: str = setting(
        "", "Caption of a picture that has none. Empty uses the trigger words.", label="Caption when missing"
    )


@dataclass(frozen=True)
class CaptionConfig:
    """How the caption files are read and varied while training."""

    extensions: tuple[str, ...] = setting(
        (".txt", ".caption"), "Caption files looked for beside each picture; the first found is used."
    )
    shuffle: bool = setting(True, "Shuffle the tags of every caption anew each time.", label="Shuffle tags")
    keep_tokens: int = setting(
        1, "How many tags at the start stay in place, e.g. the trigger.", label="Keep tokens", minimum=0, maximum=225
    )
    prefix: str = setting("", "Put before every caption, e.g. the trigger word.", label="Prefix")


@dataclass(frozen=True)
class DataConfig:
    """The dataset and how its pictures are sized."""

    sources: tuple[SourceConfig, ...] = setting((), "The folders to train on.", label="Sources")
    caption: CaptionConfig = setting(CaptionConfig, "Captions while training.")
    resolution: int = setting(
        512,
        "Training resolution: pictures are scaled so that their area is about its square.",
        minimum=64, maximum=4096, unit="px", essential=True, label="Resolution",
    )  # fmt: skip
    bucket: bool = setting(True, "Keep each picture's shape by sorting into size buckets.", label="Buckets")
    bucket_minimum: int = setting(256, "Shortest side of a bucket.", minimum=64, maximum=4096, unit="px")
    bucket_maximum: int = setting(1024, "Longest side of a bucket.", minimum=64, maximum=8192, unit="px")
    bucket_step: int = setting(64, "Bucket sides are multiples of this.", minimum=8, maximum=256, unit="px")
    no_upscale: bool = setting(False, "Never enlarge a picture; small ones get a smaller bucket.", label="No upscale")
    flip: bool = setting(False, "Mirror pictures at random; only for symmetric subjects.", label="Mirror")
