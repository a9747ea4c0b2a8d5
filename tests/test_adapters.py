"""Adapters: targets, attachment and files, on layers small enough to check by hand."""

from __future__ import annotations

import pytest
import torch

from lib_lora_trainer.adapters import files, methods
from lib_lora_trainer.adapters.attach import Attachment
from lib_lora_trainer.adapters.targets import Layer, Target, choose, layer_of, parameter_count
from lib_lora_trainer.base.errors import ConfigError, DataError, RunConflict
from lib_lora_trainer.config.adapter import AdapterConfig

LINEAR = "input_blocks.1.1.transformer_blocks.0.attn1.to_q"
POINT = "input_blocks.1.1.proj_in"
CONV = "input_blocks.1.0.in_layers.2"
DOWN = "input_blocks.3.0.op"
TEXT = "text_model.encoder.layers.0.mlp.fc1"
LOCON = AdapterConfig(method="locon", rank=4, alpha=2.0, conv_rank=3, conv_alpha=1.5)


def _targets() -> list[Target]:
    torch.manual_seed(3)
    modules = {
        ("unet", LINEAR): torch.nn.Linear(6, 8, bias=False),
        ("unet", POINT): torch.nn.Conv2d(6, 8, 1),
        ("unet", CONV): torch.nn.Conv2d(6, 8, 3, padding=1),
        ("unet", DOWN): torch.nn.Conv2d(6, 8, 3, stride=2, padding=1),
        ("te", TEXT): torch.nn.Linear(6, 8),
    }
    return [Target(layer_of(part, path, module), module.requires_grad_(False)) for (part, path), module in modules.items()]


def _adapters(targets: list[Target], perturb: bool = True) -> dict[Layer, torch.nn.Module]:
    adapters = {target.layer: methods.build(target, LOCON, seed=5) for target in targets}
    if perturb:
        torch.manual_seed(11)
        for adapter in adapters.values():
            for parameter in adapter.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
    return adapters


def _inputs(target: Target) -> torch.Tensor:
    torch.manual_seed(13)
    return torch.randn(2, 6, 8, 8) if target.layer.conv else torch.randn(2, 5, 6)


def test_a_new_adapter_changes_nothing_and_a_perturbed_one_does() -> None:
    targets = _targets()
    for perturb in (False, True):
        for target in targets:
            before = target.module(_inputs(target))
            with Attachment([target], {target.layer: _adapters([target], perturb)[target.layer]}):
                after = target.module(_inputs(target))
            assert torch.equal(before, after) != perturb


def test_the_output_is_that_of_the_weight_with_the_delta_added() -> None:
    for target in _targets():
        adapter = _adapters([target])[target.layer]
        with Attachment([target], {target.layer: adapter}):
            attached = target.module(_inputs(target))
        merged = _targets()[[t.layer for t in _targets()].index(target.layer)].module
        merged.weight.data += methods.weight_delta(adapter).detach()
        torch.testing.assert_close(attached, merged(_inputs(target)), rtol=1e-5, atol=1e-6)


def test_the_delta_is_up_times_down_times_alpha_over_rank() -> None:
    for target in _targets():
        adapter = _adapters([target])[target.layer]
        tensors = methods.file_tensors(adapter)
        up, down = tensors["lora_up.weight"].flatten(1), tensors["lora_down.weight"].flatten(1)
        rank = 3 if target.layer.kernel > 1 else 4
        alpha = 1.5 if target.layer.kernel > 1 else 2.0
        assert float(tensors["alpha"]) == alpha and down.shape[0] == rank
        expected = (up @ down * alpha / rank).view(target.module.weight.shape)
        torch.testing.assert_close(methods.weight_delta(adapter), expected)


def test_strength_is_linear_and_zero_is_the_model_itself() -> None:
    for target in _targets():
        plain = target.module(_inputs(target))
        with Attachment([target], _adapters([target])) as attachment:
            full = target.module(_inputs(target)) - plain
            with attachment.at_strength(0.5):
                torch.testing.assert_close(target.module(_inputs(target)) - plain, full / 2, rtol=1e-4, atol=1e-6)
            with attachment.at_strength(0.0):
                assert torch.equal(target.module(_inputs(target)), plain)


def test_detaching_leaves_the_module_as_it_was_also_one_with_a_forward_of_its_own() -> None:
    target = _targets()[0]

    def own(inputs: torch.Tensor) -> torch.Tensor:
        return torch.nn.Linear.forward(target.module, inputs) * 2

    for forward in (None, own):
        if forward is not None:
            target.module.forward = forward
        before = dict(target.module.__dict__)
        plain = target.module(_inputs(target))
        attachment = Attachment([target], _adapters([target]))
        attachment.attach()
        assert not torch.equal(target.module(_inputs(target)), plain)
        attachment.detach()
        attachment.detach()
        assert target.module.__dict__ == before
        assert torch.equal(target.module(_inputs(target)), plain)


