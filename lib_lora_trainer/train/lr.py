"""The learning rate as a pure function of progress."""

from __future__ import annotations

import math

from lib_lora_trainer.config.training import OptimizerConfig


def factor(config: OptimizerConfig, progress: float) -> float:
    """Return the factor of the base learning rate, in [0, 1], at progress in [0, 1] of the run.

    The loop asks at the middle of each step, so that neither the first step of a warm-up nor the last of a cosine is
    spent at 0. cosine: (1 + cos(π p)) / 2 over the part after the warm-up (Loshchilov & Hutter 2017, arXiv:1608.03983,
    eq. 5, without restarts).
    """
    if progress < config.warmup:
        return progress / config.warmup
    if config.schedule == "constant":
        return 1.0
    share = (progress - config.warmup) / (1 - config.warmup)
    return (1 + math.cos(math.pi * min(share, 1.0))) / 2
