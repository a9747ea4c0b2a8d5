"""The running average of the weights: its values by hand, and that showing it leaves nothing behind."""

from __future__ import annotations

import pytest
import torch

from lib_lora_trainer.adapters.targets import Layer
from lib_lora_trainer.train import average

LAYER = Layer("unet", "a.b", 2, 1)


def adapters() -> dict[Layer, torch.nn.Module]:
    return {LAYER: torch.nn.Linear(2, 1)}


def test_the_average_follows_by_hand() -> None:
    trained = adapters()
    weight = trained[LAYER].weight
    with torch.no_grad():
        weight.copy_(torch.tensor([[1.0, 2.0]]))
    averages = average.start(trained)
    with torch.no_grad():
        weight.copy_(torch.tensor([[3.0, 2.0]]))
    average.update(averages, trained, 0.75)
    assert averages["unet/a.b/weight"].tolist() == [[1.5, 2.0]]


def test_the_decay_rises_to_its_value() -> None:
    assert average.decay_at(1, 0.99) == pytest.approx(2 / 11)
    assert average.decay_at(90, 0.99) == pytest.approx(0.91)
    assert average.decay_at(100_000, 0.99) == 0.99


def test_showing_it_leaves_the_weights_bit_for_bit() -> None:
    trained = adapters()
    averages = average.start(trained)
    with torch.no_grad():
        for parameter in trained[LAYER].parameters():
            parameter.add_(0.1)
    before = [parameter.clone() for parameter in trained[LAYER].parameters()]
    with pytest.raises(RuntimeError, match="outside"), average.shown(averages, trained):
        assert torch.equal(trained[LAYER].weight, averages["unet/a.b/weight"])
        raise RuntimeError("outside")
    assert all(torch.equal(one, two) for one, two in zip(before, trained[LAYER].parameters(), strict=True))
