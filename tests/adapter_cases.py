"""Small layers of every kind, the methods with their options, and adapters on them that are not zero."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from lib_lora_trainer.adapters import methods
from lib_lora_trainer.adapters.targets import Assignment, Layer, Target, layer_of
from lib_lora_trainer.config.adapter import AdapterConfig

INNER, OUTER = 48, 64  # 48 = 6 · 8 and 64 = 8 · 8, so that LoKr of rank 2 is low in both factors
BLOCK = "input_blocks.1.1.transformer_blocks.0"
LINEAR, QUERY, INPUT = f"{BLOCK}.attn1.to_out.0", f"{BLOCK}.attn1.to_q", f"{BLOCK}.ff.net.2"
RANKED = ("lora", "locon", "loha", "lokr", "glora", "dylora")
CONVOLUTIONS = ("point", "conv", "strided")
KINDS = ("linear", "query", "input", *CONVOLUTIONS, "view")
NORMS = ("layer norm", "group norm")


@dataclass(frozen=True)
class Case:
    """A method with options, on the kinds of layers it has a form for."""

    method: str
    options: dict[str, Any] = field(default_factory=dict)
    kinds: tuple[str, ...] = KINDS

    @property
    def config(self) -> AdapterConfig:
        settings = {"rank": 2, "alpha": 1.5, "dylora_unit": 1, **self.options}
        return AdapterConfig(method=self.method, **settings)

    @property
    def name(self) -> str:
        return "-".join([self.method, *(f"{key}={value}" for key, value in self.options.items())])


LARGER = ("conv", "strided")
LINEARS = ("linear", "query", "input", "view")
PLAIN = (
    *(Case(method) for method in ("lora", "locon", "loha", "lokr", "ia3", "oft", "boft", "full")),
    Case("dylora", {"rank": 6, "dylora_unit": 2}),
    Case("glora", kinds=LINEARS),
)
OPTIONS = (
    *(Case(method, {"weight_decompose": True}) for method in ("lora", "loha", "lokr")),
    *(Case(method, {"rank_stabilized": True}, ("linear", "conv")) for method in ("locon", "loha", "lokr")),
    Case("glora", {"rank_stabilized": True}, ("linear",)),
    Case("dylora", {"rank_stabilized": True, "rank": 4}, ("linear", "conv")),
    *(Case(method, {"tucker": True}, ("linear", *CONVOLUTIONS)) for method in ("lora", "loha", "lokr")),
    *(Case(method, {"scalar": True}, ("linear", "conv")) for method in ("lora", "loha", "lokr")),
    Case("glora", {"scalar": True}, ("linear",)),
    *(
        Case(method, {"weight_decompose": True, "rank_stabilized": True, "tucker": True, "scalar": True}, LARGER)
        for method in ("locon", "loha", "lokr")
    ),
    Case("lokr", {"lokr_decompose_both": True}),
    Case("lokr", {"lokr_full_matrix": True}),
    Case("lokr", {"lokr_factor": 4, "lokr_decompose_both": True, "tucker": True}, ("linear", *CONVOLUTIONS)),
    *(Case(method, {"oft_rescaled": True, "rank": 8}) for method in ("oft", "boft")),
    *(Case(method, {"oft_constraint": 0.01}) for method in ("oft", "boft")),
)
COMBINATIONS = [(case, kind) for case in (*PLAIN, *OPTIONS) for kind in case.kinds]
NORM_CASES = [(Case("full"), kind) for kind in NORMS]
EVERY = [*COMBINATIONS, *NORM_CASES]


def name(value: Any) -> str:
    """Return how a case or kind is called in a test's name."""
    return value.name if isinstance(value, Case) else str(value)


