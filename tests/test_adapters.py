"""Attachment of adapters to layers, and the tensors of whole files."""

from __future__ import annotations

import pytest
import torch

import adapter_cases
from adapter_cases import Case, inputs_of
from lib_lora_trainer.adapters import files, methods
from lib_lora_trainer.adapters.attach import Attachment
from lib_lora_trainer.adapters.keys import file_key
from lib_lora_trainer.adapters.targets import Layer, Target
from lib_lora_trainer.base.errors import DataError, RunConflict
from lib_lora_trainer.config.adapter import AdapterConfig

LOCON = Case("locon")


def _targets() -> list[Target]:
    return [adapter_cases.target(kind) for kind in ("linear", "point", "conv", "strided", "layer norm", "group norm")]


def _adapters(targets: list[Target], case: Case = LOCON) -> dict[Layer, torch.nn.Module]:
    adapters: dict[Layer, torch.nn.Module] = {}
    for target in targets:
        wanted = adapter_cases.assignment(target.layer, case.config)
        adapters[target.layer] = methods.build(target, wanted, case.config, seed=5).eval()
        adapter_cases.shake(adapters[target.layer])
    return adapters


def test_several_layers_are_attached_and_each_changes_by_its_own_delta() -> None:
    targets = _targets()
    plain = [target.module(inputs_of(target)) for target in targets]
    adapters = _adapters(targets)
    with Attachment(targets, adapters) as attachment:
        changed = [target.module(inputs_of(target)) for target in targets]
        with attachment.at_strength(0.0):
            unchanged = [target.module(inputs_of(target)) for target in targets]
    for target, before, after, again in zip(targets, plain, changed, unchanged, strict=True):
        adapter = adapters[target.layer]
        delta, bias = methods.weight_delta(adapter), methods.bias_delta(adapter)
        expected = before + adapter_cases.operation(target, inputs_of(target), delta, bias)
        torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(after, before) and torch.equal(again, before)


def test_detaching_leaves_the_module_as_it_was_also_one_with_a_forward_of_its_own() -> None:
    target = adapter_cases.target("linear")

    def own(inputs: torch.Tensor) -> torch.Tensor:
        return torch.nn.Linear.forward(target.module, inputs) * 2

    for forward in (None, own):
        if forward is not None:
            target.module.forward = forward
        before = dict(target.module.__dict__)
        plain = target.module(inputs_of(target))
        attachment = Attachment([target], _adapters([target]))
        attachment.attach()
        assert not torch.equal(target.module(inputs_of(target)), plain)
        attachment.detach()
        attachment.detach()
        assert target.module.__dict__ == before
        assert torch.equal(target.module(inputs_of(target)), plain)


def test_a_second_attachment_is_refused_and_leaves_the_first_in_force() -> None:
    targets = _targets()
    with Attachment(targets, _adapters(targets)):
        attached = targets[0].module(inputs_of(targets[0]))
        with pytest.raises(RunConflict, match="carry an adapter"):
            Attachment(targets, _adapters(targets)).attach()
        assert torch.equal(targets[0].module(inputs_of(targets[0])), attached)
    with pytest.raises(RunConflict, match="no layer"):
        Attachment(targets[:1], _adapters(targets))


def test_half_precision_outputs_stay_half_precision() -> None:
    target = adapter_cases.target("linear", torch.bfloat16)
    inputs = inputs_of(target).bfloat16()
    plain = target.module(inputs)
    with Attachment([target], _adapters([target])):
        changed = target.module(inputs)
    assert plain.dtype == changed.dtype == torch.bfloat16 and not torch.allclose(plain, changed)


def test_a_layer_left_out_by_module_dropout_is_the_model_itself() -> None:
    target = adapter_cases.target("conv")
    case = Case("loha", {"module_dropout": 0.95})
    adapters = _adapters([target], case)
    adapters[target.layer].train()
    plain = target.module(inputs_of(target))
    torch.manual_seed(1)
    with Attachment([target], adapters):
        assert torch.equal(target.module(inputs_of(target)), plain)


