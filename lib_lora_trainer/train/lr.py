"""The learning rate as a pure function of progress."""

from __future__ import annotations

import math

from lib_lora_trainer.config.optimizer import OptimizerConfig

_ROUNDING = 1e-9  # so near a restart, the place is the restart's, whatever the division before it left over


def factor(config: OptimizerConfig, progress: float, steps: int) -> float:
    """Return the factor of the base learning rate, in [0, 1], at `progress` of the run.

    progress: in [0, 1]; what lies outside counts as the nearer end. steps: length of the run, at least 1, which a
    warm-up given in steps is a share of.

    The loop asks at the middle of each step, so that neither the first step of a warm-up nor the last of a cosine is
    spent at 0; sd-scripts takes each step's value at its beginning. At equal progress the two are equal
    (test_lr.py::test_equal_to_sd_scripts_at_equal_progress).

    During the warm-up the factor is progress / warm-up. With s the share of the rest that is over, m the minimum:
    constant: 1. Falling ones: m + (1 - m) · f(s) with
      linear: f = 1 - s
      polynomial: f = (1 - s)^power
      cosine: f = (1 + cos(π s)) / 2 (Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5, without restarts)
      rex: f = (1 - s) / (1/2 + (1 - s) / 2) (Chen, Wolfe & Kyrillidis 2021, arXiv:2107.04197)
    cosine-restarts: `cycles` cosines of equal length; the n-th, from 0, begins at max(m, decay^n) and falls to m.
    annealed-cosine: the same, but each cycle first rises from m to its beginning, linearly over `cycle_warmup` of its
      length (N. Katsura's CosineAnnealingWarmupRestarts). After a warm-up the first cycle begins high, because it has
      risen already; the curve then has no jump there (test_lr.py::test_a_warm_up_takes_the_place_of_the_first_rise).
    """
    place = min(max(progress, 0.0), 1.0)
    rise = warmup_share(config, steps)
    if place < rise or rise == 1.0:
        return place / rise
    share = (place - rise) / (1 - rise)
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "cosine-restarts":
        return _restarted(config, share, 0.0, 0.0)
    if config.schedule == "annealed-cosine":
        return _restarted(config, share, 0.0 if rise else config.cycle_warmup, config.cycle_warmup)
    return config.minimum + (1 - config.minimum) * _fall(config, share)


def warmup_share(config: OptimizerConfig, steps: int) -> float:
    """Return the warm-up as a share of the run, in [0, 1]. Values from 1 on are a number of steps."""
    return config.warmup if config.warmup < 1 else min(1.0, config.warmup / steps)


def _fall(config: OptimizerConfig, share: float) -> float:
    rest = 1 - share
    if config.schedule == "linear":
        return rest
    if config.schedule == "polynomial":
        return float(rest**config.power)
    if config.schedule == "rex":
        return rest / (0.5 + 0.5 * rest)
    return _cosine(share)


def _cosine(share: float) -> float:
    return (1 + math.cos(math.pi * share)) / 2


def _restarted(config: OptimizerConfig, share: float, first_rise: float, later_rise: float) -> float:
    """Return the factor in a schedule of cycles; the rises are shares of the first and of each later cycle."""
    place = share * config.cycles
    if abs(place - round(place)) < _ROUNDING:
        place = round(place)
    # The end of the run is the end of the last cycle, not the beginning of one more.
    number = min(int(place), config.cycles - 1)
    within = place - number
    low = config.minimum
    high = max(low, config.cycle_decay**number)
    rise = later_rise if number else first_rise
    if within < rise:
        return low + (high - low) * within / rise
    return low + (high - low) * _cosine((within - rise) / (1 - rise))
