"""Names that an SD1.x single-file checkpoint (ldm) gives the weights of the diffusers and transformers modules.

The names follow Stability-AI/stablediffusion at cf1d67a: ldm/modules/diffusionmodules/openaimodel.py and model.py,
ldm/models/diffusion/ddpm.py. Every function maps a state dict.
"""

from __future__ import annotations

from torch import Tensor

from lib_lora_trainer.adapters.names import to_ldm

State = dict[str, Tensor]

LEVELS = 4
AUTOENCODER_BLOCKS = 1

_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def checkpoint_state(unet: State, autoencoder: State, text: State) -> State:
    """Return one state dict with ldm names from the three modules' state dicts; tensors keep shape and dtype.

    The autoencoder's attention projections become 1 x 1 convolutions, as ldm has them.
    """
    state = {"model.diffusion_model." + unet_name(name): weight for name, weight in unet.items()}
    for name, weight in autoencoder.items():
        renamed = autoencoder_name(name)
        convolution = ".mid.attn_1." in renamed and weight.ndim == 2
        state["first_stage_model." + renamed] = weight[:, :, None, None] if convolution else weight
    for name, weight in text.items():
        if not name.endswith("position_ids"):
            state["cond_stage_model.transformer." + name] = weight
    return state


def unet_name(name: str) -> str:
    """Return ldm's name of the UNet weight that diffusers calls ``name``."""
    path, _, kind = name.rpartition(".")
    return f"{to_ldm(path, 'sd1')}.{kind}"


def autoencoder_name(name: str) -> str:
    """Return ldm's name of the autoencoder weight that diffusers calls ``name``; ldm counts the decoder from below."""
    if name.startswith(("quant_conv.", "post_quant_conv.")):
        return name
    side, rest = name.split(".", 1)
    for prefix, target in _autoencoder_prefixes().items():
        if rest.startswith(prefix + "."):
            tail = rest[len(prefix) + 1 :].replace("conv_shortcut", "nin_shortcut")
            if prefix == "mid_block.attentions.0":
                part, _, kind = tail.rpartition(".")
                tail = f"{_ATTENTION[part]}.{kind}"
            return f"{side}.{target}.{tail}"
    raise KeyError(name)


def _autoencoder_prefixes() -> dict[str, str]:
    prefixes = {
        "conv_in": "conv_in",
        "conv_norm_out": "norm_out",
        "conv_out": "conv_out",
        "mid_block.resnets.0": "mid.block_1",
        "mid_block.attentions.0": "mid.attn_1",
        "mid_block.resnets.1": "mid.block_2",
    }
    for level in range(LEVELS):
        mirrored = LEVELS - 1 - level
        prefixes[f"down_blocks.{level}.downsamplers.0"] = f"down.{level}.downsample"
        prefixes[f"up_blocks.{level}.upsamplers.0"] = f"up.{mirrored}.upsample"
        for block in range(AUTOENCODER_BLOCKS):
            prefixes[f"down_blocks.{level}.resnets.{block}"] = f"down.{level}.block.{block}"
        for block in range(AUTOENCODER_BLOCKS + 1):
            prefixes[f"up_blocks.{level}.resnets.{block}"] = f"up.{mirrored}.block.{block}"
    return prefixes
