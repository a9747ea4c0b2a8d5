"""The WebUI's own Lora extension makes of every method's file the weights that were trained, in every layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from adapter_cases import shake
from lib_lora_trainer.adapters import files, methods
from lib_lora_trainer.adapters.targets import Assignment, Layer, Target, layer_of
from lib_lora_trainer.base.families import Part
from lib_lora_trainer.config.adapter import AdapterConfig

pytest_plugins = ("webui_session",)
pytestmark = pytest.mark.webui

TRANSLATED = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
DECOMPOSED: dict[str, Any] = {"weight_decompose": True, "rank_stabilized": True, "scalar": True}
CASES: tuple[dict[str, Any], ...] = (
    {"method": "lora"},
    {"method": "lora", "rank_stabilized": True},
    {"method": "locon", "tucker": True, **DECOMPOSED},
    {"method": "loha"},
    {"method": "loha", "tucker": True, **DECOMPOSED},
    {"method": "lokr"},
    {"method": "lokr", "rank": 1, "lokr_decompose_both": True, "tucker": True, **DECOMPOSED},
    {"method": "lokr", "lokr_full_matrix": True, "weight_decompose": True},
    {"method": "ia3"},
    {"method": "dylora", "rank": 4, "dylora_unit": 2},
    {"method": "oft", "rank": 8},
    {"method": "oft", "rank": 8, "oft_rescaled": True, "oft_constraint": 0.002},
    {"method": "boft", "rank": 8},
    {"method": "boft", "rank": 8, "oft_rescaled": True, "oft_constraint": 0.002},
    {"method": "glora", "rank_stabilized": True, "scalar": True},
    {"method": "full"},
)


@pytest.fixture(params=["sd1", "sd2", "sdxl"], scope="module")
def family(request, webui) -> Iterator[str]:
    from modules import sd_models

    import webui_families
    import webui_session

    if request.param == "sd1":
        yield "sd1"
        return
    if not (webui.folder / f"{request.param}.safetensors").exists():
        webui_families.register_open_clip(webui.folder)
        webui_families.write_family(webui.folder, request.param, webui_session.TEXT)
        sd_models.list_models()
    webui.load(request.param)
    yield request.param
    webui.load("first")


def walk(part: Part, root: torch.nn.Module) -> Iterator[Target]:
    for path, module in root.named_modules():
        layer = layer_of(part, path, module)
        if layer is not None and ("encoder.layers" in path or part == "unet"):
            yield Target(layer, module)


def open_clip(part: Part, root: Any) -> Iterator[Target]:
    """Yield the layers of an OpenCLIP text encoder by transformers' names; q, k and v are views."""
    for number, block in enumerate(root.transformer.resblocks):
        start, width = f"text_model.encoder.layers.{number}", block.attn.embed_dim
        for index, letter in enumerate("qkv"):
            view = torch.nn.Linear(width, width, bias=False, device="meta")
            weight = block.attn.in_proj_weight.detach()[index * width : (index + 1) * width]
            view.weight = torch.nn.Parameter(weight, requires_grad=False)
            yield Target(Layer(part, f"{start}.self_attn.{letter}_proj", width, width), view)
        yield Target(Layer(part, f"{start}.self_attn.out_proj", width, width), block.attn.out_proj)
        for theirs, ours in TRANSLATED.items():
            module = block.get_submodule(theirs)
            layer = layer_of(part, f"{start}.{ours}", module)
            assert layer is not None
            yield Target(layer, module)


def targets_of(model: Any, family: str) -> list[Target]:
    """Return every Linear, Conv2d and norm of the UNet and of the text encoders' blocks."""
    found = list(walk("unet", model.model.diffusion_model))
    if family == "sdxl":
        first, second = (embedder.wrapped for embedder in list(model.conditioner.embedders)[:2])
        return [*found, *walk("te1", first.transformer), *open_clip("te2", second.model)]
    text = model.cond_stage_model.wrapped
    return found + list(open_clip("te", text.model) if family == "sd2" else walk("te", text.transformer))


def adapters_for(targets: list[Target], config: AdapterConfig) -> dict[Layer, methods.Adapter]:
    adapters = {}
    for target in targets:
        if methods.supports(target.layer, config.method):
            wanted = Assignment(config.method, config.rank, config.alpha)
            adapter = methods.build(target, wanted, config, seed=5).eval()
            shake(adapter, 0.2)
            adapters[target.layer] = adapter
    return adapters


def loaded(webui: Any, name: str, tensors: dict[str, torch.Tensor], family: str) -> Any:
    """Return what the Lora extension makes of a file."""
    import network
    import networks

    path = webui.lora_folder / f"{name}.safetensors"
    save_file(tensors, str(path), {"ss_base_model_version": {"sdxl": "sdxl_base_v1-0"}.get(family, "sd")})
    found = networks.load_network(name, network.NetworkOnDisk(name, str(path)))
    found.te_multiplier = found.unet_multiplier = 1.0
    return found


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@contextmanager
def merged(model: Any, network: Any) -> Iterator[None]:
    """Have a network in the model's weights as the extension merges it, then take it out again."""
    import networks

    networks.extra_network_lora.errors.clear()
    apply_networks(model, [network])
    try:
        yield
    finally:
        apply_networks(model, [])
        networks.extra_network_lora.errors.clear()


