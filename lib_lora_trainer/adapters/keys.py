"""The names of an adapter's tensors in its file: kohya's convention, which every WebUI reads."""

from __future__ import annotations

from lib_lora_trainer.adapters.names import to_diffusers
from lib_lora_trainer.adapters.targets import Layer
from lib_lora_trainer.base.families import Family

_PREFIX = {"unet": "lora_unet", "te": "lora_te", "te1": "lora_te1", "te2": "lora_te2"}


def file_key(layer: Layer, family: Family) -> str:
    """Return the key of a layer, without the tensor's name: `lora_unet_down_blocks_0_attentions_0_…`.

    SD1 and SD2 UNets are named as diffusers names them, SDXL's as ldm does: the built-in loader maps diffusers names of
    SDXL's upsamplers to blocks that do not exist (networks.py `convert_diffusers_name_to_compvis`, WebUI 1.10.1).
    """
    path = to_diffusers(layer.path, family) if layer.part == "unet" and family != "sdxl" else layer.path
    return f"{_PREFIX[layer.part]}_{path.replace('.', '_')}"
