"""The names of an adapter's tensors in its file: kohya's convention, which every WebUI reads."""

from __future__ import annotations

from lib_lora_trainer.adapters.names import to_diffusers
from lib_lora_trainer.adapters.targets import Layer
from lib_lora_trainer.base.families import Family

_PREFIX = {"unet": "lora_unet", "te": "lora_te", "te1": "lora_te1", "te2": "lora_te2"}
_OPEN_CLIP_NORMS = {"layer_norm1": "ln_1", "layer_norm2": "ln_2"}
# diffusers' name of it, conv_norm_out, is the one the WebUI's loader does not translate.
_LAST_NORM = "out.0"


def file_key(layer: Layer, family: Family) -> str:
    """Return the key of a layer, without the tensor's name: `lora_unet_down_blocks_0_attentions_0_…`.

    SD1 and SD2 UNets are named as diffusers names them, SDXL's as ldm does: the built-in loader maps diffusers names of
    SDXL's upsamplers to blocks that do not exist (networks.py `convert_diffusers_name_to_compvis`, WebUI 1.10.1).
    Text encoders are named as transformers names them. The norms of OpenCLIP's (SD2, SDXL's second) end in open_clip's
    own names, ln_1 and ln_2, for the loader translates attention and MLP alone (test_every_layer_has_a_key_that_loads);
    LyCORIS calls them layer_norm1 and layer_norm2, which the WebUI passes over without a word.
    """
    path = layer.path
    if layer.part == "unet":
        path = path if family == "sdxl" or path == _LAST_NORM else to_diffusers(path, family)
    elif is_open_clip(layer, family):
        start, _, last = path.rpartition(".")
        path = f"{start}.{_OPEN_CLIP_NORMS.get(last, last)}"
    return f"{_PREFIX[layer.part]}_{path.replace('.', '_')}"


def is_open_clip(layer: Layer, family: Family) -> bool:
    """Tell whether a layer is of an OpenCLIP text encoder, whose attention has one weight for q, k and v."""
    return layer.part == "te2" or (layer.part == "te" and family == "sd2")
