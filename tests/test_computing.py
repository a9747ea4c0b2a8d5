"""How the frozen UNet may compute: weights in 8 bits, channels last, compiled; each undone exactly."""

from __future__ import annotations

import contextlib

import pytest
import torch

from lib_lora_trainer.base.errors import HostRefusal
from lib_lora_trainer.hosts import compiled, float8
from lib_lora_trainer.hosts.blocks import BlockForwards
from lib_lora_trainer.hosts.channels_last import laid_out_channels_last
from lib_lora_trainer.hosts.float8 import kept_in_8_bits
from lib_lora_trainer.hosts.identity import digest

LAYERS = {
    "linear": lambda: torch.nn.Linear(12, 10),
    "linear without bias": lambda: torch.nn.Linear(12, 10, bias=False),
    "1×1": lambda: torch.nn.Conv2d(12, 10, 1),
    "3×3": lambda: torch.nn.Conv2d(12, 10, 3, padding=1),
    "down": lambda: torch.nn.Conv2d(12, 10, 3, stride=2, padding=1),
    "tiling": lambda: torch.nn.Conv2d(12, 10, 3, padding=1, padding_mode="circular"),
    "groups": lambda: torch.nn.Conv2d(12, 10, 3, padding=2, dilation=2, groups=2),
}


def inputs_of(layer: torch.nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn((2, 12, 9, 7) if isinstance(layer, torch.nn.Conv2d) else (2, 5, 12), generator=generator)


@pytest.mark.parametrize("half", [False, True], ids=["float32", "autocast"])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_in_8_bits_is_the_layer_with_rounded_weights(kind, half):
    torch.manual_seed(1)
    layer = LAYERS[kind]().requires_grad_(False)
    rounded = LAYERS[kind]().requires_grad_(False)
    rounded.load_state_dict(layer.state_dict())
    rounded.weight.copy_(layer.weight.to(torch.float8_e4m3fn).float())
    results = []
    for module, context in ((layer, kept_in_8_bits(layer)), (rounded, contextlib.nullcontext())):
        x = inputs_of(layer).requires_grad_()
        with context:
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                output = module(x)
            output.float().square().sum().backward()
        results.append((output.detach(), x.grad))
    assert results[0][0].dtype == (torch.bfloat16 if half else torch.float32)
    for found, expected in zip(*results, strict=True):
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(found, expected, rtol=0.05 if half else 1e-5, atol=0.05 if half else 1e-5)


def test_weights_are_put_back_into_the_same_memory_after_an_exception():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.GroupNorm(2, 4), torch.nn.Linear(5, 6))
    network[2].weight.data[0, 0] = 1e6  # beyond the largest of the format
    before = digest([network])
    pointers = [parameter.data_ptr() for parameter in network.parameters()]
    parameters = list(network.parameters())
    mine = vars(network[2])["forward"] = lambda x: x
    with pytest.raises(ZeroDivisionError), kept_in_8_bits(network):
        assert network[0].weight.dtype == network[2].weight.dtype == torch.float8_e4m3fn
        assert network[2].weight[0, 0].float() == 448
        assert network[0].bias.dtype == network[1].weight.dtype == torch.float32
        raise ZeroDivisionError
    assert digest([network]) == before
    assert [parameter.data_ptr() for parameter in network.parameters()] == pointers
    assert all(now is then for now, then in zip(network.parameters(), parameters, strict=True))
    assert vars(network[2])["forward"] is mine
    assert "forward" not in vars(network[0])


def test_weights_that_are_in_8_bits_already_stay_as_they_are():
    """As the WebUI's "FP8 weight" stores a layer: its bias too."""
    layer = torch.nn.Linear(4, 4).requires_grad_(False)
    exact = layer.weight.to(torch.float8_e4m3fn).float(), layer.bias.to(torch.float8_e4m3fn).float()
    layer.to(torch.float8_e4m3fn)
    stored = digest([layer])
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    with kept_in_8_bits(layer):
        torch.testing.assert_close(layer(x), torch.nn.functional.linear(x, *exact))
    assert digest([layer]) == stored


