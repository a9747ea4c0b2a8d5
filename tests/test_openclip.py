"""open_clip's fused attention, computed by a layer each for q, k, v and out: the same numbers, and adapters act."""

from __future__ import annotations

import copy

import pytest
import torch

from lib_lora_trainer.adapters.targets import Target, layer_of
from lib_lora_trainer.hosts.webui.openclip import LayeredAttention, named_layers

WIDTH, HEADS, LENGTH = 32, 4, 7


class Block(torch.nn.Module):
    """open_clip's ResidualAttentionBlock, as its text encoders are built."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = torch.nn.LayerNorm(WIDTH), torch.nn.LayerNorm(WIDTH)
        self.attn = torch.nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first)
        self.mlp = torch.nn.Sequential()
        self.mlp.add_module("c_fc", torch.nn.Linear(WIDTH, 4 * WIDTH))
        self.mlp.add_module("gelu", torch.nn.GELU())
        self.mlp.add_module("c_proj", torch.nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: torch.Tensor, attn_mask: torch.Tensor) -> torch.Tensor:
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False, attn_mask=attn_mask.to(normed.dtype))[0]
        return x + self.mlp(self.ln_2(x))


class Encoder(torch.nn.Module):
    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.transformer = torch.nn.Module()
        self.transformer.resblocks = torch.nn.ModuleList([Block(batch_first) for _ in range(3)])
        self.ln_final = torch.nn.LayerNorm(WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = torch.full((LENGTH, LENGTH), -torch.inf).triu(1)
        for block in self.transformer.resblocks:
            x = block(x, mask)
        return self.ln_final(x)


@pytest.fixture(params=[False, True], ids=["length first", "batch first"])
def encoder(request) -> Encoder:
    torch.manual_seed(3)
    made = Encoder(request.param).requires_grad_(False).eval()
    for parameter in made.parameters():
        parameter.copy_(torch.randn(parameter.shape) * 0.2)
    return made


def states(encoder: Encoder) -> torch.Tensor:
    """Return inputs of two captions, which differ."""
    drawn = torch.randn(2, LENGTH, WIDTH, generator=torch.Generator().manual_seed(5))
    return drawn if encoder.transformer.resblocks[0].attn.batch_first else drawn.transpose(0, 1)


def test_the_output_is_that_of_the_fused_attention(encoder):
    inputs = states(encoder)
    expected = encoder(inputs)
    layered = LayeredAttention([encoder])
    with layered:
        torch.testing.assert_close(encoder(inputs), expected, rtol=1e-5, atol=1e-6)
        half = encoder.to(torch.bfloat16)(inputs.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, rtol=0.1, atol=0.1)
    assert all("forward" not in vars(module) for module in encoder.modules())


def test_layers_are_views_that_take_no_gradient(encoder):
    layered = LayeredAttention([encoder])
    block = encoder.transformer.resblocks[1]
    layers = layered.of(block.attn)
    for index, name in enumerate("qkv"):
        assert type(layers[name]) is torch.nn.Linear
        rows = slice(index * WIDTH, (index + 1) * WIDTH)
        assert layers[name].weight.data_ptr() == block.attn.in_proj_weight[rows].data_ptr()
        assert torch.equal(layers[name].weight, block.attn.in_proj_weight[rows])
        assert torch.equal(layers[name].bias, block.attn.in_proj_bias[rows])
    assert layers["out"].weight is block.attn.out_proj.weight
    assert not any(parameter.requires_grad for layer in layers.values() for parameter in layer.parameters())
    assert len(list(encoder.parameters())) == 3 * 12 + 2, "nothing was added to the model"


def test_layers_follow_weights_that_were_moved(encoder):
    inputs = states(encoder)
    layered = LayeredAttention([encoder])
    attention = encoder.transformer.resblocks[0].attn
    with layered:
        for parameter in encoder.parameters():
            parameter.data = parameter.data.clone() * 1.5  # as a move to another device and back: new memory
        expected = copy.deepcopy(encoder)
        for block in expected.transformer.resblocks:
            vars(block.attn).pop("forward", None)
        assert layered.of(attention)["q"].weight.data_ptr() != attention.in_proj_weight.data_ptr()
        torch.testing.assert_close(encoder(inputs), expected(inputs), rtol=1e-5, atol=1e-6)
        assert layered.of(attention)["q"].weight.data_ptr() == attention.in_proj_weight.data_ptr()
        encoder.double()
        layered.refresh()
        assert {layer.weight.dtype for layer in layered.of(attention).values()} == {torch.float64}


@pytest.mark.parametrize("name", ["q", "k", "v", "out"])
def test_an_added_low_rank_is_a_changed_weight(encoder, name):
    """What an adapter's instance forward adds to one layer equals its delta merged into the fused matrix."""
    inputs, generator = states(encoder), torch.Generator().manual_seed(7)
    down, up = torch.randn(2, WIDTH, generator=generator), torch.randn(WIDTH, 2, generator=generator) * 0.1
    down.requires_grad_()
    merged = copy.deepcopy(encoder)
    attention = merged.transformer.resblocks[0].attn
    delta = (up @ down).detach()
    if name == "out":
        attention.out_proj.weight += delta
    else:
        index = "qkv".index(name)
        attention.in_proj_weight[index * WIDTH : (index + 1) * WIDTH] += delta
    with LayeredAttention([encoder]) as layered:
        before = encoder(inputs)
        layer = layered.of(encoder.transformer.resblocks[0].attn)[name]
        vars(layer)["forward"] = lambda x: torch.nn.Linear.forward(layer, x) + x @ down.T @ up.T
        found = encoder(inputs)
        found.square().sum().backward()
    assert (found - before).abs().max() > 1e-3
    torch.testing.assert_close(found.detach(), merged(inputs), rtol=1e-4, atol=1e-5)
    assert down.grad is not None and (down.grad.abs() > 0).any()


def test_names_are_transformers(encoder):
    layered = LayeredAttention([encoder])
    targets = [
        Target(layer, module)
        for path, module in named_layers(encoder, 2, layered)
        if (layer := layer_of("te", path, module)) is not None
    ]
    paths = {target.layer.path: target for target in targets}
    assert len(targets) == 2 * 8 + 1
    second = encoder.transformer.resblocks[1]
    assert paths["text_model.encoder.layers.1.mlp.fc1"].module is second.mlp.c_fc
    assert paths["text_model.encoder.layers.1.mlp.fc2"].module is second.mlp.c_proj
    assert paths["text_model.encoder.layers.1.layer_norm1"].module is second.ln_1
    assert paths["text_model.encoder.layers.1.layer_norm2"].module is second.ln_2
    assert paths["text_model.final_layer_norm"].layer.norm
    query = paths["text_model.encoder.layers.1.self_attn.q_proj"]
    assert (query.layer.inputs, query.layer.outputs, query.layer.norm) == (WIDTH, WIDTH, False)
    assert query.module is layered.of(second.attn)["q"]


def test_what_was_on_the_attention_comes_back(encoder):
    attention = encoder.transformer.resblocks[0].attn
    mine = torch.nn.MultiheadAttention.forward.__get__(attention)
    vars(attention)["forward"] = mine
    with pytest.raises(ZeroDivisionError), LayeredAttention([encoder]):
        assert vars(attention)["forward"] is not mine
        raise ZeroDivisionError
    assert vars(attention)["forward"] is mine


def test_what_open_clip_never_asks_for_is_refused(encoder):
    inputs = states(encoder)
    with LayeredAttention([encoder]), pytest.raises(ValueError, match="cannot be trained"):
        encoder.transformer.resblocks[0].attn(inputs, inputs, inputs)
