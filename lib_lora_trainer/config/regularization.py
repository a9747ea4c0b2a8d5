"""How regularization images are made: from which texts, how many, and with which sampler. No part of a run's settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from lib_lora_trainer.base import codec
from lib_lora_trainer.base.setting import setting


@dataclass(frozen=True)
class SourceMarks:
    """What is left out of the captions of one source, besides what is left out of all."""

    path: str = setting("", "The source's folder, as in the run's settings.", label="Folder")
    remove: tuple[str, ...] = setting((), "Left out of this source's captions.", label="Leave out")


@dataclass(frozen=True)
class RegularizationConfig:
    """Regularization images for a run: what the base model, without any adapter, makes of texts without the trigger."""

    prompts: str = setting(
        "captions",
        "Where the prompts come from: captions, of each training picture without its triggers; class, the texts below; "
        "words, those that the triggers are made of.",
        choices=("captions", "class", "words"), label="Prompts from", essential=True,
    )  # fmt: skip
    remove: tuple[str, ...] = setting(
        (),
        "Left out of the captions besides the triggers, one each: a tag, a pattern such as *_hair, or a regular "
        "expression between slashes.",
        label="Leave out", essential=True,
    )  # fmt: skip
    sources: tuple[SourceMarks, ...] = setting((), "What single sources leave out besides.", label="By source")
    texts: tuple[str, ...] = setting(
        (), "Classes, or words; in turns. Without words those in the triggers are taken: mona and taco of Mona_Taco.",
        label="Classes or words",
    )  # fmt: skip
    templates: tuple[str, ...] = setting(
        (), "Sentences around a class or a word, which takes the place of {}; {a|b} is one of both.", label="Templates"
    )
    when_empty: str = setting(
        "", "Prompt and caption where nothing of a caption is left; without it such a picture gets no image.",
        label="When nothing is left",
    )  # fmt: skip
    per_image: int = setting(
        1, "Images for each training picture; as many as its repeats show none of them twice in an epoch.",
        minimum=1, maximum=100, label="Images per picture", essential=True,
    )  # fmt: skip
    negative: str = setting("", "Negative prompt.", label="Negative prompt")
    seed: int = setting(
        1, "Begins the seeds: each image has its own, made of this, its picture's name and its number.",
        minimum=0, maximum=2**32 - 1, label="Seed",
    )  # fmt: skip
    steps: int = setting(20, "Sampling steps.", minimum=1, maximum=150, label="Sampling steps", essential=True)
    guidance: float = setting(7.0, "CFG scale.", minimum=1.0, maximum=30.0, label="CFG scale", essential=True)
    sampler: str = setting("Euler a", "The host's sampler by name.", label="Sampler", essential=True)
    scheduler: str = setting(
        "Automatic",
        "Its noise schedule by name, such as Karras; Automatic is the sampler's own.",
        label="Schedule type",
    )


def read(path: Path) -> RegularizationConfig:
    """Return the settings in a TOML file; relative folders are taken from the file's folder.

    Raises ConfigError or ProblemsFound as `codec.read_toml`.
    """
    options = codec.read_toml(RegularizationConfig, path)
    sources = tuple(
        SourceMarks(str((path.parent / marks.path).resolve()) if marks.path else "", marks.remove)
        for marks in options.sources
    )
    return replace(options, sources=sources)
