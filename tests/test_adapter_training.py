"""Adapters while they train: dropout, DyLoRA's ranks, largest norms, LoRA+ and recomputed blocks."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import adapter_cases
import loader_arithmetic
from adapter_cases import EVERY, PLAIN, Case, inputs_of, name, perturbed, target
from lib_lora_trainer.adapters import files, methods
from lib_lora_trainer.config.adapter import METHODS, AdapterConfig

DROPS = ("dropout", "rank_dropout", "module_dropout")
ONE_EACH = [(case, kind) for case in PLAIN for kind in ("linear", "conv") if kind in case.kinds]


def dropping(case: Case, kind: str, **shares: float) -> tuple[methods.Adapter, torch.Tensor, torch.nn.Module]:
    """Return an adapter that drops, inputs and the layer."""
    found, adapter = perturbed(Case(case.method, {**case.options, **shares}, case.kinds), kind)
    return adapter, inputs_of(found), found.module


@pytest.mark.parametrize("setting", DROPS)
@pytest.mark.parametrize(
    ("case", "kind"), [*ONE_EACH, (Case("full"), "layer norm"), (Case("full"), "group norm")], ids=name
)
def test_dropout_acts_in_training_alone_in_every_method(setting: str, case: Case, kind: str) -> None:
    adapter, inputs, module = dropping(case, kind, **{setting: 0.5})
    if case.method == "dylora":
        adapter.traits = type(adapter.traits)(rank=6, alpha=1.5)  # its choice of ranks is tested below
    torch.manual_seed(0)
    draws = [methods.output_delta(adapter, module, inputs, 1.0) for _ in range(12)]
    adapter.eval()
    whole = methods.output_delta(adapter, module, inputs, 1.0)
    assert torch.equal(whole, methods.output_delta(adapter, module, inputs, 1.0))
    left_out = [draw.dim() == 0 and float(draw.detach()) == 0 for draw in draws]
    if setting == "module_dropout":
        assert 0 < sum(left_out) < 12
        assert all(absent or torch.equal(draw, whole) for draw, absent in zip(draws, left_out, strict=True))
    else:
        assert not any(left_out) and all(not torch.allclose(draw, whole) for draw in draws)
    again = []
    for _ in range(2):
        torch.manual_seed(5)
        again.append(methods.output_delta(adapter.train(), module, inputs, 1.0))
    assert torch.equal(*again)


@pytest.mark.parametrize("setting", DROPS[:2])
@pytest.mark.parametrize("method", ["lora", "loha", "lokr", "ia3", "oft", "full"])
def test_rank_dropout_keeps_the_mean(setting: str, method: str) -> None:
    adapter, inputs, module = dropping(Case(method), "linear", **{setting: 0.3})
    torch.manual_seed(0)
    with torch.no_grad():
        mean = sum(methods.output_delta(adapter, module, inputs, 1.0) for _ in range(3000)) / 3000
        whole = methods.output_delta(adapter.eval(), module, inputs, 1.0)
    assert (mean - whole).norm() / whole.norm() < 0.05


def test_rank_dropout_leaves_out_ranks_of_each_example() -> None:
    found, adapter = perturbed(Case("lora", {"rank": 8, "rank_dropout": 0.5}), "linear")
    single = torch.randn(1, 1, adapter_cases.INNER)
    inputs = single.repeat(64, 3, 1)
    added = methods.output_delta(adapter, found.module, inputs, 1.0)
    assert torch.equal(added[:, 0], added[:, 1]), "one mask for all places of an example"
    assert len(torch.unique(added[:, 0], dim=0)) > 32, "a mask for each example"
    up, inner = adapter.lora_up.detach(), (single.flatten() @ adapter.lora_down.detach().T)
    kept = torch.linalg.lstsq(up * inner, added[:, 0].detach().T).solution / (1.5 / 8)
    torch.testing.assert_close(kept, (kept > 1).float() * 2, rtol=1e-3, atol=1e-3)


def test_all_layers_left_out_still_give_a_gradient() -> None:
    adapter, inputs, module = dropping(Case("lora"), "linear", module_dropout=0.95)
    torch.manual_seed(1)
    added = methods.output_delta(adapter, module, inputs, 1.0)
    assert added.dim() == 0
    (module(inputs) + added).sum().backward()
    assert adapter.lora_down.grad is not None and adapter.lora_down.grad.abs().sum() == 0


def test_dropout_comes_back_with_a_file_that_training_goes_on_from() -> None:
    config = AdapterConfig(rank_dropout=0.5)
    found, adapter = perturbed(Case("lora"), "linear")
    adapters = {found.layer: adapter}
    tensors = files.to_tensors(adapters, "sd1", torch.float32)
    plain = files.from_tensors(tensors, [found], "sd1")[found.layer]
    dropped = files.from_tensors(tensors, [found], "sd1", config)[found.layer]
    inputs = inputs_of(found)
    whole = methods.output_delta(adapter.eval(), found.module, inputs, 1.0)
    assert torch.equal(methods.output_delta(plain, found.module, inputs, 1.0), whole)
    assert not torch.allclose(methods.output_delta(dropped, found.module, inputs, 1.0), whole)


@pytest.mark.parametrize("stabilized", [False, True])
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_dylora_files_are_what_was_trained_at_their_rank(kind: str, stabilized: bool) -> None:
    case = Case("dylora", {"rank": 6, "dylora_unit": 2, "rank_stabilized": stabilized})
    found, adapter = perturbed(case, kind)
    inputs = inputs_of(found)
    adapters = {found.layer: adapter}
    assert files.dylora_ranks(adapters) == (2, 4) and methods.dylora_ranks(adapter) == (2, 4, 6)
    wanted = {}
    for rank in (2, 4, None):
        tensors = files.to_tensors(adapters, "sd1", torch.float32, rank)
        parts = {key.partition(".")[2]: tensor for key, tensor in tensors.items()}
        assert parts["lora_down.weight"].shape[0] == parts["lora_up.weight"].shape[1] == (rank or 6)
        change = loader_arithmetic.weight_change(parts, found.module.weight).float()
        wanted[rank or 6] = adapter_cases.operation(found, inputs, change, None)
        scale = 1.5 / math.sqrt(rank or 6) if stabilized else 1.5 / (rank or 6)
        assert float(parts["alpha"]) / (rank or 6) == pytest.approx(scale)
    seen = set()
    for seed in range(12):
        torch.manual_seed(seed)
        adapter.zero_grad()
        added = methods.output_delta(adapter, found.module, inputs, 1.0)
        (rank,) = [rank for rank, each in wanted.items() if torch.allclose(added, each, rtol=1e-4, atol=1e-4)]
        seen.add(rank)
        added.square().sum().backward()
        rows = adapter.lora_down.grad.flatten(1).abs().sum(1).nonzero().flatten().tolist()
        columns = adapter.lora_up.grad.flatten(1).abs().sum(0).nonzero().flatten().tolist()
        assert rows == columns == [rank - 2, rank - 1], "one block learns, those before it act"
    assert seen == {2, 4, 6}
    torch.testing.assert_close(methods.output_delta(adapter.eval(), found.module, inputs, 1.0), wanted[6])


def test_layers_of_smaller_rank_are_whole_in_files_of_higher_ranks() -> None:
    small, large = (perturbed(Case("dylora", {"rank": rank}), kind) for rank, kind in ((2, "linear"), (4, "conv")))
    adapters = {found.layer: adapter for found, adapter in (small, large)}
    assert files.dylora_ranks(adapters) == (1, 2, 3)
    tensors = files.to_tensors(adapters, "sd1", torch.float32, 3)
    assert sorted(tensor.shape[0] for key, tensor in tensors.items() if "lora_down" in key) == [2, 3]
    assert files.dylora_ranks({found.layer: perturbed(Case("lora"), "conv")[1] for found in (small[0],)}) == ()


@pytest.mark.parametrize(("case", "kind"), EVERY, ids=name)
def test_the_norm_of_a_delta_is_limited_and_its_direction_kept(case: Case, kind: str) -> None:
    _, adapter = perturbed(case, kind)
    before = adapter.algorithm.delta(adapter).detach().clone()
    values = {key: value.detach().clone() for key, value in adapter.named_parameters()}
    if case.method in ("oft", "boft"):
        assert not methods.limit_norm(adapter, 1e-3)
        assert all(torch.equal(values[key], value) for key, value in adapter.named_parameters())
        return
    assert not methods.limit_norm(adapter, float(before.norm()) * 1.01)
    assert all(torch.equal(values[key], value) for key, value in adapter.named_parameters())
    largest = float(before.norm()) / 3
    assert methods.limit_norm(adapter, largest)
    after = adapter.algorithm.delta(adapter).detach()
    assert float(after.norm()) == pytest.approx(largest, rel=1e-4)
    torch.testing.assert_close(after, before / 3, rtol=1e-3, atol=1e-6)
    kept = ("dora_scale", "scalar", "diff_b", "b_norm")
    assert all(torch.equal(values[key], value) for key, value in adapter.named_parameters() if key in kept)


def test_the_norms_that_sd_scripts_limits_are_limited_alike() -> None:
    _, adapter = perturbed(Case("lora", {"rank": 4, "alpha": 2.0}), "linear")
    up, down = adapter.lora_up.detach().clone(), adapter.lora_down.detach().clone()
    ratio = 1.0 / (up @ down * 0.5).norm()
    methods.limit_norm(adapter, 1.0)
    torch.testing.assert_close(adapter.lora_up.detach(), up * ratio**0.5)
    torch.testing.assert_close(adapter.lora_down.detach(), down * ratio**0.5)


def test_lora_plus_trains_the_factors_on_the_output_side_faster() -> None:
    found = {}
    for case in (*PLAIN, Case("lokr", {"lokr_decompose_both": True}), Case("lokr", {"lokr_full_matrix": True})):
        _, adapter = perturbed(case, "linear")
        ups = {id(parameter) for parameter in methods.up_parameters(adapter)}
        found[case.name] = [key for key, parameter in adapter.named_parameters() if id(parameter) in ups]
    assert found == {
        "lora": ["lora_up"],
        "locon": ["lora_up"],
        "loha": ["hada_w1_a", "hada_w2_a"],
        "lokr": ["lokr_w2_a"],
        "ia3": [],
        "oft": [],
        "boft": [],
        "full": [],
        "dylora-rank=6-dylora_unit=2": ["lora_up"],
        "glora": ["a2", "b2"],
        "lokr-lokr_decompose_both=True": ["lokr_w1_a", "lokr_w2_a"],
        "lokr-lokr_full_matrix=True": [],
    }


@pytest.mark.parametrize(("case", "kind"), ONE_EACH, ids=name)
def test_a_recomputed_block_has_the_same_gradients(case: Case, kind: str) -> None:
    adapter, inputs, module = dropping(case, kind, dropout=0.3, rank_dropout=0.3, module_dropout=0.3)
    found = []
    for recomputed in (False, True):
        adapter.zero_grad()
        torch.manual_seed(3)
        total = torch.zeros(())
        for _ in range(6):
            if recomputed:
                added = checkpoint(methods.output_delta, adapter, module, inputs, 1.0, use_reentrant=False)
            else:
                added = methods.output_delta(adapter, module, inputs, 1.0)
            total = total + (module(inputs) + added).square().mean()
        total.backward()
        found.append([value.grad.clone() for value in adapter.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_under_autocast_the_change_is_formed_in_full_precision() -> None:
    """bfloat16 keeps 8 bits: a change formed in it would be wrong by more than its product with the inputs is."""
    for method in METHODS:
        found, adapter = perturbed(Case(method, {"rank": 8, "dylora_unit": 8}), "linear")
        with torch.autocast("cpu", torch.bfloat16):
            inside = methods.weight_delta(adapter)
            added = methods.output_delta(adapter, found.module, inputs_of(found).bfloat16(), 1.0)
        assert inside.dtype == torch.float32 and torch.equal(inside, methods.weight_delta(adapter))
        exact = methods.output_delta(adapter, found.module, inputs_of(found).bfloat16().float(), 1.0)
        assert (added.float() - exact).norm() / exact.norm() < 0.02
    weight = target("linear").module.weight
    assert not torch.equal(weight.bfloat16().float(), weight)
