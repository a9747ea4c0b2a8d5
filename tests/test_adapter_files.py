"""Reading of single layers out of adapter files: other programs' spellings, and what is refused."""

from __future__ import annotations

import pytest
import torch

import adapter_cases
from adapter_cases import Case, perturbed, target
from lib_lora_trainer.adapters import methods
from lib_lora_trainer.base.errors import DataError

INNER, OUTER = adapter_cases.INNER, adapter_cases.OUTER
DOWN, UP = torch.randn(2, INNER), torch.randn(OUTER, 2)
LORA = {"lora_down.weight": DOWN, "lora_up.weight": UP, "alpha": torch.tensor(1.0)}


def test_a_lora_without_alpha_has_scale_1() -> None:
    adapter = methods.restore(target("linear"), {name: LORA[name] for name in ("lora_down.weight", "lora_up.weight")})
    torch.testing.assert_close(methods.weight_delta(adapter), UP @ DOWN)
    assert float(methods.file_tensors(adapter)["alpha"]) == 2


def test_peft_names_are_those_of_a_lora() -> None:
    adapter = methods.restore(target("linear"), {"lora_A.weight": DOWN, "lora_B.weight": UP})
    torch.testing.assert_close(methods.weight_delta(adapter), UP @ DOWN)
    assert "lora_down.weight" in methods.file_tensors(adapter)


def test_matrices_and_1x1_convolutions_stand_for_each_other() -> None:
    flat = methods.restore(target("point"), LORA)
    high = methods.restore(target("linear"), {**LORA, "lora_down.weight": DOWN[..., None, None]})
    assert torch.equal(methods.weight_delta(flat).flatten(1), methods.weight_delta(high))
    assert methods.file_tensors(flat)["lora_up.weight"].shape == (OUTER, 2, 1, 1)


def test_half_precision_files_are_read_into_full_precision() -> None:
    adapter = methods.restore(target("linear"), {name: tensor.half() for name, tensor in LORA.items()})
    assert all(value.dtype == torch.float32 for value in adapter.parameters())
    torch.testing.assert_close(methods.weight_delta(adapter), UP.half().float() @ DOWN.half().float() / 2)


def test_a_bias_may_be_missing_from_a_full_difference() -> None:
    adapter = methods.restore(target("linear"), {"diff": torch.ones(OUTER, INNER)})
    assert methods.bias_delta(adapter) is None and torch.equal(methods.weight_delta(adapter), torch.ones(OUTER, INNER))


def test_a_foreign_gloras_alpha_is_not_used_as_the_loader_does_not() -> None:
    found, adapter = perturbed(Case("glora", {"rank": 4, "alpha": 4.0}), "linear")
    tensors = methods.file_tensors(adapter)
    again = methods.restore(found, {**tensors, "alpha": torch.tensor(1.0)})
    torch.testing.assert_close(methods.weight_delta(again), methods.weight_delta(adapter))


@pytest.mark.parametrize(
    ("kind", "tensors", "message"),
    [
        ("linear", {"lora_up.weight": UP, "alpha": torch.tensor(1.0)}, "lora_down.weight is missing"),
        ("linear", {"lora_down.weight": DOWN}, "lora_up.weight is missing"),
        ("linear", {**LORA, "bias": UP}, "bias cannot be read beside"),
        ("linear", {"oft_diag": UP}, "oft_diag is no adapter that can be read"),
        ("linear", {**LORA, "lora_up.weight": UP[1:]}, r"lora_up.weight is \(63, 2\) instead of \(64, 2\)"),
        ("conv", LORA, r"lora_down.weight is \(2, 48\) instead of \(2, 48, 3, 3\). The file is for another model"),
        ("linear", {**LORA, "dora_scale": torch.ones(OUTER, 1)}, "DoRA of outputs, which the WebUI reads wrongly"),
        ("linear", {**LORA, "dora_scale": torch.ones(1, OUTER)}, r"instead of \(1, 48\). The file is for another"),
        ("linear", {"weight": torch.ones(OUTER)}, "on_input is missing"),
        ("conv", {"weight": torch.ones(1, OUTER, 1, 1), "on_input": torch.tensor(0)}, "IA³ of a convolution's outputs"),
        ("linear", {"diff": UP}, r"diff is \(64, 2\) instead of \(64, 48\)"),
        ("linear", {"diff": torch.ones(OUTER, INNER), "dora_scale": torch.ones(1, INNER)}, "dora_scale cannot be read"),
        ("layer norm", {"w_norm": torch.ones(INNER)}, "b_norm is missing"),
        ("layer norm", LORA, "no matrix|for another model"),
        ("linear", {"lokr_w1": torch.ones(5, 6), "lokr_w2": torch.ones(8, 8)}, "does not divide a weight of 64 × 48"),
        ("linear", {"lokr_w1": torch.ones(8, 6)}, "lokr_w2_b is missing"),
        ("linear", {"oft_blocks": torch.zeros(7, 8, 8)}, "7 blocks of 8 do not make the layer's 64 outputs"),
        ("linear", {"oft_blocks": torch.zeros(3, 8, 8, 8)}, r"is \(3, 8, 8, 8\) instead of \(4, 8, 8, 8\)"),
        ("conv", {"a1.weight": DOWN, "alpha": torch.tensor(1.0)}, "glora is for linear layers alone"),
        ("linear", {"hada_w1_a": UP}, "hada_w1_b is missing"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_by_layer_and_name(kind, tensors, message) -> None:
    found = target(kind)
    with pytest.raises(DataError, match=message) as refused:
        methods.restore(found, tensors)
    assert found.layer.path in str(refused.value)


def test_lycoris_glora_names_are_refused_where_shapes_tell_them_apart() -> None:
    """In a square layer of rank equal to its size they would not; no adapter is that large."""
    found, adapter = perturbed(Case("glora"), "linear")
    tensors = methods.file_tensors(adapter)
    swapped = {**tensors, "b1.weight": tensors["b2.weight"], "b2.weight": tensors["b1.weight"]}
    with pytest.raises(DataError, match="for another model"):
        methods.restore(found, swapped)