def apply_networks(model: Any, chosen: list[Any]) -> None:
    """Do what a forward pass does to the weights of every module that is called in it."""
    import networks

    kinds = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.GroupNorm, torch.nn.LayerNorm, torch.nn.MultiheadAttention)
    networks.loaded_networks[:] = chosen
    with torch.no_grad():
        for module in model.modules():
            # An attention's out_proj is never called: the attention takes its weight.
            inside = isinstance(module, torch.nn.modules.linear.NonDynamicallyQuantizableLinear)
            if isinstance(module, kinds) and not inside:
                networks.network_apply_weights(module)


def changes(targets: list[Target], adapters: dict[Layer, methods.Adapter]) -> dict[int, torch.Tensor]:
    """Return the weights and biases to expect, by the place in memory of what they change."""
    wanted = {}
    with torch.no_grad():
        for target in targets:
            if target.layer in adapters:
                adapter, module = adapters[target.layer], target.module
                wanted[module.weight.data_ptr()] = module.weight + methods.weight_delta(adapter)
                bias = methods.bias_delta(adapter)
                if bias is not None:
                    wanted[module.bias.data_ptr()] = module.bias + bias
    return wanted


@pytest.mark.parametrize("options", CASES, ids=lambda options: "-".join(map(str, options.values())))
def test_the_merged_weights_are_those_of_training(webui, family, options):
    import networks

    config = AdapterConfig(**{"rank": 2, "alpha": 1.5, **options})
    model = webui.model
    targets = targets_of(model, family)
    adapters = adapters_for(targets, config)
    assert {layer.part for layer in adapters} == {"unet"} | ({"te1", "te2"} if family == "sdxl" else {"te"})
    wanted = changes(targets, adapters)
    assert len(wanted) >= len(adapters) > 150
    before = weights(model)
    network = loaded(webui, f"{family}-{config.method}", files.to_tensors(adapters, family, torch.float32), family)
    assert len(network.modules) == len(adapters)
    with merged(model, network):
        assert not networks.extra_network_lora.errors
        for target in targets:
            for name, value in target.module.named_parameters(recurse=False):
                if value.data_ptr() in wanted:
                    expected = wanted.pop(value.data_ptr())
                    torch.testing.assert_close(
                        value.detach(), expected, rtol=2e-4, atol=2e-5, msg=f"{target.layer} {name}"
                    )
        assert not wanted
        changed = [name for name, value in model.named_parameters() if not torch.equal(value, before[name])]
        assert len(changed) > 0.6 * len(adapters)
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())


def test_every_layer_has_a_key_that_loads(webui, family):
    targets = targets_of(webui.model, family)
    adapters = adapters_for(targets, AdapterConfig(method="full"))
    network = loaded(webui, f"{family}-keys", files.to_tensors(adapters, family, torch.float32), family)
    assert len(adapters) == len(targets) == len(network.modules)
    there = {id(module.sd_module): module for module in network.modules.values()}
    for target in targets:
        if target.layer.path.endswith(("q_proj", "k_proj", "v_proj")) and target.layer.part in ("te", "te2"):
            continue  # the loader has OpenCLIP's attention there, the test above its parts
        found = there[id(target.module)]
        assert torch.equal(found.calc_updown(target.module.weight)[0], methods.weight_delta(adapters[target.layer]))


@pytest.mark.parametrize("trained", [("k", "v"), ("out",)], ids="".join)
def test_attention_of_open_clip_that_is_trained_in_parts_loads(webui, family, trained):
    """The loader reads q, k, v and out together: without the zeros in the file it leaves all of them out."""
    if family == "sd1":
        pytest.skip("SD1 has no OpenCLIP")
    model, part = webui.model, "te2" if family == "sdxl" else "te"
    targets = [target for target in targets_of(model, family) if target.layer.part == part]
    names = tuple(f"self_attn.{letter}_proj" for letter in trained)
    targets = [target for target in targets if target.layer.path.endswith(names)]
    adapters = adapters_for(targets, AdapterConfig(method="ia3"))
    wanted, before = changes(targets, adapters), weights(model)
    tensors = files.to_tensors(adapters, family, torch.float32)
    network = loaded(webui, f"{family}-parts", tensors, family)
    assert len(network.modules) == 3 * 4
    with merged(model, network):
        for target in targets:
            torch.testing.assert_close(target.module.weight, wanted[target.module.weight.data_ptr()])
        changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
        assert len(changed) == 3
    alone = {key: tensor for key, tensor in tensors.items() if ".lora_" not in key and not key.endswith(".alpha")}
    with merged(model, loaded(webui, f"{family}-alone", alone, family)):
        assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
    assert set(files.from_tensors(tensors, targets_of(model, family), family)) == set(adapters)


def test_rotations_load_in_full_precision_or_under_autocast_alone(webui, family):
    targets = targets_of(webui.model, family)[:8]
    for method in ("oft", "boft"):
        adapters = adapters_for(targets, AdapterConfig(method=method, rank=8))
        network = loaded(webui, f"{family}-{method}-half", files.to_tensors(adapters, family, torch.float32), family)
        for module in network.modules.values():
            weight = module.sd_module.weight.detach().bfloat16()
            if isinstance(module.sd_module, torch.nn.GroupNorm):
                continue
            with pytest.raises(RuntimeError, match="scalar type|same dtype"):
                module.calc_updown(weight)
            exact = module.calc_updown(weight.float())[0]
            with torch.autocast("cpu", torch.bfloat16):
                rounded = module.calc_updown(weight)[0]
            assert 0 < (rounded - exact).abs().max() < 0.02 * weight.abs().max()
