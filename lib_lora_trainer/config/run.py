"""RunConfig: everything one training run needs, as one value and one TOML file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from lib_lora_trainer.base import codec
from lib_lora_trainer.base.setting import setting
from lib_lora_trainer.config.adapter import AdapterConfig
from lib_lora_trainer.config.data import DataConfig
from lib_lora_trainer.config.loss import LossConfig, NoiseConfig
from lib_lora_trainer.config.optimizer import OptimizerConfig
from lib_lora_trainer.config.output import SampleConfig, SaveConfig
from lib_lora_trainer.config.training import TrainingConfig

MIGRATIONS: tuple[codec.Migration, ...] = ()


@dataclass(frozen=True)
class RunConfig:
    """One training run. `name` becomes the file's stem; `triggers` go to the Lora card and the file's comment."""

    version: int = setting(1, "Version of this file's layout.", minimum=1)
    name: str = setting("my-lora", "Name of the adapter and of its file.", label="Name", essential=True)
    triggers: tuple[str, ...] = setting((), "Words that call the adapter.", label="Triggers", essential=True)
    comment: str = setting("", "Kept in the file's metadata.", label="Comment")
    base_model: str = setting(
        "", "Hash or name of the checkpoint the run was planned on; filled in by the tab.", label="Planned on"
    )
    data: DataConfig = setting(DataConfig, "Pictures and captions.")
    adapter: AdapterConfig = setting(AdapterConfig, "What is trained.")
    optimizer: OptimizerConfig = setting(OptimizerConfig, "Optimizer and learning rates.")
    loss: LossConfig = setting(LossConfig, "What is minimized.")
    noise: NoiseConfig = setting(NoiseConfig, "Noise and timesteps.")
    training: TrainingConfig = setting(TrainingConfig, "Length and arithmetic.")
    save: SaveConfig = setting(SaveConfig, "Files.")
    samples: SampleConfig = setting(SampleConfig, "Sample images.")


def read(path: Path) -> RunConfig:
    """Return the configuration in a TOML file; relative source folders are taken from the file's folder.

    Raises ConfigError or ProblemsFound as `codec.read_toml`.
    """
    config = codec.read_toml(RunConfig, path, MIGRATIONS)
    return with_absolute_sources(config, path.parent)


def with_absolute_sources(config: RunConfig, folder: Path) -> RunConfig:
    """Return the configuration with relative folders of sources and masks, and the file to go on from, made absolute."""

    def absolute(path: str) -> str:
        return str((folder / path).resolve()) if path else ""

    sources = tuple(
        replace(source, path=absolute(source.path), masks=absolute(source.masks)) for source in config.data.sources
    )
    adapter = replace(config.adapter, start_from=absolute(config.adapter.start_from))
    return replace(config, adapter=adapter, data=replace(config.data, sources=sources))