def test_torch_without_8_bits_is_named(monkeypatch):
    assert float8.reason_against() == ""
    monkeypatch.setattr(float8, "_NAME", "float8_of_the_future")
    assert "float8_of_the_future" in float8.reason_against()


def test_channels_last_and_back_with_any_strides():
    network = torch.nn.Sequential(torch.nn.Conv2d(6, 4, 3), torch.nn.Conv2d(4, 6, 1), torch.nn.Conv2d(6, 2, 3))
    network[2].weight.data = network[2].weight.data.transpose(2, 3).contiguous().transpose(2, 3)
    strides, before = [layer.weight.stride() for layer in network], digest([network])
    with pytest.raises(ZeroDivisionError), laid_out_channels_last(network):
        assert all(layer.weight.is_contiguous(memory_format=torch.channels_last) for layer in network)
        assert network[0].weight.stride() == (54, 1, 18, 6)
        raise ZeroDivisionError
    assert [layer.weight.stride() for layer in network] == strides
    assert digest([network]) == before


def test_a_digest_is_of_names_types_and_values():
    layer = torch.nn.Linear(2, 2)
    other = torch.nn.Linear(2, 2)
    other.load_state_dict(layer.state_dict())
    assert digest([layer]) == digest([other])
    assert digest([layer, other]) != digest([layer])
    assert digest([layer]) != digest([layer.double()]) != digest([other])
    assert digest([torch.nn.Conv2d(2, 2, 1)]) != digest([other])


class Block(torch.nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.first = torch.nn.LayerNorm(width), torch.nn.Linear(width, 2 * width)
        self.second = torch.nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(torch.nn.functional.gelu(self.first(self.norm(x))))


def run(network: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.clone().requires_grad_()
    output = network(x)
    output.square().mean().backward()
    return output.detach(), x.grad


@pytest.fixture
def eager(monkeypatch):
    """Have torch.compile trace and run what it traced, without a C++ compiler: quick, and the same numbers."""
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compile_(function, backend="aot_eager"))


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
def test_compiled_blocks_have_the_adapters_that_are_attached_now(eager, recompute):
    torch.manual_seed(4)
    network = torch.nn.Sequential(*[Block(8) for _ in range(3)]).requires_grad_(False)
    x, factor = torch.randn(2, 5, 8), torch.tensor(0.5, requires_grad=True)
    layer = network[1].first
    expected = run(network, x)

    def attach() -> None:
        vars(layer)["forward"] = lambda inputs: torch.nn.Linear.forward(layer, inputs) * (1 + factor)

    attach()
    expected_attached = run(network, x)
    gradient, factor.grad = factor.grad, None
    del vars(layer)["forward"]
    limit = torch._dynamo.config.cache_size_limit
    with BlockForwards(list(network) if recompute else [], list(network)) as blocks:
        for found, wanted in zip(run(network, x), expected, strict=True):
            torch.testing.assert_close(found, wanted)
        attach()
        blocks.look()
        for found, wanted in zip(run(network, x), expected_attached, strict=True):
            torch.testing.assert_close(found, wanted)
        torch.testing.assert_close(factor.grad, gradient)
        with blocks.suspended():
            torch.testing.assert_close(run(network, x)[0], expected_attached[0])
        del vars(layer)["forward"]
        blocks.look()
        torch.testing.assert_close(run(network, x)[0], expected[0])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "compile", lambda _: pytest.fail("a block with a hook is not compiled"))
            handle = layer.register_forward_hook(lambda module, inputs, output: output * 3)
            blocks.look()
            hooked = network[1](x)
            handle.remove()
        blocks.look()
        torch.testing.assert_close(run(network, x)[0], expected[0])
    assert (hooked - network[1](x)).abs().max() > 0.01
    assert all("forward" not in vars(module) for module in network.modules())
    assert torch._dynamo.config.cache_size_limit == limit


