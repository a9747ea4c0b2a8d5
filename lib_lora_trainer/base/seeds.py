"""Addressed randomness: a seed is computed from where it is used, never drawn from a running generator."""

from __future__ import annotations

import hashlib


def derive(run_seed: int, purpose: str, *position: int) -> int:
    """Return the seed of one draw, addressed by the run, its purpose and its position.

    Equal arguments give equal seeds on every machine; any difference gives an unrelated one. So a run that is
    resumed at step k draws what the uninterrupted run would have drawn.

    Returns: integer in [0, 2**63), accepted by `torch.Generator.manual_seed` and `random.Random`.
    """
    text = "\x1f".join([str(run_seed), purpose, *(str(number) for number in position)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
