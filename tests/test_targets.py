"""Which layers an adapter sits on: counts of the published models, blocks, rules, norms, what cannot learn."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

import pytest
import torch

import small_models
from lib_lora_trainer.adapters import blocks
from lib_lora_trainer.adapters.names import to_ldm
from lib_lora_trainer.adapters.targets import Assignment, Layer, assign, choose, layer_of
from lib_lora_trainer.base.errors import ConfigError
from lib_lora_trainer.config.adapter import METHODS, AdapterConfig

FAMILIES = ("sd1", "sd2", "sdxl")
TEXTS = {"sd1": {"te": (768, 12)}, "sd2": {"te": (1024, 23)}, "sdxl": {"te1": (768, 12), "te2": (1280, 32)}}
QUERY = "input_blocks.4.1.transformer_blocks.0.attn1.to_q"


@cache
def model(family: str) -> tuple[Layer, ...]:
    """Return every layer of a published model from the shapes of its tensors, without torch."""
    shapes = {("unet", name): s for name, s in small_models.unet_shapes(family, small_models.PUBLISHED[family]).items()}
    for part, (width, count) in TEXTS[family].items():
        shapes |= {(part, name): shape for name, shape in small_models.clip_shapes(width, count).items()}
        if part == "te2":
            shapes[part, "text_projection.weight"] = (width, width)
    found = []
    for (part, name), shape in shapes.items():
        path, _, kind = name.rpartition(".")
        if kind == "weight" and "embedding" not in name:
            kernel = shape[2] if len(shape) == 4 else 1
            found.append(
                Layer(
                    part, path, shape[-1 if len(shape) == 1 else 1], shape[0], kernel, len(shape) == 4, len(shape) == 1
                )
            )
    return tuple(found)


def chosen(family: str, **settings: object) -> tuple[Layer, ...]:
    return choose(model(family), AdapterConfig(**settings), family)


def counts(family: str, **settings: object) -> tuple[int, int]:
    """Return how many layers are chosen in the UNet and in the text encoders."""
    parts = Counter("unet" if layer.part == "unet" else "text" for layer in chosen(family, **settings))
    return parts["unet"], parts["text"]


def paths(family: str, **settings: object) -> list[str]:
    return [layer.path for layer in chosen(family, **settings)]


def test_layers_are_described_by_their_modules():
    assert layer_of("unet", "a", torch.nn.Linear(3, 5)) == Layer("unet", "a", 3, 5)
    assert layer_of("unet", "a", torch.nn.Conv2d(3, 5, 3)) == Layer("unet", "a", 3, 5, 3, conv=True)
    assert layer_of("te", "a", torch.nn.LayerNorm(7)) == Layer("te", "a", 7, 7, norm=True)
    assert layer_of("unet", "a", torch.nn.GroupNorm(2, 6)) == Layer("unet", "a", 6, 6, norm=True)
    assert layer_of("unet", "a", torch.nn.LayerNorm(7, elementwise_affine=False)) is None
    assert layer_of("unet", "a", torch.nn.SiLU()) is None


# 16 transformers of SD1 have 8 attention layers, 2 of the MLP and 2 projections each; its 22 residual blocks have 2
# convolutions and 1 linear layer each, 14 of them a 1×1 skip; 3 down- and 3 upsamplers; 2 time layers, stem and head.
# SDXL: 70 transformer blocks in 11 transformers, 17 residual blocks, 11 skips, 2 and 2 samplers, 4 embedding layers.
@pytest.mark.parametrize(
    ("family", "settings", "expected"),
    [
        ("sd1", {"method": "lora"}, (192, 72)),
        ("sd2", {"method": "lora"}, (192, 138)),
        ("sdxl", {"method": "lora"}, (722, 66 + 192)),
        ("sd1", {"method": "ia3"}, (16 * 5, 12 * 3)),
        ("sdxl", {"method": "ia3"}, (70 * 5, 11 * 3 + 32 * 3)),
        *[("sd1", {"method": method}, (278, 72)) for method in METHODS if method not in ("lora", "ia3")],
        ("sd2", {"method": "locon"}, (278, 138)),
        ("sdxl", {"method": "lokr"}, (788, 258)),
        ("sd1", {"layers": "attention"}, (16 * 8, 48)),
        ("sdxl", {"layers": "attention", "method": "loha"}, (70 * 8, 44 + 128)),
        ("sd1", {"layers": "attention-mlp", "method": "locon"}, (192, 72)),
        ("sd1", {"layers": "linear"}, (192 + 22 + 14 + 2, 72)),
        ("sdxl", {"layers": "linear"}, (722 + 17 + 11 + 4, 258)),
        ("sd1", {"layers": "all"}, (278 + 4, 72)),
        ("sd2", {"layers": "all"}, (282, 138)),
        ("sdxl", {"layers": "all"}, (788 + 6, 258)),
        ("sd1", {"text_encoder": False}, (192, 0)),
        ("sd1", {"unet": False, "method": "locon"}, (0, 72)),
    ],
    ids=str,
)
def test_published_models_have_their_known_counts(family, settings, expected):
    assert counts(family, **settings) == expected


def test_the_shapes_list_the_layers_of_diffusers_own_models():
    """The list that the counts rest on names the modules of the model classes, built without weights."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    crossing = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(320, 640, 1280), down_block_types=crossing,
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10), cross_attention_dim=2048, attention_head_dim=(5, 10, 20),
            use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )  # fmt: skip
        text = CLIPTextModelWithProjection(
            CLIPTextConfig(hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, projection_dim=1280)
        )
    found = {layer_of("unet", to_ldm(p, "sdxl"), m) for p, m in unet.named_modules() if layer_of("unet", p, m)}
    found |= {layer_of("te2", path, module) for path, module in text.named_modules()} - {None}
    assert found == {layer for layer in model("sdxl") if layer.part != "te1"}
    assert len(found) == 794 + 256 + 258  # with the norms


