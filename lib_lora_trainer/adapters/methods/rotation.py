"""OFT and BOFT: W' = R W, R orthogonal, in blocks or as a product of butterfly factors.

Qiu et al. 2023, arXiv:2306.07280 (Diag-OFT), and Liu et al. 2023, arXiv:2311.06243 (BOFT). A block of R is Cayley's
(I + Q)(I - Q)⁻¹ of a skew-symmetric Q. All here works with R - I = 2 Q (I - Q)⁻¹, which keeps small rotations exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lib_lora_trainer.adapters.methods.adapter import Adapter, Algorithm, Request, Shape, Traits
from lib_lora_trainer.adapters.methods.operation import channel_axis, exact, frozen_weight, full_weight, groups, run
from lib_lora_trainer.adapters.methods.scale import float32
from lib_lora_trainer.adapters.methods.sizes import butterfly, pair


def shapes(request: Request) -> dict[str, Shape]:
    """Return blocks (n, b, b) with n · b = out, b at most the rank; and, rescaled, a factor per output (out, 1, …)."""
    size, count = pair(request.shape[0], request.rank)
    return {"oft_blocks": (count, size, size)} | _rescale(request)


def butterfly_shapes(request: Request) -> dict[str, Shape]:
    """Return the blocks of all factors (m, n, b, b) with n = 2^(m - 1) and n · b = out; and the factors per output."""
    found = butterfly(request.shape[0], request.rank)
    if found is None:
        raise ValueError(f"boft splits outputs into pairs, and {request.shape[0]} is odd")
    factors, count, size = found
    return {"oft_blocks": (factors, count, size, size)} | _rescale(request)


def _rescale(request: Request) -> dict[str, Shape]:
    ones = (1,) * (len(request.shape) - 1)
    return {"rescale": (request.shape[0], *ones)} if request.config.oft_rescaled else {}


def initial(request: Request) -> dict[str, torch.Tensor]:
    """Return no rotation, and factors of 1."""
    wanted = butterfly_shapes(request) if request.method == "boft" else shapes(request)
    return {
        name: torch.ones(shape) if name == "rescale" else torch.zeros(shape)
        for name, shape in wanted.items()
    }  # fmt: skip


def traits(request: Request) -> Traits:
    """Return the constraint, which the file calls alpha."""
    return Traits(constraint=float32(request.config.oft_constraint))


def _turns(adapter: Adapter) -> torch.Tensor:
    """Return R - I of each block. With a constraint the norm of all Q together is at most constraint · out."""
    blocks: torch.Tensor = adapter.value("oft_blocks")
    q = blocks - blocks.transpose(-1, -2)
    if adapter.traits.constraint:
        norm = q.norm()
        q = q * ((norm.clamp(max=adapter.traits.constraint * adapter.shape[0]) + 1e-8) / (norm + 1e-8))
    eye = torch.eye(q.shape[-1], device=q.device, dtype=q.dtype)
    return torch.linalg.solve(eye - q, 2 * q)


def _difference(adapter: Adapter, turns: torch.Tensor, values: torch.Tensor, axis: int) -> torch.Tensor:
    """Return (s R - I) values along an axis of outputs: of the weight, or of what the weight makes of inputs."""
    given = values.movedim(axis, -1)
    if turns.dim() == 3:
        blocks = given.unflatten(-1, turns.shape[:2])
        added = torch.einsum("...kn,knm->...km", blocks, turns).flatten(-2)
    else:
        added = _butterflies(turns, given)
    if adapter.has("rescale"):
        added = added + (adapter.value("rescale").flatten() - 1) * (given + added)
    return added.movedim(-1, axis)


def _butterflies(turns: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """Return (R_m … R_1 - I) given, factor by factor: each mixes outputs that are 2^i · b / 2 apart."""
    added = torch.zeros_like(given)
    for power, turn in enumerate(turns):
        apart = 2**power * turn.shape[-1] // 2
        mixed = (given + added).unflatten(-1, (-1, 2, apart)).transpose(-1, -2).flatten(-3)
        turned = torch.einsum("nij,...nj->...ni", turn, mixed.unflatten(-1, turn.shape[:2])).flatten(-2)
        added = added + turned.unflatten(-1, (-1, apart, 2)).transpose(-1, -2).flatten(-3)
    return added


def delta(adapter: Adapter) -> torch.Tensor:
    """Return s R W - W."""
    turns = _turns(adapter)
    return _difference(adapter, turns, full_weight(adapter.base, turns.device), 0)


def apply(adapter: Adapter, module: Any, inputs: torch.Tensor) -> torch.Tensor:
    """Return (s R - I)(W inputs): the rotation acts on outputs, so no second weight is formed or kept.

    But for grouped convolutions, where a turned row reads the inputs of its new group.
    """
    with exact(inputs.device):
        turns = _turns(adapter)
        formed = _difference(adapter, turns, full_weight(module, inputs.device), 0) if groups(module) > 1 else None
    if formed is not None:
        return run(module, inputs, formed)
    return _difference(adapter, turns, run(module, inputs, frozen_weight(module, inputs)), channel_axis(module))


def expected(shape: Shape, tensors: Mapping[str, torch.Tensor]) -> dict[str, Shape]:
    """Return the names and shapes of OFT's tensors: three dimensions of blocks; alpha is the constraint."""
    count, size = tensors["oft_blocks"].shape[-3:-1]
    if count * size != shape[0]:
        raise ValueError(f"{count} blocks of {size} do not make the layer's {shape[0]} outputs")
    blocks: Shape = (count, size, size)
    if tensors["oft_blocks"].dim() == 4:
        blocks = (count.bit_length(), *blocks)
    ones = (1,) * (len(shape) - 1)
    names: dict[str, Shape] = {"oft_blocks": blocks}
    names |= {"rescale": (shape[0], *ones)} if "rescale" in tensors else {}
    return names | ({"alpha": ()} if "alpha" in tensors else {})


def load(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], Traits]:
    """Return the values and the constraint."""
    values = {name: tensors[name] for name in ("oft_blocks", "rescale") if name in tensors}
    return values, Traits(constraint=float(tensors["alpha"]) if "alpha" in tensors else 0.0)


def store(adapter: Adapter) -> dict[str, torch.Tensor]:
    """Return the tensors, the constraint as alpha."""
    tensors: dict[str, torch.Tensor] = {
        name: adapter.value(name) for name in ("oft_blocks", "rescale") if adapter.has(name)
    }
    return {**tensors, "alpha": torch.tensor(adapter.traits.constraint)}


OFT = Algorithm(
    shapes=shapes,
    initial=initial,
    traits=traits,
    delta=delta,
    apply=apply,
    marks=("oft_blocks",),
    expected=expected,
    load=load,
    store=store,
)
BOFT = Algorithm(
    shapes=butterfly_shapes,
    initial=initial,
    traits=traits,
    delta=delta,
    apply=apply,
    marks=(),  # recognized as OFT's, told apart by the dimensions of its blocks
    expected=expected,
    load=load,
    store=store,
)
