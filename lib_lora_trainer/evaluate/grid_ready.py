"""Ready-made grids: each returns settings with axes for a question that people ask of an adapter."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.evaluate.grid import NONE, Axis, GridConfig

WEIGHTS = ("0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1")
"""The guides' range: where an adapter works, and where it begins to break."""
PRESETS = ("NONE", "ALL", "INS", "IND", "INALL", "MIDD", "OUTD", "OUTS", "OUTALL")
_NUMBERED = re.compile(r"-(?:([0-9]{6})|step([0-9]{8}))$")


def last_epochs(
    config: GridConfig, saves: Sequence[str], count: int = 4, weights: Sequence[str] = WEIGHTS
) -> GridConfig:
    """Return a grid of a run's last saves, oldest first, by weights: from which epoch on is it overbaked?"""
    if not saves:
        raise ConfigError("the run has no adapter yet. Let it save one, then make the grid.")
    return _with(config, saves[-1], Axis("weight", tuple(weights)), Axis("adapter", tuple(saves[-count:])))


def presets(
    config: GridConfig, adapter: str, names: Sequence[str] = PRESETS, weights: Sequence[str] = ("0.6", "0.8", "1")
) -> GridConfig:
    """Return a grid of block weights by weights: which blocks carry what was learned?"""
    return _with(config, adapter, Axis("blocks", tuple(names)), Axis("weight", tuple(weights)))


def transfer(
    config: GridConfig, adapter: str, checkpoints: Sequence[str], weights: Sequence[str] = ("0.6", "0.8", "1")
) -> GridConfig:
    """Return a grid of checkpoints by weights, the one that is loaded first: does it work on other models?"""
    if not any(checkpoints):
        raise ConfigError("no other checkpoint was named. Name one at least.")
    others = tuple(dict.fromkeys(("", *checkpoints)))
    return _with(config, adapter, Axis("weight", tuple(weights)), Axis("checkpoint", others))


def progress(config: GridConfig, first: Sequence[str], second: Sequence[str]) -> GridConfig:
    """Return a grid of two runs, one a row, by the epochs or steps at which both have a save: which learns better?

    first, second: the runs' saves. Raises ConfigError when they share no epoch and no step.
    """
    both = [_numbers(first), _numbers(second)]
    for kind in ("epoch", "step"):
        shared = sorted(both[0][kind] & both[1][kind])
        if shared:
            axis = Axis(kind, tuple(str(number) for number in shared))
            return _with(config, first[-1], axis, Axis("adapter", (first[-1], second[-1])))
    raise ConfigError("the runs have no save at the same epoch or step. Save both every epoch, or every N steps.")


def combination(
    config: GridConfig, adapter: str, other: str, weights: Sequence[str] = ("0.4", "0.7", "1")
) -> GridConfig:
    """Return a grid with another adapter at several weights, and without it, by this one's weights."""
    axes = (Axis("weight", tuple(weights)), Axis("second_weight", ("0", *weights)))
    return replace(_with(config, adapter, *axes), second=other)


def with_and_without(config: GridConfig, adapter: str) -> GridConfig:
    """Return a grid of the adapter and of the model alone."""
    return _with(config, adapter, Axis("adapter", (NONE, adapter)))


def _with(config: GridConfig, adapter: str, *axes: Axis) -> GridConfig:
    """Return the settings with an adapter and axes; of the settings' own axes those of other kinds that find room."""
    kinds = {axis.kind for axis in axes}
    own = tuple(axis for axis in config.axes if axis.kind not in kinds)
    return replace(config, adapter=adapter, axes=(*axes, *own))


def _numbers(saves: Sequence[str]) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {"epoch": set(), "step": set()}
    for save in saves:
        match = _NUMBERED.search(Path(save).stem)
        if match:
            found["epoch" if match[1] else "step"].add(int(match[1] or match[2]))
    return found