def test_a_model_keeps_its_order_and_methods_their_ranks():
    layers = model("sd1")
    found = assign(layers, AdapterConfig("locon", rank=16, alpha=8, conv_rank=6, conv_alpha=3), "sd1")
    assert list(found) == [layer for layer in layers if layer in found]
    for layer, assignment in found.items():
        expected = (6, 3) if layer.kernel == 3 else (16, 8)
        assert assignment == Assignment("locon", *expected, 1.0)
    one = Counter(layer.kernel for layer in found)
    assert one == {1: 192 + 72 + 22 + 14, 3: 44 + 6}


# SD1: IN04 and IN05 and IN07 have a transformer of 12 layers, IN06 none; OUT03 to OUT06 have one each.
# With convolutions: IN04 16 (3 of the residual block and a skip), IN05 15, IN06 1, IN07 16; OUT03, 04, 06 16, OUT05 17.
# SDXL: IN04, IN05 and OUT03 to OUT05 have 2 transformer blocks (22 layers), IN07 10 (102), IN06 and OUT06 none.
@pytest.mark.parametrize(
    ("family", "settings", "expected"),
    [
        ("sd1", {"blocks": "OUT03-06,IN04-07"}, 36 + 48),
        ("sd1", {"blocks": "OUT03-06,IN04-07", "method": "locon"}, 48 + 65),
        ("sd1", {"blocks": "MID"}, 12),
        ("sd1", {"blocks": "MID", "method": "locon"}, 12 + 6),
        ("sd2", {"blocks": "OUT03-06,IN04-07"}, 84),
        ("sdxl", {"blocks": "OUT03-06,IN04-07"}, 2 * 22 + 102 + 3 * 22),
        ("sdxl", {"blocks": "OUT03-06,IN04-07", "method": "locon"}, 2 * 26 + 1 - 1 + 102 + 4 + 66 + 4 * 4 + 1),
        ("sd1", {"blocks": "IN00", "layers": "all"}, 1),
    ],
    ids=str,
)  # fmt: skip
def test_named_blocks_have_their_counts(family, settings, expected):
    assert counts(family, text_encoder=False, **settings) == (expected, 0)


def test_names_speak_of_the_unet_and_a_vector_of_the_text_encoder_too():
    assert counts("sd1", blocks="IN04") == (12, 72)
    assert counts("sd1", blocks="IN04", text_encoder=False) == (12, 0)
    assert counts("sd1", blocks="TE") == (0, 72)
    assert counts("sd1", blocks="0,0,0,1" + ",0" * 13) == (12, 0)
    assert counts("sd1", blocks="1,0,0,1" + ",0" * 13) == (12, 72)
    assert counts("sd1", blocks="1,0,0,1" + ",0" * 13, text_encoder=False) == (12, 0)
    assert counts("sdxl", blocks="1" + ",0" * 11) == (0, 258)


