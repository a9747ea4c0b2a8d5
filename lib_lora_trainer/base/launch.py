"""Which of several processes this is, as `accelerate launch` and torchrun say it in the environment."""

from __future__ import annotations

import os


def count() -> int:
    """Return how many processes were launched together; 1 without a launcher."""
    return max(1, int(os.environ.get("WORLD_SIZE", "1")))


def rank() -> int:
    """Return this process's number among them, from 0; process 0 writes files and speaks."""
    return int(os.environ.get("RANK", "0")) if count() > 1 else 0


def local_rank() -> int:
    """Return this process's number on its own machine, from 0: which GPU it takes."""
    return int(os.environ.get("LOCAL_RANK", "0")) if count() > 1 else 0
