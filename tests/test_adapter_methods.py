"""What each method is, in hand-worked numbers, and where it differs from other trainers."""

from __future__ import annotations

import math

import pytest
import torch

import adapter_cases
from adapter_cases import Case, inputs_of, new, perturbed, target
from lib_lora_trainer.adapters import methods
from lib_lora_trainer.adapters.targets import Layer, Target
from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.config.adapter import METHODS, AdapterConfig

ONE_PART = Layer("unet", adapter_cases.INPUT, 4, 4)


def linear(weight: torch.Tensor, path: str = adapter_cases.INPUT) -> Target:
    """Return a Linear without bias with this weight."""
    module = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    module.weight.data = weight
    return Target(Layer("unet", path, weight.shape[1], weight.shape[0]), module.requires_grad_(False))


def filled(tensors: dict[str, torch.Tensor], layer: Target) -> methods.Adapter:
    return methods.restore(layer, tensors)


def test_lora_of_ones_by_hand() -> None:
    tensors = {"lora_down.weight": torch.ones(3, 4), "lora_up.weight": torch.ones(4, 3), "alpha": torch.tensor(1.5)}
    assert torch.equal(methods.weight_delta(filled(tensors, linear(torch.zeros(4, 4)))), torch.full((4, 4), 1.5))


def test_loha_and_lokr_apply_alpha_once() -> None:
    zeros = linear(torch.zeros(4, 4))
    factors = {name: torch.ones(4, 2) if name.endswith("a") else torch.ones(2, 4) for name in
               ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")}  # fmt: skip
    loha = filled({**factors, "alpha": torch.tensor(0.5)}, zeros)
    # (1 1)(1 1)ᵀ = 2, squared 4, times alpha / rank = 0.5 / 2; twice it would be 0.25.
    assert torch.equal(methods.weight_delta(loha), torch.full((4, 4), 1.0))
    pairs = {
        "lokr_w1": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        "lokr_w2_a": torch.ones(2, 1),
        "lokr_w2_b": torch.ones(1, 2),
    }
    lokr = filled({**pairs, "alpha": torch.tensor(0.5)}, zeros)
    assert torch.equal(methods.weight_delta(lokr)[0], torch.tensor([0.5, 0.5, 1.0, 1.0]))
    assert torch.equal(methods.weight_delta(lokr)[3], torch.tensor([1.5, 1.5, 2.0, 2.0]))
    for adapter in (loha, lokr):
        inputs = torch.eye(4)
        assert torch.equal(methods.output_delta(adapter, zeros.module, inputs, 1.0), methods.weight_delta(adapter).T)


def test_rank_stabilized_alpha_in_the_file_makes_loaders_compute_alpha_over_root_of_rank() -> None:
    for method in ("lora", "loha", "lokr"):
        case = Case(method, {"rank": 4, "alpha": 3.0, "rank_stabilized": True})
        found = target("conv")
        adapter = methods.build(found, adapter_cases.assignment(found.layer, case.config), case.config, 5)
        whole = "lokr_w2" in dict(adapter.named_parameters())
        assert float(methods.file_tensors(adapter)["alpha"]) / 4 == (1.0 if whole else 3.0 / math.sqrt(4))


def test_dora_normalizes_inputs() -> None:
    for kind in ("linear", "conv"):
        for method in ("lora", "loha", "lokr"):
            found, adapter = perturbed(Case(method, {"weight_decompose": True}), kind)
            magnitudes = methods.file_tensors(adapter)["dora_scale"]
            assert magnitudes.shape == (1, adapter_cases.INNER, *([1, 1] if kind == "conv" else []))
            changed = found.module.weight + methods.weight_delta(adapter)
            columns = changed.transpose(0, 1).flatten(1).norm(dim=1)
            torch.testing.assert_close(columns, magnitudes.flatten().abs(), rtol=1e-5, atol=1e-5)


def test_dora_takes_the_norm_as_constant() -> None:
    found, adapter = perturbed(Case("lora", {"weight_decompose": True}), "linear")
    inputs = inputs_of(found)
    methods.output_delta(adapter, found.module, inputs, 1.0).square().sum().backward()
    up, down, scale = (
        adapter.value(name).detach().clone().requires_grad_() for name in ("lora_up", "lora_down", "dora_scale")
    )
    merged = found.module.weight + up @ down * (1.5 / 2)
    changed = merged * scale / merged.norm(dim=0, keepdim=True).detach() - found.module.weight
    (inputs @ changed.T).square().sum().backward()
    for mine, expected in zip((adapter.lora_up, adapter.lora_down, adapter.dora_scale), (up, down, scale), strict=True):
        torch.testing.assert_close(mine.grad, expected.grad, rtol=1e-3, atol=1e-3)


def test_dora_leaves_inputs_that_nothing_reads() -> None:
    weight = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
    weight[:, 2] = 0
    config = AdapterConfig(method="lora", rank=2, weight_decompose=True)
    adapter = methods.build(linear(weight), adapter_cases.assignment(ONE_PART, config), config, 1)
    assert torch.equal(methods.weight_delta(adapter), torch.zeros(8, 6))


@pytest.mark.parametrize(
    ("dtype", "autocast"), [(torch.float16, False), (torch.bfloat16, False), (torch.bfloat16, True)]
)
@pytest.mark.parametrize("method", ["lora", "loha", "lokr", "ia3", "dylora", "oft", "boft", "glora", "full"])
def test_small_deltas_survive_a_half_precision_base(method: str, dtype: torch.dtype, autocast: bool) -> None:
    layer = target("linear", dtype)
    case = Case(method, {"rank": 4, "dylora_unit": 2} if method == "dylora" else {"rank": 4})
    adapter = methods.build(layer, adapter_cases.assignment(layer.layer, case.config), case.config, 1).eval()
    adapter_cases.shake(adapter, 0.02)
    if method == "full":
        adapter.diff_b.data.zero_()

    def root_mean_square() -> float:
        return float(methods.weight_delta(adapter).detach().square().mean().sqrt())

    rms = root_mean_square()
    for _ in range(20):  # the methods differ in degree; a few steps bring each to 3e-5
        for key, value in adapter.named_parameters():
            if key in ("lora_up", "hada_w2_a", "lokr_w2", "lokr_w2_b", "weight", "oft_blocks", "a1", "b1", "diff"):
                value.data *= 3e-5 / rms
        rms = root_mean_square()
    assert rms == pytest.approx(3e-5, rel=0.01)
    inputs = inputs_of(layer)
    exact = inputs.double() @ methods.weight_delta(adapter).detach().double().T
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        added = methods.output_delta(adapter, layer.module, inputs if autocast else inputs.to(dtype), 1.0)
    assert added.dtype == torch.float32 or autocast
    # The loader adds it to the weight, whose own steps are 5e-4 (half) and 4e-3 of it: nothing would be left of it.
    rounded = (layer.module.weight.double() + methods.weight_delta(adapter)).to(
        dtype
    ).double() - layer.module.weight.double()
    error = (added.double() - exact).norm() / exact.norm()
    assert error < 0.01 < (inputs.double() @ rounded.T - exact).norm() / exact.norm()


def test_an_8_bit_base_is_read_as_it_is_kept() -> None:
    for method in METHODS:
        layer = target("linear")
        layer.module.weight.data = layer.module.weight.data.to(torch.float8_e4m3fn)
        config = Case(method).config
        adapter = methods.build(layer, adapter_cases.assignment(layer.layer, config), config, 1).eval()
        adapter_cases.shake(adapter)
        added = methods.output_delta(adapter, layer.module, inputs_of(layer), 1.0)
        expected = inputs_of(layer) @ methods.weight_delta(adapter).T
        bias = methods.bias_delta(adapter)
        torch.testing.assert_close(added, expected if bias is None else expected + bias, rtol=1e-4, atol=1e-4)


def test_the_weight_is_read_at_each_call() -> None:
    for method in ("ia3", "oft", "boft", "glora"):
        found, adapter = perturbed(Case(method), "view")
        if method == "glora":
            adapter.b1.data.zero_()
        inputs = inputs_of(found)
        before = methods.output_delta(adapter, found.module, inputs, 1.0)
        found.module.weight.mul_(2)
        torch.testing.assert_close(methods.output_delta(adapter, found.module, inputs, 1.0), 2 * before)


def test_the_layers_own_convolution_holds_for_the_change() -> None:
    shapes = {"dilation": {"dilation": 2, "padding": 2}, "groups": {"groups": 4, "padding": 1}}
    shapes["tiling"] = {"padding": 1, "padding_mode": "circular"}
    for options in shapes.values():
        module = torch.nn.Conv2d(16, 32, 3, **options).requires_grad_(False)
        layer = Layer("unet", "input_blocks.1.0.in_layers.2", 16, 32, 3, conv=True)
        for method, extra in [(each, {}) for each in METHODS if each != "glora"] + [
            ("lora", {"weight_decompose": True})
        ]:
            config = AdapterConfig(method=method, rank=4, dylora_unit=2, **extra)
            adapter = methods.build(Target(layer, module), adapter_cases.assignment(layer, config), config, 1).eval()
            adapter_cases.shake(adapter)
            inputs = torch.randn(2, 16, 8, 8)
            merged = torch.nn.Conv2d(16, 32, 3, **options)
            merged.load_state_dict(module.state_dict())
            merged.weight.data += methods.weight_delta(adapter).detach()
            merged.bias.data += 0 if methods.bias_delta(adapter) is None else methods.bias_delta(adapter).detach()
            changed = module(inputs) + methods.output_delta(adapter, module, inputs, 1.0)
            torch.testing.assert_close(changed, merged(inputs), rtol=1e-4, atol=1e-4)


def test_ia3_scales_keys_and_values_out_and_the_mlps_second_layer_in() -> None:
    outer, inner = perturbed(Case("ia3"), "query"), perturbed(Case("ia3"), "input")
    for (found, adapter), axis in ((outer, 1), (inner, 0)):
        ratio = methods.weight_delta(adapter) / found.module.weight
        torch.testing.assert_close(ratio.std(axis), torch.zeros_like(ratio.std(axis)), rtol=0, atol=1e-4)
        assert int(methods.file_tensors(adapter)["on_input"]) == 1 - axis


def test_oft_and_boft_keep_norms_and_angles_of_outputs() -> None:
    for method in ("oft", "boft"):
        for kind in ("linear", "conv"):
            found, adapter = perturbed(Case(method, {"rank": 8}), kind)
            rows = found.module.weight.flatten(1)
            turned = rows + methods.weight_delta(adapter).flatten(1)
            torch.testing.assert_close(turned.T @ turned, rows.T @ rows, rtol=1e-4, atol=1e-4)
            assert (turned - rows).norm() > 0.5 * rows.norm()


def test_boft_takes_the_next_block_size_where_the_wanted_one_is_impossible() -> None:
    config = AdapterConfig(method="boft", rank=4)
    sizes = {}
    for outputs in (320, 64, 768):
        layer = Layer("unet", adapter_cases.INPUT, 8, outputs)
        found = Target(layer, torch.nn.Linear(8, outputs).requires_grad_(False))
        adapter = methods.build(found, adapter_cases.assignment(layer, config), config, 1)
        sizes[outputs] = tuple(adapter.oft_blocks.shape)
    # 320 = 2^5 · 10 and 768 = 2^7 · 6: no smaller even number is left; 64 = 2^4 · 4.
    assert sizes == {320: (6, 32, 10, 10), 64: (5, 16, 4, 4), 768: (8, 128, 6, 6)}
    odd = Layer("unet", adapter_cases.INPUT, 8, 7)
    assert not methods.supports(odd, "boft")
    with pytest.raises(ConfigError, match="boft cannot adapt"):
        methods.build(Target(odd, torch.nn.Linear(8, 7)), adapter_cases.assignment(odd, config), config, 1)


def test_glora_has_the_loaders_names_not_lycoris_ones() -> None:
    _, adapter = perturbed(Case("glora", {"rank": 4, "alpha": 1.0}), "linear")
    tensors = methods.file_tensors(adapter)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    inner, outer = adapter_cases.INNER, adapter_cases.OUTER
    assert shapes == {
        "a1.weight": (4, inner),
        "a2.weight": (inner, 4),
        "b1.weight": (4, inner),
        "b2.weight": (outer, 4),
        "alpha": (),
    }
    assert float(tensors["alpha"]) == 4.0  # Forge multiplies by alpha / rank, the WebUI does not
    torch.testing.assert_close(tensors["b1.weight"], adapter.value("b1").detach() / 4)
    with pytest.raises(ConfigError, match="glora cannot adapt"):
        new(Case("glora"), "conv")


def test_full_trains_no_bias_that_loaders_drop() -> None:
    trained = {kind: "diff_b" in dict(new(Case("full"), kind)[1].named_parameters()) for kind in adapter_cases.KINDS}
    assert trained == {kind: kind not in ("query", "view") for kind in adapter_cases.KINDS}


def test_nothing_is_left_in_lycoris_between_runs() -> None:
    import lycoris.modules
    from lycoris import kohya, wrapper

    owners = [wrapper.LycorisNetwork, kohya.LycorisNetworkKohya, *lycoris.modules.MODULE_LIST]

    def state() -> list[dict[str, str]]:
        return [{key: repr(value) for key, value in vars(owner).items()} for owner in owners]

    before = state()
    for case, kind in adapter_cases.EVERY:
        perturbed(case, kind)
    assert state() == before
    first = methods.file_tensors(new(Case("lokr", {"lokr_factor": 4}), "linear")[1])
    new(Case("lokr", {"lokr_full_matrix": True, "scalar": True}), "linear")
    second = methods.file_tensors(new(Case("lokr", {"lokr_factor": 4}), "linear")[1])
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_first_values_depend_on_seed_and_layer_alone() -> None:
    for case, kind in adapter_cases.EVERY:
        found = target(kind)
        wanted = adapter_cases.assignment(found.layer, case.config)
        torch.manual_seed(99)
        state = torch.get_rng_state()
        first = dict(methods.build(found, wanted, case.config, 5).named_parameters())
        assert torch.equal(state, torch.get_rng_state())
        torch.manual_seed(7)
        second = dict(methods.build(found, wanted, case.config, 5).named_parameters())
        assert all(torch.equal(first[name], second[name]) for name in first)
        if case.method in adapter_cases.RANKED and "norm" not in kind:
            other = dict(new(case, kind, seed=6)[1].named_parameters())
            assert any(not torch.equal(first[name], other[name]) for name in first)