# Presets of lora-block-weight's lbwpresets.txt, and what its order of 17 makes of them, by hand.
PRESETS = {
    "1,1,1,1,0,0,0,0,0,0,0,0,0,0,0,0,0": "BASE IN01 IN02 IN04",
    "1,0,0,0,1,1,1,0,0,0,0,0,0,0,0,0,0": "BASE IN05 IN07 IN08",
    "1,0,0,0,1,1,1,1,1,1,1,1,0,0,0,0,0": "BASE IN05 IN07 IN08 MID OUT03 OUT04 OUT05 OUT06",
    "1,0,0,0,0,0,0,0,1,1,1,1,0,0,0,0,0": "BASE OUT03 OUT04 OUT05 OUT06",
    "1,0,0,0,0,0,0,0,0,0,0,0,1,1,1,1,1": "BASE OUT07 OUT08 OUT09 OUT10 OUT11",
    "0.5" + ",0.5" * 16: "BASE IN01 IN02 IN04 IN05 IN07 IN08 MID OUT03 OUT04 OUT05 OUT06 OUT07 OUT08 OUT09 OUT10 OUT11",
}


def weighted(layer: Layer, weights: dict[str, float]) -> float:
    """Return what lora-block-weight multiplies a layer with: substrings of the WebUI's name, the last match wins."""
    name = {"unet": "diffusion_model_", "te": "transformer_"}.get(layer.part, "0_transformer_")
    name += layer.path.replace(".", "_")
    ratio = 1.0
    for block, weight in weights.items():
        kind, number = block[:-2], block[-2:].lstrip("0") or "0"
        part = {"IN": f"diffusion_model_input_blocks_{number}_", "OUT": f"diffusion_model_output_blocks_{number}_"}
        keys = {"BASE": ["encoder", "embedders"], "MID": ["middle_block_"]}.get(block) or [part[kind]]
        if any(key in name for key in keys):
            ratio = weight
    return ratio


@pytest.mark.parametrize("method", ["lora", "locon"])
@pytest.mark.parametrize("vector", PRESETS)
def test_a_vector_trains_what_lora_block_weight_would_not_zero(vector, method):
    on = set(PRESETS[vector].split())
    weights = {block: float(block in on) for block in blocks.ORDERS[26]}  # blocks that 17 numbers leave out get 0
    expected = [layer for layer in chosen("sd1", method=method) if weighted(layer, weights)]
    assert list(chosen("sd1", method=method, blocks=vector)) == expected
    names = ",".join(on - {"BASE"})
    assert list(chosen("sd1", method=method, blocks=names, text_encoder="BASE" in on)) == expected


def test_long_and_sdxl_vectors_do_as_lora_block_weight_too():
    for family, numbers in (("sd1", 26), ("sdxl", 20), ("sdxl", 12)):
        for start in range(3):
            row = [(place + start) % 3 % 2 for place in range(numbers)]
            order = blocks.ORDERS[numbers]
            weights = dict.fromkeys(blocks.names(family), 0.0) | dict(zip(order, map(float, row), strict=True))
            expected = [layer for layer in chosen(family, method="locon") if weighted(layer, weights)]
            assert list(chosen(family, method="locon", blocks=" ".join(map(str, row)))) == expected


def test_layers_outside_of_blocks_are_not_trained_when_blocks_are_named():
    """lora-block-weight leaves them at full strength; training only IN04 means training only IN04."""
    outside = {"time_embed.0", "time_embed.2", "out.2"}
    assert outside <= set(paths("sd1", layers="all"))
    assert not outside & set(paths("sd1", layers="all", blocks="ALL"))
    assert not outside & set(paths("sd1", layers="all", blocks=",".join("1" * 26)))
    assert outside <= set(paths("sd1", layers="all", blocks="ALL", rules=(r"/^unet\.(time_embed|out\.)/: on",)))


