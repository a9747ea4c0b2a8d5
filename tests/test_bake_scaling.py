"""A layer's tensors after scaling mean the multiple of its delta, for every method, option and kind of layer."""

from __future__ import annotations

import pytest
import torch

from adapter_cases import EVERY, Case, name, perturbed
from lib_lora_trainer.adapters import methods
from lib_lora_trainer.base.errors import DataError
from lib_lora_trainer.workshop import scaling
from loader_arithmetic import weight_change

KEY = "lora_unet_input_blocks_1_1_proj_in"
RATIOS = (0.5, -1.25)


def written(case: Case, kind: str, dtype: torch.dtype = torch.float32):
    found, adapter = perturbed(case, kind)
    tensors = {
        key: value.to(dtype) if value.is_floating_point() and key not in ("alpha", "dora_scale") else value.clone()
        for key, value in methods.file_tensors(adapter).items()
    }
    return found, tensors


def bias_of(tensors):
    return next((tensors[key] for key in ("diff_b", "b_norm") if key in tensors), None)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize(("case", "kind"), EVERY, ids=name)
def test_the_delta_is_the_multiple(case, kind, ratio):
    found, tensors = written(case, kind)
    changed = scaling.scaled(KEY, tensors, ratio, lambda: found)
    before = weight_change(tensors, found.module.weight)
    assert before.abs().max() > 1e-3
    after = weight_change(changed, found.module.weight)
    torch.testing.assert_close(after, ratio * before, rtol=1e-5, atol=1e-6)
    ours = methods.weight_delta(methods.restore(found, changed).eval())
    torch.testing.assert_close(ours.double(), ratio * before, rtol=1e-4, atol=1e-5)
    if bias_of(tensors) is not None:
        torch.testing.assert_close(bias_of(changed), ratio * bias_of(tensors))
    assert all(tensors[key].dtype == value.dtype for key, value in changed.items() if key in tensors)


@pytest.mark.parametrize(("case", "kind"), EVERY, ids=name)
def test_one_changes_nothing_and_zero_leaves_nothing(case, kind):
    found, tensors = written(case, kind)
    same = scaling.scaled(KEY, tensors, 1.0)
    assert same.keys() == tensors.keys()
    assert all(same[key] is tensors[key] for key in same)
    assert scaling.scaled(KEY, tensors, 0.0) == {}
    zero = scaling.zeroed(KEY, tensors)
    assert not methods.weight_delta(methods.restore(found, zero).eval()).abs().max() > 0
    assert not weight_change(zero, found.module.weight).abs().max() > 0
    assert bias_of(zero) is None or not bias_of(zero).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("method", ["lora", "loha", "lokr", "glora", "ia3", "full"])
def test_half_precision_stays_and_ranked_factors_are_not_touched(method, dtype):
    found, tensors = written(Case(method), "linear", dtype)
    changed = scaling.scaled(KEY, tensors, 0.3)
    for key, value in changed.items():
        assert value.dtype == tensors[key].dtype
        if method in ("lora", "loha", "lokr"):
            assert key == "alpha" or torch.equal(value, tensors[key])
    before = weight_change(tensors, found.module.weight)
    difference = weight_change(changed, found.module.weight) - 0.3 * before
    assert difference.norm() <= 2**-7 * (0.3 * before).norm()


@pytest.mark.parametrize("method", ["full", "ia3", "glora"])
def test_what_half_precision_would_round_away_becomes_float32(method):
    """0.1 times values near 1e-7, the smallest that float16 has, would be zero."""
    found, tensors = written(Case(method), "query")
    small = {
        key: (value * 1e-7 if key in ("diff", "weight", "a1.weight", "b1.weight") else value).half()
        if value.is_floating_point() and key != "alpha"
        else value
        for key, value in tensors.items()
    }
    before = weight_change(small, found.module.weight)
    assert before.abs().max() > 0
    after = weight_change(scaling.scaled(KEY, small, 0.1), found.module.weight)
    torch.testing.assert_close(after, 0.1 * before, rtol=1e-5, atol=0.0)


def test_numbers_beyond_half_precision_become_float32():
    diff = torch.tensor([[40000.0, 1.0]], dtype=torch.float16)
    changed = scaling.scaled(KEY, {"diff": diff}, 4.0)["diff"]
    assert changed.dtype == torch.float32
    assert changed.tolist() == [[160000.0, 4.0]]


def test_a_file_without_alpha_has_the_rank_for_it():
    found, tensors = written(Case("lora"), "linear")
    del tensors["alpha"]
    assert float(scaling.scaled(KEY, tensors, 0.5)["alpha"]) == 1.0  # rank 2
    before = weight_change(tensors, found.module.weight)
    torch.testing.assert_close(weight_change(scaling.scaled(KEY, tensors, 0.5), found.module.weight), 0.5 * before)


def test_peft_names_lose_the_alpha_that_the_loader_drops():
    found, tensors = written(Case("lora"), "linear")
    peft = {"lora_A.weight": tensors["lora_down.weight"], "lora_B.weight": tensors["lora_up.weight"]}
    changed = scaling.scaled(KEY, {**peft, "alpha": torch.tensor(7.0)}, 0.25)
    product = (tensors["lora_up.weight"] @ tensors["lora_down.weight"]).double()
    torch.testing.assert_close(weight_change(changed, found.module.weight), 0.25 * product, rtol=1e-5, atol=1e-7)


def test_a_scale_in_the_file_counts_instead_of_alpha():
    _, tensors = written(Case("lora"), "linear")
    changed = scaling.scaled(KEY, {**tensors, "scale": torch.tensor(3.0)}, 0.5)
    assert float(changed["scale"]) == 1.5
    assert torch.equal(changed["alpha"], tensors["alpha"])


@pytest.mark.parametrize("case", [Case("oft"), Case("boft"), Case("lora", {"weight_decompose": True})], ids=name)
def test_what_depends_on_the_model_asks_for_it(case):
    _, tensors = written(case, "linear")
    assert scaling.needs_base(tensors, 0.5)
    assert not scaling.needs_base(tensors, 1.0)
    assert not scaling.needs_base(tensors, 0.0)
    with pytest.raises(DataError, match=f"{KEY}: a multiple of .* Name the checkpoint"):
        scaling.scaled(KEY, tensors, 0.5)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("oft_diag",), "oft_diag is no adapter that can be multiplied"),
        (("lora_up.weight", "lora_down.weight", "lora_magnitude_vector"), "how lora_magnitude_vector acts"),
        (("lora_up.weight",), "lora_up.weight is no adapter"),
        (("diff", "dora_scale"), "how dora_scale acts"),
    ],
)
def test_other_forms_are_refused_by_name(parts, message):
    tensors = {part: torch.ones(2, 2) for part in parts}
    with pytest.raises(DataError, match=f"{KEY}: {message}.*1 or 0"):
        scaling.scaled(KEY, tensors, 0.5)
    assert scaling.scaled(KEY, tensors, 1.0) == tensors
