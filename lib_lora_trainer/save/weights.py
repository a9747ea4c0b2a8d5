"""An adapter file: safetensors with the hash that the WebUI shows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save

from lib_lora_trainer.base.files import write_bytes


def content_hash(serialized: bytes) -> str:
    """Return the SHA-256 of everything after the header, 64 hexadecimal digits.

    The WebUI's and kohya's `sshs_model_hash`: 8 bytes give the header's length, little-endian.
    """
    header = int.from_bytes(serialized[:8], "little")
    return hashlib.sha256(serialized[8 + header :]).hexdigest()


def write(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write an adapter file atomically, with `sshs_model_hash` added to its metadata."""
    digest = content_hash(save(dict(tensors), {"format": "pt"}))
    write_bytes(path, save(dict(tensors), {**metadata, "sshs_model_hash": digest}))
