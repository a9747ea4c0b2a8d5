"""The built-in Lora extension's module of this name: it merges into the weights at the next forward, and leaves it."""

from pathlib import Path
from types import SimpleNamespace

import torch
from modules import sd_models, shared
from safetensors.torch import load_file

available_networks = {}
loaded_networks = []
originals = {}
_PATCHED = (torch.nn.Linear, torch.nn.Conv2d)


def list_available_networks():
    available_networks.clear()
    for path in sorted(Path(shared.cmd_opts.lora_dir).rglob("*.safetensors")):
        available_networks[path.stem] = SimpleNamespace(name=path.stem, filename=str(path))


def assign_network_names_to_compvis_modules(sd_model):
    sd_model.network_layer_mapping = {}
    for root in (sd_model.cond_stage_model.wrapped, sd_model.model):
        for name, module in root.named_modules():
            module.network_layer_name = name.replace(".", "_")
            sd_model.network_layer_mapping[module.network_layer_name] = module


def load_network(name, on_disk):
    net = SimpleNamespace(name=name, modules={}, te_multiplier=1.0, unet_multiplier=1.0)
    weights = {}
    for key, tensor in load_file(on_disk.filename).items():
        layer, _, part = key.partition(".")
        layer = layer.replace("lora_unet_", "diffusion_model_").replace("lora_te_", "transformer_")
        if layer in sd_models.model_data.sd_model.network_layer_mapping:
            weights.setdefault(layer, {})[part] = tensor
    for layer, parts in weights.items():
        net.modules[layer] = NetworkModuleLora(net, layer, parts)
    return net


class NetworkModuleLora:
    def __init__(self, net, layer, parts):
        self.net, self.layer = net, layer
        self.up, self.down = parts["lora_up.weight"], parts["lora_down.weight"]
        self.scale = parts["alpha"].item() / self.down.shape[0] if "alpha" in parts else 1.0

    def calc_updown(self, original):
        strength = self.net.te_multiplier if "transformer" in self.layer[:20] else self.net.unet_multiplier
        delta = self.up.float().flatten(1) @ self.down.float().flatten(1)
        return delta.reshape(original.shape) * self.scale * strength, None


def load_networks(names, te_multipliers=None, unet_multipliers=None):
    loaded_networks.clear()
    for index, name in enumerate(names):
        if name not in available_networks:
            list_available_networks()
        net = load_network(name, available_networks[name])
        net.te_multiplier = te_multipliers[index] if te_multipliers else 1.0
        net.unet_multiplier = unet_multipliers[index] if unet_multipliers else 1.0
        loaded_networks.append(net)


def network_apply_weights(self):
    layer = getattr(self, "network_layer_name", None)
    if layer is None or not hasattr(self, "weight"):
        return
    wanted = tuple((net.name, net.te_multiplier, net.unet_multiplier) for net in loaded_networks)
    current = getattr(self, "network_current_names", ())
    if wanted == current:
        return
    if getattr(self, "network_weights_backup", None) is None:
        self.network_weights_backup = self.weight.detach().clone()
    self.weight.copy_(self.network_weights_backup)
    for net in loaded_networks:
        if layer in net.modules:
            with torch.no_grad():
                self.weight.copy_(self.weight + net.modules[layer].calc_updown(self.weight)[0])
    self.network_current_names = wanted


def patch():
    for kind in _PATCHED:
        originals[kind] = kind.forward
        kind.forward = _patched(kind.forward)


def undo():
    for kind, forward in originals.items():
        kind.forward = forward


def _patched(original):
    def forward(self, inputs):
        network_apply_weights(self)
        return original(self, inputs)

    return forward