def test_a_second_attachment_is_refused_and_leaves_the_first_in_force() -> None:
    targets = _targets()
    with Attachment(targets, _adapters(targets)):
        attached = targets[0].module(_inputs(targets[0]))
        with pytest.raises(RunConflict, match="carry an adapter"):
            Attachment(targets, _adapters(targets)).attach()
        assert torch.equal(targets[0].module(_inputs(targets[0])), attached)
    with pytest.raises(RunConflict, match="no layer"):
        Attachment(targets[:1], _adapters(targets))


def test_every_parameter_gets_a_gradient_and_the_base_none() -> None:
    for target in _targets():
        adapter = _adapters([target])[target.layer]
        with Attachment([target], {target.layer: adapter}):
            target.module(_inputs(target)).square().mean().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in adapter.parameters())
        assert target.module.weight.grad is None


def test_small_deltas_survive_a_half_precision_base() -> None:
    layer = torch.nn.Linear(64, 64, bias=False).requires_grad_(False)
    target = Target(layer_of("unet", LINEAR, layer), layer.to(torch.bfloat16))
    adapter = methods.build(target, AdapterConfig(rank=4, alpha=4.0), seed=1)
    torch.nn.init.normal_(adapter.lora_up.weight, std=1e-4)
    inputs = torch.randn(4, 64)
    with torch.autocast("cpu", torch.bfloat16):
        added = methods.output_delta(adapter, inputs, 1.0)
    exact = inputs @ methods.weight_delta(adapter).T
    assert (added.float() - exact).norm() / exact.norm() < 0.02


def test_files_hold_kohya_names_and_come_back_as_they_went() -> None:
    targets = _targets()
    adapters = _adapters(targets)
    tensors = files.to_tensors(adapters, "sd1", torch.float32)
    keys = {name.partition(".")[0] for name in tensors}
    assert keys == {
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
        "lora_unet_down_blocks_0_attentions_0_proj_in",
        "lora_unet_down_blocks_0_resnets_0_conv1",
        "lora_unet_down_blocks_0_downsamplers_0_conv",
        "lora_te_text_model_encoder_layers_0_mlp_fc1",
    }
    restored = files.from_tensors(tensors, targets, "sd1")
    assert set(restored) == set(adapters)
    for layer, adapter in adapters.items():
        assert torch.equal(methods.weight_delta(restored[layer]), methods.weight_delta(adapter))
    with pytest.raises(DataError, match="this model lacks"):
        files.from_tensors({"lora_unet_elsewhere.alpha": torch.tensor(1.0)}, targets, "sd1")
    with pytest.raises(DataError, match="for another model"):
        files.from_tensors({k: (v[:, :1] if "lora_down" in k else v) for k, v in tensors.items()}, targets, "sd1")


def test_half_precision_files_keep_alpha_exact() -> None:
    targets = _targets()[:1]
    config = AdapterConfig(rank=3, alpha=1 / 3)
    tensors = files.to_tensors({targets[0].layer: methods.build(targets[0], config, 1)}, "sd1", torch.float16)
    assert {name.rpartition(".")[2]: tensor.dtype for name, tensor in tensors.items()} == {
        "alpha": torch.float32,
        "weight": torch.float16,
    }


def test_targets_follow_the_method_and_the_parts() -> None:
    layers = [target.layer for target in _targets()]
    paths = lambda **options: [layer.path for layer in choose(layers, AdapterConfig(**options))]  # noqa: E731
    assert paths(method="lora") == [LINEAR, POINT, TEXT]
    assert paths(method="locon") == [LINEAR, POINT, CONV, DOWN, TEXT]
    assert paths(method="lora", text_encoder=False) == [LINEAR, POINT]
    assert paths(method="locon", unet=False) == [TEXT]
    with pytest.raises(ConfigError, match="nothing to train"):
        choose(layers, AdapterConfig(unet=False, text_encoder=False))
    assert parameter_count(layers, LOCON) == 3 * 4 * (6 + 8) + 2 * 3 * (6 * 9 + 8)


def test_the_first_factor_depends_on_seed_and_layer_alone() -> None:
    first, second = _targets()[0], _targets()[0]
    torch.manual_seed(99)
    one = methods.build(first, LOCON, seed=5).lora_down.weight
    state = torch.get_rng_state()
    two = methods.build(second, LOCON, seed=5).lora_down.weight
    assert torch.equal(one, two) and torch.equal(state, torch.get_rng_state())
    assert not torch.equal(one, methods.build(first, LOCON, seed=6).lora_down.weight)