def given(path: str, *lines: str, **settings: object) -> Assignment | None:
    """Return what rules give to one layer of SD1's UNet, None when it is not trained."""
    found = assign(model("sd1"), AdapterConfig(rules=lines, **settings), "sd1")
    return next((assignment for layer, assignment in found.items() if layer.path == path), None)


def test_rules_set_values_and_the_last_that_fits_counts_alone():
    settings = {"method": "locon", "rank": 16, "alpha": 8.0, "conv_rank": 6, "conv_alpha": 3.0}
    convolution = "input_blocks.4.0.in_layers.2"
    lines = ("IN04-07: rank=8 alpha=4 conv_rank=2 conv_alpha=1 lr=0.5", "/attn1/: method=lokr rank=3")
    assert given(QUERY, lines[0], **settings) == Assignment("locon", 8, 4.0, 0.5)
    assert given(convolution, lines[0], **settings) == Assignment("locon", 2, 1.0, 0.5)
    assert given(convolution, *lines, **settings) == Assignment("locon", 2, 1.0, 0.5)
    assert given(QUERY, *lines, **settings) == Assignment("lokr", 3, 8.0, 1.0), "nothing of the first rule is left"
    assert given(QUERY, *reversed(lines), **settings) == Assignment("locon", 8, 4.0, 0.5)
    assert given("input_blocks.1.1.proj_in", lines[0], **settings) == Assignment("locon", 16, 8.0, 1.0)
    text = assign(model("sd1"), AdapterConfig(rules=("TE: lr=0.5",)), "sd1")
    assert Counter((layer.part, assignment.rate) for layer, assignment in text.items()) == {
        ("unet", 1.0): 192,
        ("te", 0.5): 72,
    }


def test_off_removes_and_on_brings_back():
    assert counts("sd1", rules=("OUT09-11: off",)) == (192 - 36, 72)
    assert counts("sd1", rules=("OUT09-11: off", "OUT10: on")) == (192 - 24, 72)
    assert counts("sd1", rules=("OUT09-11: off", "OUT10: rank=4")) == (192 - 24, 72), "the first does not count there"
    assert counts("sd1", rules=("ALL: off", r"/attn2\.to_[kv]/: on")) == (32, 0)
    assert counts("sd1", blocks="IN04", rules=("MID: on",)) == (24, 72)
    assert counts("sd1", blocks="IN04", rules=("MID: rank=4",)) == (12, 72), "only on brings back"
    assert counts("sd1", rules=("MID: on",)) == (192, 72), "a block brings back the kinds of `layers` only"
    assert counts("sd1", rules=(r"/middle_block.*in_layers/: on",)) == (194, 72)
    assert counts("sd1", rules=(r"/text_projection|token_embedding/: on",)) == (192, 72)
    assert counts("sd1", text_encoder=False, rules=("TE: on", "/^te/: on")) == (192, 0)
    assert counts("sd1", rules=(r"/^te\.text_model\.encoder\.layers\.(0|11)\./: off",)) == (192, 60)


def test_norms_go_with_the_layers_they_stand_before():
    # 4 norms per transformer of SD1, 2 per residual block, 2 per layer of the text encoder.
    assert counts("sd1", norms=True) == (192 + 64, 72 + 24)
    assert counts("sd1", norms=True, layers="attention") == (128 + 32, 48 + 12)
    assert counts("sd1", norms=True, method="locon") == (278 + 64 + 44, 96)
    assert counts("sdxl", norms=True, method="locon", text_encoder=False) == (788 + 3 * 70 + 11 + 34, 0)
    inside = [
        path
        for path in paths("sd1", norms=True, method="locon", blocks="IN04", text_encoder=False)
        if "norm" in path or path.endswith("layers.0")
    ]
    block = "input_blocks.4.1"
    assert inside == [
        "input_blocks.4.0.in_layers.0", "input_blocks.4.0.out_layers.0", f"{block}.norm",
        *(f"{block}.transformer_blocks.0.norm{number}" for number in (1, 2, 3)),
    ]  # fmt: skip
    # Without the layers of attn2 and ff nothing is left that norm2 and norm3 stand before.
    assert counts("sd1", norms=True, rules=(r"/attn2|\.ff\./: off",)) == (16 * (4 + 2) + 16 * 2, 96)
    rules = ("IN04: off", r"/norm2$/: off", r"/norm1$/: lr=0.25")
    found = assign(model("sd1"), AdapterConfig(norms=True, rules=rules, text_encoder=False), "sd1")
    norms = Counter((layer.path.rpartition(".")[2], given.rate) for layer, given in found.items() if layer.norm)
    assert norms == {("norm1", 0.25): 15, ("norm3", 1.0): 15, ("norm", 1.0): 15}