def target(kind: str, dtype: torch.dtype = torch.float32) -> Target:
    """Return a layer of a kind with random weights, frozen."""
    generator = torch.Generator().manual_seed(3)
    made = {
        "linear": ("unet", LINEAR, torch.nn.Linear(INNER, OUTER)),
        "query": ("unet", QUERY, torch.nn.Linear(INNER, OUTER, bias=False)),
        "input": ("unet", INPUT, torch.nn.Linear(INNER, OUTER)),
        "point": ("unet", "input_blocks.1.1.proj_in", torch.nn.Conv2d(INNER, OUTER, 1)),
        "conv": ("unet", "input_blocks.1.0.in_layers.2", torch.nn.Conv2d(INNER, OUTER, 3, padding=1)),
        "strided": ("unet", "input_blocks.3.0.op", torch.nn.Conv2d(INNER, OUTER, 3, stride=2, padding=1)),
        "view": ("te2", "text_model.encoder.layers.0.self_attn.k_proj", _view()),
        "layer norm": ("unet", f"{BLOCK}.norm1", torch.nn.LayerNorm(INNER)),
        "group norm": ("unet", "input_blocks.1.0.in_layers.0", torch.nn.GroupNorm(4, INNER)),
    }
    part, path, module = made[kind]
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3 + (parameter.dim() == 1))
    layer = layer_of(part, path, module)
    assert layer is not None
    return Target(layer, module.requires_grad_(False).to(dtype))


def _view() -> torch.nn.Linear:
    """Return a Linear whose weight and bias are the middle third of a fused attention's, as a host offers keys."""
    fused = torch.nn.MultiheadAttention(INNER, 4)
    linear = torch.nn.Linear(INNER, INNER, device="meta")
    middle = slice(INNER, 2 * INNER)
    linear.weight = torch.nn.Parameter(fused.in_proj_weight.detach()[middle], requires_grad=False)
    linear.bias = torch.nn.Parameter(fused.in_proj_bias.detach()[middle], requires_grad=False)
    assert linear.weight.untyped_storage().data_ptr() == fused.in_proj_weight.untyped_storage().data_ptr()
    return linear


def assignment(layer: Layer, config: AdapterConfig) -> Assignment:
    """Return what the configuration gives every layer."""
    return Assignment(config.method, config.rank, config.alpha)


def new(case: Case, kind: str, seed: int = 5) -> tuple[Target, methods.Adapter]:
    """Return a layer and its adapter as training starts."""
    found = target(kind)
    return found, methods.build(found, assignment(found.layer, case.config), case.config, seed)


def perturbed(case: Case, kind: str, size: float = 0.3) -> tuple[Target, methods.Adapter]:
    """Return a layer and its adapter, no value of which is zero."""
    found, adapter = new(case, kind)
    shake(adapter, size)
    return found, adapter


def shake(adapter: torch.nn.Module, size: float = 0.3) -> None:
    """Add random values of a size to every parameter; magnitudes and factors near 1 are multiplied by them."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for key, parameter in adapter.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator) * size
            if key in ("dora_scale", "rescale"):
                parameter.mul_(1 + noise)
            else:
                parameter.add_(noise)


def inputs_of(found: Target) -> torch.Tensor:
    """Return inputs for a layer: pictures (2, C, 6, 6) for convolutions and GroupNorm, sequences (2, 5, C) else."""
    generator = torch.Generator().manual_seed(13)
    pictures = found.layer.conv or isinstance(found.module, torch.nn.GroupNorm)
    shape = (2, found.layer.inputs, 6, 6) if pictures else (2, 5, found.layer.inputs)
    return torch.randn(shape, generator=generator)


def operation(found: Target, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Return what torch's own function of the layer computes with another weight and bias."""
    functional, module = torch.nn.functional, found.module
    if isinstance(module, torch.nn.Conv2d):
        return functional.conv2d(
            inputs, weight, bias, module.stride, module.padding, module.dilation, module.groups
        )  # fmt: skip
    if isinstance(module, torch.nn.GroupNorm):
        return functional.group_norm(inputs, module.num_groups, weight, bias, module.eps)
    if isinstance(module, torch.nn.LayerNorm):
        return functional.layer_norm(inputs, module.normalized_shape, weight, bias, module.eps)
    return functional.linear(inputs, weight, bias)
