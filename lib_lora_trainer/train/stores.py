"""Where tensors are kept by key: in memory, or in files that outlast the run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.base.files import write_bytes

Tensors = Mapping[str, torch.Tensor]
Condition = Literal["kept", "missing", "damaged"]
_CHECK = "check"


class Store(Protocol):
    """Keeps named tensors by key. Keys are made of everything that shapes the values, so that none is ever stale."""

    def condition(self, key: str) -> Condition:
        """Return whether tensors are kept under a key, as far as can be told without reading them."""

    def read(self, key: str) -> Tensors | None:
        """Return what is kept under a key; None when there is nothing, or nothing whole."""

    def write(self, key: str, tensors: Tensors) -> None:
        """Keep tensors under a key."""

    def describe(self, key: str) -> str:
        """Return where a key's tensors are kept, for messages."""


class MemoryStore:
    """Keeps tensors as long as it lives."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensors] = {}

    def condition(self, key: str) -> Condition:
        """Return whether tensors are kept under a key."""
        return "kept" if key in self._kept else "missing"

    def read(self, key: str) -> Tensors | None:
        """Return what is kept under a key."""
        return self._kept.get(key)

    def write(self, key: str, tensors: Tensors) -> None:
        """Keep tensors under a key."""
        self._kept[key] = tensors

    def describe(self, key: str) -> str:
        """Return the key."""
        return key


class DiskStore:
    """Keeps tensors in a folder, one safetensors file per key, each with a digest of its content.

    Files are written whole or not at all; several processes may use one folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def condition(self, key: str) -> Condition:
        """Return whether a key has a file of the length that its header states; `read` checks the content as well."""
        path = self._path(key)
        try:
            with path.open("rb") as file:
                head = int.from_bytes(file.read(8), "little")
                length = path.stat().st_size
                if not 0 < head <= length - 8:
                    return "damaged"
                header = json.loads(file.read(head))
            ends = [about["data_offsets"][1] for name, about in header.items() if name != "__metadata__"]
        except FileNotFoundError:
            return "missing"
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return "damaged"
        return "kept" if ends and length == 8 + head + max(ends) else "damaged"

    def read(self, key: str) -> Tensors | None:
        """Return a file's tensors; None when there is no file, or its content is not what was written."""
        try:
            tensors = load(self._path(key).read_bytes())
        except (OSError, ValueError, SafetensorError):
            return None
        check = tensors.pop(_CHECK, None)
        return tensors if check is not None and torch.equal(check, _digest(tensors)) else None

    def write(self, key: str, tensors: Tensors) -> None:
        """Write a key's file. Raises DataError that names the folder when it cannot be written."""
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        try:
            write_bytes(self._path(key), save({**contiguous, _CHECK: _digest(contiguous)}))
        except OSError as error:
            raise DataError(
                f"{self._folder}: cannot be written to: {error.strerror or error}. Free some space, or set data.cache "
                "and data.cache_text to memory or none."
            ) from error

    def describe(self, key: str) -> str:
        """Return the key's file."""
        return str(self._path(key))

    def _path(self, key: str) -> Path:
        # File systems get slow with very many files in one folder.
        return self._folder / key[:2] / f"{key}.safetensors"


def _digest(tensors: Tensors) -> torch.Tensor:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tensor.dtype}{list(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)


def key_of(facts: Mapping[str, object]) -> str:
    """Return a key made of facts (texts, numbers and lists of them): equal facts, equal key; 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