def test_blocks_are_really_compiled_and_only_while_in_force(eager):
    import torch._dynamo as dynamo

    network = torch.nn.Sequential(Block(8)).requires_grad_(False)
    x = torch.randn(1, 2, 8)
    dynamo.reset()
    dynamo.utils.counters.clear()
    with BlockForwards([], list(network)) as blocks:
        with blocks.suspended():
            run(network, x)
        assert dynamo.utils.counters["stats"]["unique_graphs"] == 0
        run(network, x)
    assert dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert not dynamo.utils.counters["graph_break"]
    run(network, x)
    assert dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_recomputed_blocks_run_compiled_both_times(monkeypatch):
    calls = []

    def counting(graph, inputs):
        return lambda *values: calls.append(1) or graph(*values)

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compile_(function, backend=counting))
    network = torch.nn.Sequential(*[Block(8) for _ in range(2)]).requires_grad_(False)
    with BlockForwards(list(network), list(network)):
        run(network, torch.randn(1, 2, 8))
        assert len(calls) == 2 * 3, "once to compile, once forward, once in the backward pass"
        run(network, torch.randn(1, 2, 8))
        assert len(calls) == 2 * 3 + 2 * 2
        with torch.no_grad():
            network(torch.randn(1, 2, 8))
        assert len(calls) == 2 * 3 + 2 * 2 + 2


def test_more_blocks_than_torch_compiles_by_default(eager):
    """Blocks of as many shapes as a large UNet has are all compiled; torch 2.13 stops at 8 versions of one function."""
    import torch._dynamo as dynamo

    widths = range(2, 12)
    blocks = [Block(width).requires_grad_(False) for width in widths]
    dynamo.reset()
    dynamo.utils.counters.clear()
    with BlockForwards([], blocks):
        for width, block in zip(widths, blocks, strict=True):
            run(block, torch.randn(1, 3, width))
    assert dynamo.utils.counters["stats"]["unique_graphs"] == len(blocks)


def test_a_machine_that_cannot_compile_is_refused_with_the_reason(monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("Windows not yet supported for torch.compile\nand more")

    monkeypatch.setattr(torch, "compile", fails)
    compiled.reason_against.cache_clear()
    try:
        with pytest.raises(HostRefusal, match=r'RuntimeError, Windows not yet supported.*Switch "Compile" off'):
            compiled.check(torch.device("cpu"), float8=False)
    finally:
        compiled.reason_against.cache_clear()


def test_a_torch_that_compiles_no_8_bits_says_so(monkeypatch):
    """As torch 2.1 on the CPU."""

    def tries(device, float8):
        if float8:
            raise KeyError("torch.float8_e4m3fn")

    monkeypatch.setattr(compiled, "_try", tries)
    compiled.reason_against.cache_clear()
    try:
        compiled.check(torch.device("cpu"), float8=False)
        with pytest.raises(HostRefusal, match="compiles here, but no layers with 8-bit weights .*float8_e4m3fn"):
            compiled.check(torch.device("cpu"), float8=True)
    finally:
        compiled.reason_against.cache_clear()


def test_windows_without_triton_is_refused_before_anything_is_tried(monkeypatch):
    monkeypatch.setattr(compiled.sys, "platform", "win32")
    monkeypatch.setattr(compiled.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(compiled, "_try", lambda *_: pytest.fail("nothing is to be tried"))
    compiled.reason_against.cache_clear()
    try:
        assert "triton" in compiled.reason_against("cuda", False)
    finally:
        compiled.reason_against.cache_clear()


def test_a_block_that_cannot_be_compiled_is_named(monkeypatch):
    def broken(graph, inputs):
        raise KeyError("no such kernel")

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compile_(function, backend=broken))
    network = Block(4).requires_grad_(False)
    with BlockForwards([], [network]), pytest.raises(HostRefusal, match="no such kernel"):
        network(torch.zeros(1, 1, 4))


@pytest.mark.slow
def test_no_c_compiler_is_a_reason(monkeypatch):
    import torch._inductor.config as inductor

    monkeypatch.setattr(inductor.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr(inductor, "fx_graph_cache", False, raising=False)
    torch._dynamo.reset()
    compiled.reason_against.cache_clear()
    try:
        assert compiled.reason_against("cpu", False)
    finally:
        compiled.reason_against.cache_clear()
        torch._dynamo.reset()
