"""The identity of a network's weights: what has to be equal for its output to be equal."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch


def digest(networks: Iterable[torch.nn.Module]) -> str:
    """Return the SHA-256 over names, types, shapes and bytes of every parameter, names sorted; 64 hex digits."""
    parameters = {
        f"{number}.{name}": parameter
        for number, network in enumerate(networks)
        for name, parameter in network.named_parameters()
    }
    hashed = hashlib.sha256()
    for name, parameter in sorted(parameters.items()):
        hashed.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}\n".encode())
        values = parameter.detach().cpu().contiguous().reshape(-1)
        hashed.update(values.view(torch.uint8).numpy().data)
    return hashed.hexdigest()
