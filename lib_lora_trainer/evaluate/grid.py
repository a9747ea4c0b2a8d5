"""Which images a grid has: their common settings, and the axes along which they differ."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from lib_lora_trainer.base import codec
from lib_lora_trainer.base.setting import setting

KINDS = {
    "adapter": "Adapter",
    "epoch": "Epoch",
    "step": "Step",
    "weight": "Weight",
    "unet": "UNet weight",
    "text": "Text encoder weight",
    "blocks": "Block weights",
    "block": "Block",
    "block_value": "Weight of the block",
    "second": "Second adapter",
    "second_weight": "Weight of the second adapter",
    "prompt": "Prompt",
    "seed": "Seed",
    "clip_skip": "Clip skip",
    "sampler": "Sampler",
    "scheduler": "Schedule type",
    "steps": "Sampling steps",
    "guidance": "CFG scale",
    "size": "Size",
    "checkpoint": "Checkpoint",
    "vae": "VAE",
    "hires": "Hires. fix",
}
"""The kinds of axes, with the names that sheets and pages show."""

NONE = "none"
"""The value of an axis that stands for no adapter, or no hires pass."""
LOADED = "loaded"
"""The value of an axis of checkpoints or VAEs that stands for what the host has; an empty one does as well."""
_FILES = ("adapter", "second")


@dataclass(frozen=True)
class Axis:
    """What differs along one side of a grid."""

    kind: str = setting("weight", "What differs.", choices=tuple(KINDS), label="Axis")
    values: tuple[str, ...] = setting(
        (),
        "One each. Adapters are files, epochs and steps numbers of the adapter's saves (end: the finished one), weights "
        "0.8 or UNet/text encoder 0.8/0.5, sizes 512x768. Of prompts the first is replaced by each; none is no adapter, "
        "loaded the checkpoint or VAE that the host has.",
        label="Values",
    )  # fmt: skip


@dataclass(frozen=True)
class GridConfig:
    """Images that show what an adapter does, all alike but for what the axes say."""

    prompt: str = setting("", "Prompt of every image, without the adapter's tag.", label="Prompt", essential=True)
    negative: str = setting("", "Negative prompt.", label="Negative prompt")
    adapter: str = setting("", "The adapter's file; empty for none.", label="Adapter", essential=True)
    weight: float = setting(
        1.0, "Weight of the adapter; of its UNet's part where the text encoder has another.",
        minimum=-10.0, maximum=10.0, label="Weight", essential=True,
    )  # fmt: skip
    text_weight: float | None = setting(
        None, "Weight of the text encoder's part; without it the same.",
        minimum=-10.0, maximum=10.0, label="Text encoder weight",
    )  # fmt: skip
    blocks: str = setting("", "Block weights: a preset, a vector, or blocks; empty for all.", label="Block weights")
    block_value: float = setting(
        0.0, "What an axis of single blocks sets its block to.",
        minimum=-10.0, maximum=10.0, label="Weight of the block",
    )  # fmt: skip
    presets: str = setting("", "A file of block weights in lora-block-weight's format.", label="Presets file")
    second: str = setting("", "Another adapter that acts as well; its file.", label="Second adapter")
    second_weight: float = setting(
        1.0, "Weight of the second adapter.", minimum=-10.0, maximum=10.0, label="Weight of the second adapter"
    )
    seeds: tuple[int, ...] = setting(
        (1,), "Every image of the grid is made with each of them.", minimum=0, maximum=2**32 - 1, label="Seeds",
        essential=True,
    )  # fmt: skip
    steps: int = setting(20, "Sampling steps.", minimum=1, maximum=150, label="Sampling steps")
    guidance: float = setting(7.0, "CFG scale.", minimum=1.0, maximum=30.0, label="CFG scale")
    width: int = setting(512, "Width.", minimum=64, maximum=4096, unit="px", label="Width")
    height: int = setting(512, "Height.", minimum=64, maximum=4096, unit="px", label="Height")
    sampler: str = setting("Euler a", "The host's sampler by name.", label="Sampler")
    scheduler: str = setting(
        "Automatic", "Its noise schedule by name, such as Karras; Automatic is the sampler's own.",
        label="Schedule type",
    )  # fmt: skip
    clip_skip: int = setting(
        1, "Which layer of the text encoder is read, from the end.", minimum=1, maximum=12, label="Clip skip"
    )
    checkpoint: str = setting("", "Another checkpoint than the loaded one.", label="Checkpoint")
    vae: str = setting("", "Another VAE than the host is set to, by name.", label="VAE")
    hires: float = setting(
        1.0, "Enlarge by this and sample again; 1 for no second pass.", minimum=1.0, maximum=4.0, label="Hires. fix"
    )
    hires_upscaler: str = setting("Latent", "The host's upscaler by name.", label="Hires. upscaler")
    hires_steps: int = setting(
        0, "Steps of the second pass; 0 for as many as the first.", minimum=0, maximum=150, label="Hires. steps"
    )
    hires_denoising: float = setting(
        0.7, "How much the second pass may change.", minimum=0.0, maximum=1.0, label="Hires. denoising strength"
    )
    axes: tuple[Axis, ...] = setting((), "Columns, rows and pages: up to three axes.", label="Axes", essential=True)
    page: str = setting(
        "embedded", "How the page has its images: embedded, one file for everything; linked, from the folder of cells.",
        choices=("embedded", "linked"), label="Page",
    )  # fmt: skip


def read(path: Path) -> GridConfig:
    """Return the settings in a TOML file; relative files of adapters and presets are taken from the file's folder.

    Raises ConfigError or ProblemsFound as `codec.read_toml`.
    """
    return within(codec.read_toml(GridConfig, path), path.parent)


def within(config: GridConfig, folder: Path) -> GridConfig:
    """Return the settings with the files of adapters and presets absolute, relative ones taken from a folder."""

    def place(text: str) -> str:
        return text if text in ("", NONE) else str((folder / text).resolve())

    axes = tuple(
        replace(axis, values=tuple(map(place, axis.values))) if axis.kind in _FILES else axis for axis in config.axes
    )
    return replace(
        config, adapter=place(config.adapter), second=place(config.second), presets=place(config.presets), axes=axes
    )
