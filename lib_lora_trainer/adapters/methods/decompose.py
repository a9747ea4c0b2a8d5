"""DoRA: W' = m · (W + ΔW) / ‖W + ΔW‖, m learned (Liu et al. 2024, arXiv:2402.09353)."""

from __future__ import annotations

from typing import Any

import torch

from lib_lora_trainer.adapters.methods.adapter import Adapter, Shape
from lib_lora_trainer.adapters.methods.operation import channel_axis, exact, frozen_weight, full_weight, groups, run


def shape_of(shape: Shape) -> Shape:
    """Return the shape of the magnitudes: one for each input, (1, in) or (1, in, 1, 1).

    The paper and the WebUI's loader normalize columns. LyCORIS normalizes rows unless told otherwise, and the loader
    computes something else from such a file without a word (test_dora_normalizes_inputs).
    """
    return (1, shape[1], *(1 for _ in shape[2:]))


def magnitudes(weight: torch.Tensor) -> torch.Tensor:
    """Return the norm of each input's column over outputs and kernel."""
    return weight.transpose(0, 1).flatten(1).norm(dim=1).view(shape_of(tuple(weight.shape)))


def _factors(adapter: Adapter, module: Any) -> torch.Tensor:
    """Return m / ‖W + ΔW‖ per input.

    The norm counts as constant in the backward pass (section 4.3 of the paper): else W + ΔW would be kept for every
    layer. LyCORIS keeps it (test_dora_takes_the_norm_as_constant). Columns that are zero stay zero.
    """
    with torch.no_grad():
        merged = full_weight(module, adapter.value("dora_scale").device) + adapter.algorithm.delta(adapter)
        norms = magnitudes(merged).clamp_min(torch.finfo(torch.float32).tiny)
    return adapter.value("dora_scale") / norms


def weight_delta(adapter: Adapter) -> torch.Tensor:
    """Return W' - W."""
    factors = _factors(adapter, adapter.base)
    return full_weight(adapter.base, factors.device) * (factors - 1) + adapter.algorithm.delta(adapter) * factors


def apply(adapter: Adapter, module: Any, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what remains to be added for the magnitudes, W((s - 1) ∘ x), and the scaled inputs s ∘ x for ΔW."""
    with exact(inputs.device):
        factors = _factors(adapter, module)
    if channel_axis(module) != 1:
        factors = factors.view(-1)
    elif groups(module) > 1:  # the weight has one column for each input of a group
        factors = factors.repeat(1, groups(module), 1, 1)
    changed = inputs * (factors - 1)
    return run(module, changed, frozen_weight(module, changed)), inputs * factors
