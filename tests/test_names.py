"""Layer names agree with diffusers' own conversion of checkpoints."""

from __future__ import annotations

import pytest
import torch

import small_models
from lib_lora_trainer.adapters.names import to_diffusers, to_ldm
from lib_lora_trainer.base.errors import TrainerError

FAMILIES = ("sd1", "sd2", "sdxl")


def module_paths(family: str) -> list[str]:
    return sorted(
        {name.rpartition(".")[0] for name in small_models.unet_shapes(family, small_models.PUBLISHED[family])}
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_names_agree_with_diffusers(family):
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    tensors = {
        f"model.diffusion_model.{name}": torch.tensor(0)
        for name in small_models.unet_shapes(family, small_models.PUBLISHED[family])
    }
    configuration = {"layers_per_block": 2}
    if family == "sdxl":
        configuration["addition_embed_type"] = "text_time"
    # Every tensor is another object, so that identity tells which went where.
    converted = convert_ldm_unet_checkpoint(dict(tensors), configuration)
    theirs = {id(tensor): name for name, tensor in converted.items()}
    assert len(theirs) == len(tensors) > 300
    for name, tensor in tensors.items():
        path, _, kind = name.removeprefix("model.diffusion_model.").rpartition(".")
        assert f"{to_diffusers(path, family)}.{kind}" == theirs[id(tensor)]
        assert f"{to_ldm(to_diffusers(path, family), family)}.{kind}" == name.removeprefix("model.diffusion_model.")


@pytest.mark.parametrize("family", FAMILIES)
def test_names_are_one_to_one(family):
    paths = module_paths(family)
    assert len({to_diffusers(path, family) for path in paths}) == len(paths)


def test_known_names():
    query = "transformer_blocks.0.attn1.to_q"
    assert to_diffusers(f"input_blocks.1.1.{query}", "sd1") == f"down_blocks.0.attentions.0.{query}"
    assert to_diffusers("output_blocks.2.1.conv", "sd1") == "up_blocks.0.upsamplers.0.conv"
    assert to_diffusers("output_blocks.5.2.conv", "sd1") == "up_blocks.1.upsamplers.0.conv"
    assert to_ldm("up_blocks.0.upsamplers.0.conv", "sdxl") == "output_blocks.2.2.conv"
    assert to_ldm("add_embedding.linear_2", "sdxl") == "label_emb.0.2"
    assert to_ldm("mid_block.attentions.0.transformer_blocks.9.ff.net.0.proj", "sdxl") == (
        "middle_block.1.transformer_blocks.9.ff.net.0.proj"
    )


@pytest.mark.parametrize(
    ("family", "path"),
    [
        ("sd1", "input_blocks.12.0.in_layers.2"),
        ("sd1", "input_blocks.10.1.proj_in"),
        ("sd1", "input_blocks.3.0.in_layers.2"),
        ("sd1", "input_blocks.1.0.op"),
        ("sd1", "label_emb.0.0"),
        ("sd1", "input_blocks.1.1.transformer_blocks.0.attn3.to_q"),
        ("sd1", "input_blocks.1.1.transformer_blocks.00.attn1.to_q"),
        ("sd1", "output_blocks.11.2.conv"),
        ("sdxl", "input_blocks.1.1.proj_in"),
        ("sdxl", "input_blocks.9.0.in_layers.2"),
        ("sdxl", "middle_block"),
        ("sdxl", ""),
    ],
)
def test_unknown_ldm_names_are_refused(family, path):
    with pytest.raises(TrainerError, match="no layer"):
        to_diffusers(path, family)


@pytest.mark.parametrize(
    ("family", "path"),
    [
        ("sd1", "down_blocks.3.attentions.0.proj_in"),
        ("sd1", "down_blocks.3.downsamplers.0.conv"),
        ("sd1", "add_embedding.linear_1"),
        ("sd1", "mid_block.resnets.0.conv3"),
        ("sdxl", "down_blocks.3.resnets.0.conv1"),
        ("sdxl", "up_blocks.2.upsamplers.0.conv"),
        ("sdxl", "up_blocks.0.upsamplers.0.op"),
    ],
)
def test_unknown_diffusers_names_are_refused(family, path):
    with pytest.raises(TrainerError, match="no layer"):
        to_ldm(path, family)