def test_files_hold_kohya_names_and_come_back_as_they_went() -> None:
    targets = _targets()
    adapters = _adapters(targets)
    tensors = files.to_tensors(adapters, "sd1", torch.float32)
    assert {name.partition(".")[0] for name in tensors} == {
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0",
        "lora_unet_down_blocks_0_attentions_0_proj_in",
        "lora_unet_down_blocks_0_resnets_0_conv1",
        "lora_unet_down_blocks_0_downsamplers_0_conv",
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_norm1",
        "lora_unet_down_blocks_0_resnets_0_norm1",
    }
    restored = files.from_tensors(tensors, targets, "sd1")
    assert set(restored) == set(adapters)
    for layer, adapter in adapters.items():
        torch.testing.assert_close(methods.weight_delta(restored[layer]), methods.weight_delta(adapter))
    with pytest.raises(DataError, match="this model lacks"):
        files.from_tensors({"lora_unet_elsewhere.alpha": torch.tensor(1.0)}, targets, "sd1")
    with pytest.raises(DataError, match="for another model"):
        files.from_tensors({k: (v[:, :1] if "lora_down" in k else v) for k, v in tensors.items()}, targets, "sd1")


def test_norms_of_open_clip_have_the_names_the_loader_translates() -> None:
    norm = Layer("te", "text_model.encoder.layers.3.layer_norm2", 8, 8, norm=True)
    second = Layer("te2", norm.path, 8, 8, norm=True)
    assert file_key(norm, "sd1") == "lora_te_text_model_encoder_layers_3_layer_norm2"
    assert file_key(norm, "sd2") == "lora_te_text_model_encoder_layers_3_ln_2"
    assert file_key(second, "sdxl") == "lora_te2_text_model_encoder_layers_3_ln_2"
    assert file_key(Layer("unet", "out.0", 8, 8, norm=True), "sd1") == "lora_unet_out_0"


def test_half_precision_files_keep_alpha_exact() -> None:
    targets = _targets()[:1]
    adapters = _adapters(targets, Case("lora", {"rank": 3, "alpha": 1 / 3}))
    tensors = files.to_tensors(adapters, "sd1", torch.float16)
    assert {name.rpartition(".")[2]: tensor.dtype for name, tensor in tensors.items()} == {
        "alpha": torch.float32,
        "weight": torch.float16,
    }
    assert float(tensors[next(key for key in tensors if key.endswith("alpha"))]) == float(torch.tensor(1 / 3))


@pytest.mark.parametrize(
    ("case", "kept"),
    [
        (Case("lora", {"weight_decompose": True}), "dora_scale"),
        (Case("oft", {"oft_rescaled": True, "rank": 8}), "rescale"),
    ],
    ids=adapter_cases.name,
)
def test_files_in_half_precision_keep_what_multiplies_the_weight(case: Case, kept: str) -> None:
    found, adapter = adapter_cases.perturbed(case, "linear", 1e-3)
    exact = methods.weight_delta(adapter).detach()
    tensors = files.to_tensors({found.layer: adapter}, "sd1", torch.bfloat16)
    assert {key.rpartition(".")[2]: tensor.dtype for key, tensor in tensors.items()}[kept] == torch.float32
    errors = {}
    for rounded in (False, True):
        used = {key: tensor.bfloat16() if rounded else tensor for key, tensor in tensors.items()}
        again = files.from_tensors(used, [found], "sd1")[found.layer]
        errors[rounded] = float((methods.weight_delta(again).detach() - exact).norm() / exact.norm())
    assert errors[False] < 0.02 < errors[True]


def test_attention_of_open_clip_is_written_whole() -> None:
    """tests/test_loader_methods.py shows why: the WebUI's loader reads q, k, v and out together or not at all."""
    found = adapter_cases.target("view")
    config = AdapterConfig(method="ia3")
    adapters = {found.layer: methods.build(found, adapter_cases.assignment(found.layer, config), config, 1)}
    tensors = files.to_tensors(adapters, "sdxl", torch.float16)
    start = "lora_te2_text_model_encoder_layers_0_self_attn"
    zeros = {
        f"{start}_{name}_proj.{part}" for name in ("q", "v", "out") for part in ("lora_down.weight", "lora_up.weight")
    }
    alphas = {f"{start}_{name}_proj.alpha" for name in ("q", "v", "out")}
    assert set(tensors) == zeros | alphas | {f"{start}_k_proj.weight", f"{start}_k_proj.on_input"}
    assert all(not tensors[key].any() for key in zeros) and tensors[f"{start}_k_proj.on_input"].dtype == torch.int64
    there = [Target(Layer("te2", found.layer.path.replace("k_proj", f"{name}_proj"), 48, 48), found.module)
             for name in ("q", "k", "v", "out")]  # fmt: skip
    assert set(files.from_tensors(tensors, there, "sdxl")) == {found.layer}
    first = Layer("te", found.layer.path, 48, 48)
    assert len(files.to_tensors({first: adapters[found.layer]}, "sd1", torch.float16)) == 2
