"""A problem small enough for every optimizer: factors of matrices, as a LoRA has them, fitted by least squares."""

from __future__ import annotations

import pytest
import torch

from lib_lora_trainer.adapters.targets import Layer
from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.config.optimizer import OPTIMIZERS, OptimizerConfig
from lib_lora_trainer.train import optim
from lib_lora_trainer.train.optimizers import EIGHT_BIT, locate, old_bitsandbytes

LAYERS = (
    Layer("unet", "input_blocks.1.1.proj_in", 320, 256),
    Layer("text", "text_model.encoder.layers.0.mlp.fc1", 320, 256),
    Layer("unet", "middle_block.1.proj_out", 320, 256),
)
RANK = 16  # 16 × 256 values are the fewest that the 8-bit optimizers keep in 8 bits

_RATES = {
    **dict.fromkeys(OPTIMIZERS, 1e-3),
    **dict.fromkeys(optim.SELF_TUNED, 1.0),
    "lion": 3e-4,
    "lion8bit": 3e-4,
    "custom": 0.05,
}


class Factors(torch.nn.Module):
    """The two factors of one layer's delta, neither of them zero."""

    def __init__(self, layer: Layer, random: torch.Generator) -> None:
        super().__init__()
        self.down = torch.nn.Parameter(torch.randn(RANK, layer.inputs, generator=random) / 18)
        self.up = torch.nn.Parameter(torch.randn(layer.outputs, RANK, generator=random) / 40)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs @ self.down.T @ self.up.T


def ups(adapter: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [adapter.up]


def make_adapters() -> dict[Layer, torch.nn.Module]:
    random = torch.Generator().manual_seed(5)
    return {layer: Factors(layer, random) for layer in LAYERS}


def make_config(name: str, **changes: object) -> OptimizerConfig:
    """Return settings with which an optimizer learns the problem in a few dozen steps."""
    rate = _RATES[name]
    custom = {"custom_class": "torch.optim.SGD", "arguments": ("momentum=0.9",)} if name == "custom" else {}
    values = {"unet_learning_rate": rate, "text_learning_rate": rate, **custom, **changes}
    return OptimizerConfig(name=name, schedule="constant", **values)


def build(adapters: dict[Layer, torch.nn.Module], config: OptimizerConfig, **rates: float) -> torch.optim.Optimizer:
    """Build the optimizer; skips the test where its package cannot be had here."""
    found = locate(config)
    if isinstance(found, Problem):
        pytest.skip(str(found))
    if config.name in EIGHT_BIT and old_bitsandbytes():
        pytest.skip(f"bitsandbytes {old_bitsandbytes()} has no 8-bit optimizers on the CPU")
    return optim.build(adapters, {layer: rates.get(layer.path.split(".")[0], 1.0) for layer in adapters}, ups, config)


def loss(adapters: dict[Layer, torch.nn.Module], step: int) -> torch.Tensor:
    """Return the squared error of a step's batch, summed over the layers."""
    random = torch.Generator().manual_seed(1000 + step)
    wanted = torch.Generator().manual_seed(7)
    total = torch.zeros(())
    for layer, adapter in adapters.items():
        goal = torch.randn(layer.outputs, 4, generator=wanted) @ torch.randn(4, layer.inputs, generator=wanted) / 40
        inputs = torch.randn(32, layer.inputs, generator=random)
        total = total + (adapter(inputs) - inputs @ goal.T).square().mean()
    return total


def take(adapters: dict[Layer, torch.nn.Module], optimizer: torch.optim.Optimizer, step: int) -> float:
    """Do one step whose rates have been set; return its loss."""
    optimizer.zero_grad(set_to_none=True)
    value = loss(adapters, step)
    value.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return value.item()


def values(adapters: dict[Layer, torch.nn.Module], part: str = "") -> list[torch.Tensor]:
    """Return copies of the weights of a part, or of all."""
    chosen = [adapter for layer, adapter in adapters.items() if layer.part == part or not part]
    return [parameter.detach().clone() for adapter in chosen for parameter in adapter.parameters()]


def same(one: list[torch.Tensor], two: list[torch.Tensor]) -> bool:
    """Tell whether two lists of tensors are equal bit for bit, dtypes included."""
    pairs = list(zip(one, two, strict=True))
    return all(a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b) for a, b in pairs)
