"""What to train on: folders of pictures, their captions, sizes and buckets."""

from __future__ import annotations

from dataclasses import dataclass

from lib_lora_trainer.base.setting import setting


@dataclass(frozen=True)
class SourceConfig:
    """One folder of pictures. A folder of `N_name` folders counts each of them, with its own repeats.

    A field that is None takes the dataset's value.
    """

    path: str = setting("", "Folder with pictures, or with folders named `N_name` (N = repeats).", label="Folder")
    repeats: int = setting(
        0,
        "How often each picture is used per epoch. 0 takes the number in front of the folder's name, else 1. The number "
        "in a folder's multiply.txt, such as 2 or 0.5, multiplies it.",
        label="Repeats", minimum=0, maximum=10_000,
    )  # fmt: skip
    recursive: bool = setting(True, "Look into folders inside the folder as well.", label="Subfolders")
    fallback_caption: str = setting(
        "", "Caption of a picture that has none. Empty uses the trigger words; for regularization images the folder's "
        "name behind its number.", label="Caption when missing",
    )  # fmt: skip
    regularization: bool = setting(
        False, "Regularization images: they count with the prior loss weight.", label="Regularization"
    )
    prior_preservation: bool = setting(
        False, "The goal is what the model without the adapter predicts, not the picture.", label="Prior preservation"
    )
    masks: str = setting(
        "", "Folder with a mask per picture, of the same name: white is learned, black is not.", label="Masks"
    )
    alpha_masks: bool = setting(False, "Take each picture's transparency as its mask.", label="Masks from transparency")
    resolution: int | None = setting(
        None, "Training resolution of this source.", minimum=64, maximum=4096, unit="px", label="Resolution"
    )
    flip: bool | None = setting(None, "Mirror pictures at random.", label="Mirror")
    shuffle: bool | None = setting(None, "Shuffle the tags.", label="Shuffle tags")
    keep_tokens: int | None = setting(
        None, "How many tags at the start stay in place.", minimum=0, maximum=225, label="Keep tokens"
    )
    prefix: str | None = setting(None, "Put before every caption.", label="Prefix")
    suffix: str | None = setting(None, "Put after every caption.", label="Suffix")
    caption_dropout: float | None = setting(
        None, "Share of exposures without caption.", minimum=0.0, maximum=1.0, label="Caption dropout"
    )
    tag_dropout: float | None = setting(None, "Share of tags left out.", minimum=0.0, maximum=1.0, label="Tag dropout")


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
    separator: str = setting(
        "|||", "Where a caption has it, what stands before stays in place instead of the first N tags; what stands "
        "after a second one stays at the end.", label="Keep separator",
    )  # fmt: skip
    secondary_separator: str = setting(
        ";;;", "Tags joined by it stay together; it becomes a comma.", label="Secondary separator"
    )
    prefix: str = setting("", "Put before every caption, e.g. the trigger word.", label="Prefix")
    suffix: str = setting("", "Put after every caption.", label="Suffix")
    dropout: float = setting(
        0.0, "Share of exposures without any caption; 0.05 to 0.1 is usual.",
        minimum=0.0, maximum=1.0, label="Caption dropout",
    )  # fmt: skip
    dropout_every_epochs: int = setting(
        0, "Every N-th epoch is trained without captions; 0 = never.",
        minimum=0, maximum=100_000, label="Epochs without captions",
    )  # fmt: skip
    tag_dropout: float = setting(
        0.0, "Share of the tags left out anew each time; kept ones stay.",
        minimum=0.0, maximum=1.0, label="Tag dropout",
    )  # fmt: skip
    warmup: float = setting(
        0.0, "Captions grow from few tags to all for this long: below 1 a share of the run, from 1 on a number of "
        "steps; 0 = off.", minimum=0.0, maximum=1_000_000, label="Token warm-up",
    )  # fmt: skip
    warmup_tags: int = setting(
        1, "Tags with which the token warm-up begins, besides the kept ones.",
        minimum=0, maximum=225, label="Tags at the start",
    )  # fmt: skip
    wildcards: bool = setting(False, "Choose one of {a|b|c} anew each time; of several lines, one.", label="Wildcards")
    emphasis: bool = setting(False, "Read (tag:1.2), (tag) and [tag] as the WebUI's prompts do.", label="Emphasis")


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
    more_resolutions: tuple[int, ...] = setting(
        (), "Train every picture at these resolutions as well.",
        minimum=64, maximum=4096, unit="px", label="More resolutions",
    )  # fmt: skip
    bucket: bool = setting(True, "Keep each picture's shape by sorting into size buckets.", label="Buckets")
    bucket_minimum: int = setting(256, "Shortest side of a bucket.", minimum=64, maximum=4096, unit="px")
    bucket_maximum: int = setting(1024, "Longest side of a bucket.", minimum=64, maximum=8192, unit="px")
    bucket_step: int = setting(64, "Bucket sides are multiples of this.", minimum=8, maximum=256, unit="px")
    no_upscale: bool = setting(False, "Never enlarge a picture; small ones get a smaller bucket.", label="No upscale")
    flip: bool = setting(False, "Mirror pictures at random; only for symmetric subjects.", label="Mirror")
    color: bool = setting(
        False, "Change hue or brightness a little in a third of the exposures; needs the latent cache off.",
        label="Colour variation",
    )  # fmt: skip
    random_crop: bool = setting(
        False, "Place the crop at random instead of in the middle; needs the latent cache off.", label="Random crop"
    )
    face_crop_minimum: float = setting(
        0.0, "Crop around the face given in the file name (…_x_y_w_h) to at least this many face sizes; 0 = off. Needs "
        "the latent cache off.", minimum=0.0, maximum=100.0, label="Face crop from",
    )  # fmt: skip
    face_crop_maximum: float = setting(
        0.0, "… and at most this many face sizes.", minimum=0.0, maximum=100.0, label="Face crop to"
    )
    balance_regularization: bool = setting(
        True, "Each epoch shows as many regularization images as training images, in turns, so that all are used.",
        label="Balance regularization",
    )  # fmt: skip
    cache: str = setting(
        "memory", "Where the VAE's latents are kept: memory; disk, for later runs as well; none encodes each time.",
        choices=("memory", "disk", "none"), label="Latent cache",
    )  # fmt: skip
    cache_text: str = setting(
        "none", "Keep the text encoder's outputs; only while neither it nor the captions change.",
        choices=("none", "memory", "disk"), label="Text cache",
    )  # fmt: skip
