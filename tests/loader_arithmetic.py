"""What a layer's tensors in an adapter file mean to the WebUI's loader, written as plain sums in float64.

From the network_*.py of extensions-builtin/Lora in stable-diffusion-webui 1.10.1, so that files can be checked without a
WebUI; tests/test_loader_methods.py compares with the loader itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

Tensors = Mapping[str, torch.Tensor]


def weight_change(given: Tensors, weight: torch.Tensor) -> torch.Tensor:
    """Return the change of the weight at strength 1, float64."""
    file = {name: tensor.double() for name, tensor in given.items()}
    base = weight.detach().double()
    change, rank = _change(file, base)
    if rank is not None and "alpha" in file:
        change = change * float(file["alpha"]) / rank
    change = change.reshape(base.shape)
    if "dora_scale" in file:
        merged = base + change
        axes = [axis for axis in range(base.dim()) if axis != 1]
        change = merged * file["dora_scale"] / merged.square().sum(axes, keepdim=True).sqrt() - base
    return change


def _change(file: Tensors, base: torch.Tensor) -> tuple[torch.Tensor, int | None]:
    """Return the change before alpha and DoRA, and the rank that divides alpha, None where alpha is not a scale."""
    if "lora_up.weight" in file:
        up, down = file["lora_up.weight"].flatten(1), file["lora_down.weight"].flatten(1)
        if "lora_mid.weight" in file:
            return torch.einsum("nmkl,in,mj->ijkl", file["lora_mid.weight"], up, down), down.shape[0]
        return up @ down, down.shape[0]
    if "hada_w1_a" in file:
        return _half(file, "1") * _half(file, "2"), file["hada_w1_b"].shape[0]
    if any(name.startswith("lokr") for name in file):
        return _kronecker(file)
    if "a1.weight" in file:
        return file["b2.weight"] @ file["b1.weight"] + base @ file["a2.weight"] @ file["a1.weight"], None
    if "on_input" in file:
        factors = file["weight"] if file["on_input"] else file["weight"].reshape(-1, 1)
        return base * factors, None
    if "oft_blocks" in file:
        return _rotation(file, base) - base, None
    return file["diff"] if "diff" in file else file["w_norm"], None


def _half(file: Tensors, number: str) -> torch.Tensor:
    a, b = file[f"hada_w{number}_a"], file[f"hada_w{number}_b"]
    if f"hada_t{number}" in file:
        return torch.einsum("ijkl,jr,ip->prkl", file[f"hada_t{number}"], b, a)
    return a @ b


def _kronecker(file: Tensors) -> tuple[torch.Tensor, int | None]:
    rank = None
    w1 = file.get("lokr_w1")
    if w1 is None:
        w1, rank = file["lokr_w1_a"] @ file["lokr_w1_b"], file["lokr_w1_b"].shape[0]
    w2 = file.get("lokr_w2")
    if w2 is None:
        a, b, rank = file["lokr_w2_a"], file["lokr_w2_b"], file["lokr_w2_b"].shape[0]
        w2 = torch.einsum("ijkl,jr,ip->prkl", file["lokr_t2"], b, a) if "lokr_t2" in file else a @ b
    if w2.dim() == 4:
        w1 = w1.reshape(*w1.shape, 1, 1)
    return torch.kron(w1, w2.contiguous()), rank


def _rotation(file: Tensors, base: torch.Tensor) -> torch.Tensor:
    blocks = file["oft_blocks"]
    outputs, size = base.shape[0], blocks.shape[-1]
    q = blocks - blocks.transpose(-1, -2)
    if float(file["alpha"]):
        q = q * min(1.0, float(file["alpha"]) * outputs / float(q.norm()))
    eye = torch.eye(size, dtype=torch.float64)
    r = (eye + q) @ torch.linalg.inv(eye - q)
    rows = base.reshape(outputs, -1).clone()
    if blocks.dim() == 3:
        rows = torch.block_diag(*(each.T for each in r)) @ rows
    for power, factor in enumerate(r) if blocks.dim() == 4 else ():
        order = torch.arange(outputs).reshape(-1, 2, 2**power * size // 2).transpose(1, 2).flatten()
        rows[order] = torch.block_diag(*factor) @ rows[order]
    turned = rows.reshape(base.shape)
    return turned * file["rescale"].reshape(-1, *[1] * (base.dim() - 1)) if "rescale" in file else turned