def test_norms_that_no_file_can_name_are_left_out():
    assert not [layer for layer in chosen("sd2", norms=True) if layer.norm and layer.part == "te"]
    assert not [layer for layer in chosen("sdxl", norms=True) if layer.norm and layer.part == "te2"]
    assert len([layer for layer in chosen("sdxl", norms=True) if layer.norm and layer.part == "te1"]) == 22
    assert "out.0" not in paths("sd1", norms=True, layers="all")
    assert "out.0" in paths("sdxl", norms=True, layers="all")


@pytest.mark.parametrize("family", FAMILIES)
def test_only_layers_without_a_gradient_are_left_out(family, tmp_path):
    """In a small model of each family, every layer but those of `unnamed` is trained just if a gradient reaches it."""
    from lib_lora_trainer.hosts.api import Needs, PictureSize, TextRequest
    from lib_lora_trainer.hosts.standalone import StandaloneHost
    from lib_lora_trainer.hosts.standalone.weights import unet_path

    host = StandaloneHost(small_models.write_checkpoint(family, tmp_path / f"{family}.safetensors"), tmp_path, "cpu")
    with host.lease(Needs()) as lease:
        modules = {}
        for part, network in host.load().modules.parts():
            for name, module in network.named_modules():
                if layer_of(part, name, module) is not None:
                    path = unet_path(name, family) if part == "unet" else name
                    modules[layer_of(part, path, module)] = module.requires_grad_(True)
        sizes = (PictureSize((128, 128), (0, 0), (128, 128)),) if family == "sdxl" else ()
        text = lease.encode_text(TextRequest(("a red cat",), 1, 1, sizes))
        torch.manual_seed(3)
        predicted = lease.predict(torch.randn(1, 4, 16, 16), torch.tensor([500]), text)
        (predicted * torch.randn_like(predicted)).sum().backward()
        learning = {
            layer for layer, module in modules.items() if module.weight.grad is not None and module.weight.grad.any()
        }
    layers = tuple(modules)
    found = set(choose(layers, AdapterConfig(layers="all", norms=True), family))
    unnamed = re.compile(r"text_projection|final_layer_norm" + ("|out\\.0" if family != "sdxl" else ""))
    open_clip = {"sd1": (), "sd2": ("te",), "sdxl": ("te2",)}[family]
    able = {layer for layer in learning if not unnamed.fullmatch(layer.path.removeprefix("text_model."))}
    able -= {layer for layer in able if layer.norm and layer.part in open_clip}
    assert found == able
    dead = {(layer.part, layer.path.split(".")[3]) for layer in set(layers) - learning if "layers" in layer.path}
    assert dead == ({("te1", "2")} if family == "sdxl" else set())


def test_nothing_left_is_an_error_that_says_what_there_is():
    for settings in (
        {"unet": False, "text_encoder": False},
        {"unet": False, "blocks": "0" + ",0" * 16},
        {"rules": ("ALL: off",)},
        {"blocks": "IN03", "text_encoder": False},
    ):
        with pytest.raises(ConfigError, match="nothing to train") as caught:
            chosen("sd1", **settings)
        assert "the model offers 354 layers (unet 282, te 72)" in str(caught.value)
        assert "those for lora in the blocks BASE, IN01, IN02, IN04, IN05, IN07, IN08, MID, OUT03," in str(caught.value)
    with pytest.raises(ConfigError, match=r"offers 0 layers \(no part\), those for lora in the blocks none"):
        assign((), AdapterConfig(), "sd1")


def test_mistakes_in_blocks_and_rules_are_config_errors():
    with pytest.raises(ConfigError, match=r"adapter\.blocks: 'IN09' does not exist in sdxl"):
        chosen("sdxl", blocks="IN09")
    with pytest.raises(ConfigError, match=r"adapter\.rules\[1\]: 'rank=0' is not allowed"):
        chosen("sd1", rules=("IN04: off", "IN05: rank=0"))
