"""What a checkpoint's file says about how it was trained, where the WebUI 1.10 does not look."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Marks:
    """velocity: the model predicts v; zero_terminal_snr: its schedule ends in pure noise."""

    velocity: bool = False
    zero_terminal_snr: bool = False


def read(file: str) -> Marks:
    """Return what the header of a .safetensors checkpoint says; nothing for other files, or when it is gone.

    SDXL checkpoints that predict v carry an empty tensor `v_pred`, and `ztsnr` if their schedule ends in pure noise;
    others say `modelspec.prediction_type` in their metadata. The WebUI 1.10.1 reads none of them, and takes SDXL to
    predict noise unless a yaml beside the file says otherwise.
    """
    path = Path(file)
    if path.suffix.lower() != ".safetensors" or not path.is_file():
        return Marks()
    return _read(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=4)
def _read(path: Path, changed: int) -> Marks:  # noqa: ARG001  part of the cache's key
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as stream:
        names, metadata = set(stream.keys()), stream.metadata() or {}
    says_v = metadata.get("modelspec.prediction_type", "").lower().startswith("v")
    return Marks("v_pred" in names or says_v, "ztsnr" in names)
