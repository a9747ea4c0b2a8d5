"""The built-in Lora extension computes from a saved file what training computed: every layer, and the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from adapter_cases import shake
from lib_lora_trainer.adapters import files, methods
from lib_lora_trainer.adapters.attach import Attachment
from lib_lora_trainer.adapters.targets import Layer, assign
from lib_lora_trainer.config.adapter import AdapterConfig
from lib_lora_trainer.hosts.api import ImageRequest, Needs

pytest_plugins = ("webui_session",)
pytestmark = pytest.mark.webui  # the stand-in's loader is too small to be a witness

LORA = AdapterConfig(method="lora", rank=4, alpha=3.0)
LOCON = AdapterConfig(method="locon", rank=4, alpha=3.0, conv_rank=3, conv_alpha=1.5)
DORA = AdapterConfig(method="loha", rank=2, alpha=3.0, conv_rank=2, conv_alpha=1.5, weight_decompose=True, tucker=True)
NORMS = AdapterConfig(method="full", layers="attention", norms=True)
TURNS = AdapterConfig(method="boft", rank=8, conv_rank=8, oft_rescaled=True)
REQUEST = ImageRequest("a red cat", "blurred", 5, 3, 4.0, 64, 64, "Euler", 1)


def random_adapters(targets, config: AdapterConfig, size: float) -> dict[Layer, torch.nn.Module]:
    """Return adapters for what the configuration chooses, all of whose values are random."""
    wanted = assign([target.layer for target in targets], config, "sd1")
    adapters = {}
    for target in targets:
        if target.layer in wanted:
            adapters[target.layer] = methods.build(target, wanted[target.layer], config, seed=5).eval()
            shake(adapters[target.layer], size)
    return adapters


def name_in_webui(layer: Layer) -> str:
    return ("diffusion_model_" if layer.part == "unet" else "transformer_") + layer.path.replace(".", "_")


def inputs_of(layer: Layer) -> torch.Tensor:
    generator = torch.Generator().manual_seed(23)
    shape = (2, layer.inputs, 8, 8) if layer.conv else (2, 5, layer.inputs)
    return torch.randn(shape, generator=generator)


@pytest.mark.parametrize(("config", "unet_layers"), [(LORA, 192), (LOCON, 278)], ids=["lora", "locon"])
def test_every_delta_is_the_loaders(host, webui, config, unet_layers):
    import networks

    with host.lease(Needs()) as lease:
        targets = lease.targets()
        adapters = random_adapters(targets, config, size=0.3)
    assert sum(layer.part == "unet" for layer in adapters) == unet_layers
    assert sum(layer.part == "te" for layer in adapters) == 3 * 6
    name = f"equality-{config.method}"
    save_file(files.to_tensors(adapters, "sd1", torch.float32), str(webui.lora_folder / f"{name}.safetensors"))
    host.announce(str(webui.lora_folder / f"{name}.safetensors"))
    network = networks.load_network(name, networks.available_networks[name])
    network.te_multiplier = network.unet_multiplier = 1.0
    assert set(network.modules) == {name_in_webui(layer) for layer in adapters}
    modules = {target.layer: target.module for target in targets}
    for layer, adapter in adapters.items():
        module = modules[layer]
        assert webui.model.network_layer_mapping[name_in_webui(layer)] is module
        with torch.no_grad():
            theirs, bias = network.modules[name_in_webui(layer)].calc_updown(module.weight)
            torch.testing.assert_close(theirs, methods.weight_delta(adapter), rtol=1e-5, atol=1e-6)
            assert bias is None
            assert theirs.abs().mean() > 0.01
            inputs = inputs_of(layer)
            before = module(inputs)
            with Attachment([t for t in targets if t.layer == layer], {layer: adapter}):
                trained = module(inputs) - before
            kept = module.weight.detach().clone()
            module.weight.copy_(kept + theirs)
            merged = module(inputs) - before
            module.weight.copy_(kept)
        torch.testing.assert_close(trained, merged, rtol=1e-3, atol=1e-4)


SIZES = {
    "lora": (LORA, 0.12),
    "locon": (LOCON, 0.12),
    "dora": (DORA, 0.3),
    "norms": (NORMS, 0.05),
    "turns": (TURNS, 0.1),
}


@pytest.mark.parametrize(("config", "size"), SIZES.values(), ids=SIZES)
def test_the_image_in_training_is_the_image_from_the_file(host, webui, config, size):
    base = np.asarray(webui.txt2img().images[0]).astype(int)
    digest = webui.digest()
    with host.lease(Needs()) as lease:
        targets = lease.targets()
        adapters = random_adapters(targets, config, size)
        with Attachment(targets, adapters):
            (made,) = lease.generate([REQUEST])
        (without,) = lease.generate([REQUEST])
    in_training = np.asarray(made.image).astype(int)
    assert np.array_equal(np.asarray(without.image).astype(int), base)
    assert webui.digest() == digest
    name = f"image-{config.method}"
    save_file(files.to_tensors(adapters, "sd1", torch.float32), str(webui.lora_folder / f"{name}.safetensors"))
    made_from_file = webui.txt2img(f"a red cat<lora:{name}:1>")
    assert "Networks with errors" not in str(made_from_file.comments)
    from_file = np.asarray(made_from_file.images[0]).astype(int)
    assert np.abs(from_file - base).mean() > 3
    assert np.abs(from_file - in_training).max() <= 2
    assert webui.digest() != digest, "the loader leaves its networks merged; the next lease takes them out"
    with host.lease(Needs()):
        assert webui.digest() == digest
    assert webui.digest() == digest
    again = np.asarray(webui.txt2img(f"a red cat<lora:{name}:1>").images[0]).astype(int)
    assert np.array_equal(again, from_file)
    webui.txt2img()
