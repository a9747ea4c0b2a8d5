"""Every method on every kind of layer with every option: what is computed, learned, written and read."""

from __future__ import annotations

import pytest
import torch

import loader_arithmetic
from adapter_cases import COMBINATIONS, EVERY, Case, assignment, inputs_of, name, new, operation, perturbed
from lib_lora_trainer.adapters import methods
from lib_lora_trainer.adapters.attach import Attachment

every = pytest.mark.parametrize(("case", "kind"), EVERY, ids=name)
layers = pytest.mark.parametrize(("case", "kind"), COMBINATIONS, ids=name)


@every
def test_a_new_adapter_changes_nothing(case: Case, kind: str) -> None:
    found, adapter = new(case, kind)
    inputs = inputs_of(found)
    before = found.module(inputs)
    with Attachment([found], {found.layer: adapter}):
        assert torch.equal(found.module(inputs), before)
    assert methods.weight_delta(adapter).abs().max() == 0
    assert adapter.training and all(value.dtype == torch.float32 and value.is_leaf for value in adapter.parameters())
    owned = {value.untyped_storage().data_ptr() for value in adapter.parameters()}
    assert owned.isdisjoint(value.untyped_storage().data_ptr() for value in found.module.parameters())


@every
def test_the_number_of_values_is_the_formulas(case: Case, kind: str) -> None:
    found, adapter = new(case, kind)
    wanted = methods.parameter_count(found.layer, assignment(found.layer, case.config), case.config)
    assert sum(value.numel() for value in adapter.parameters()) == wanted > 0


@every
def test_the_output_is_that_of_the_changed_weight_at_any_strength(case: Case, kind: str) -> None:
    found, adapter = perturbed(case, kind)
    adapter.eval()
    inputs = inputs_of(found)
    before = dict(found.module.__dict__)
    plain = found.module(inputs)
    bias = methods.bias_delta(adapter)
    expected = operation(found, inputs, methods.weight_delta(adapter), bias)
    assert expected.abs().mean() > (1e-3 if "oft_constraint" in case.options else 0.02)
    with Attachment([found], {found.layer: adapter}) as attachment:
        for strength in (1.0, 0.5, -2.0):
            with attachment.at_strength(strength):
                torch.testing.assert_close(found.module(inputs), plain + strength * expected, rtol=1e-4, atol=1e-4)
        with attachment.at_strength(0.0):
            assert torch.equal(found.module(inputs), plain)
    assert found.module.__dict__ == before
    assert torch.equal(found.module(inputs), plain)


@every
def test_every_value_gets_a_gradient_and_the_base_none(case: Case, kind: str) -> None:
    found, adapter = perturbed(case, kind)
    adapter.train(case.method != "dylora")
    with Attachment([found], {found.layer: adapter}):
        found.module(inputs_of(found)).square().mean().backward()
    for key, value in adapter.named_parameters():
        assert value.grad is not None and value.grad.isfinite().all() and value.grad.abs().sum() > 0, key
    assert all(value.grad is None for value in found.module.parameters())


@every
def test_the_first_step_from_the_start_changes_the_output(case: Case, kind: str) -> None:
    found, adapter = new(case, kind)
    inputs = inputs_of(found)
    before = found.module(inputs)
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.1)
    with Attachment([found], {found.layer: adapter}):
        found.module(inputs).square().mean().backward()
        optimizer.step()
        adapter.eval()  # DyLoRA uses its whole rank
        assert not torch.equal(found.module(inputs), before)


@layers
def test_the_file_means_to_the_loader_what_was_trained(case: Case, kind: str) -> None:
    found, adapter = perturbed(case, kind)
    tensors = methods.file_tensors(adapter)
    expected = loader_arithmetic.weight_change(tensors, found.module.weight)
    mine = methods.weight_delta(adapter).detach()
    assert mine.shape == found.module.weight.shape and mine.dtype == torch.float32
    assert expected.abs().mean() > 1e-4
    torch.testing.assert_close(mine.double(), expected, rtol=1e-4, atol=2e-6)


@every
def test_a_file_read_back_is_the_same_adapter(case: Case, kind: str) -> None:
    found, adapter = perturbed(case, kind)
    tensors = methods.file_tensors(adapter)
    again = methods.restore(found, tensors)
    assert again.training and all(value.requires_grad for value in again.parameters())
    torch.testing.assert_close(methods.weight_delta(again), methods.weight_delta(adapter), rtol=1e-5, atol=1e-7)
    biases = (methods.bias_delta(again), methods.bias_delta(adapter))
    assert all(bias is None for bias in biases) or torch.equal(*biases)
    assert (biases[0] is not None) == (case.method == "full" and kind not in ("query", "view"))
    second = methods.file_tensors(again)
    assert set(second) == set(tensors)
    for key, tensor in tensors.items():
        assert torch.equal(second[key], tensor) and second[key].dtype == tensor.dtype, key
    owned = {value.untyped_storage().data_ptr() for value in again.parameters()}
    assert owned.isdisjoint(tensor.untyped_storage().data_ptr() for tensor in tensors.values())
