"""The JSON of kohya_ss's GUI as arguments of sd-scripts, as the GUI itself writes them (lora_gui.py, 45088f0)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from lib_lora_trainer.config.importing import values
from lib_lora_trainer.config.importing.outcomes import Argument, Leave, Outcome, Silent
from lib_lora_trainer.config.importing.sd_scripts import Named, spread

MARKS = ("LoRA_type", "LyCORIS_preset", "max_resolution", "model_list", "stop_text_encoder_training", "lr_warmup")
_CONV = ("conv_dim", "conv_alpha")
_DROPOUTS = ("rank_dropout", "module_dropout")
_BLOCKS = (
    "down_lr_weight", "mid_lr_weight", "up_lr_weight", "block_lr_zero_threshold", "block_dims", "block_alphas",
    "conv_block_dims", "conv_block_alphas", "conv_dims", "conv_alphas",
)  # fmt: skip
_LYCORIS = (*_CONV, *_DROPOUTS, "LyCORIS_preset", "train_norm", "rank_dropout_scale")
_PLUS = ("loraplus_lr_ratio", "loraplus_unet_lr_ratio", "loraplus_text_encoder_lr_ratio")
_DELTA = (*_LYCORIS, "use_tucker", "use_scalar", "bypass_mode", "dora_wd")
# LoRA_type → module, LyCORIS's algorithm, and the GUI's fields that count with it.
_TYPES: MappingProxyType[str, tuple[str, str, tuple[str, ...]]] = MappingProxyType({
    "Standard": ("networks.lora", "", (*_BLOCKS, *_DROPOUTS)),
    "Kohya LoCon": ("networks.lora", "", (*_CONV, *_BLOCKS, *_DROPOUTS)),
    "LoRA-FA": ("networks.lora_fa", "", (*_BLOCKS, *_DROPOUTS)),
    "Kohya DyLoRA": ("networks.dylora", "", (*_CONV, *_BLOCKS, *_DROPOUTS, "unit")),
    "Kohya LoHa": ("networks.loha", "", (*_CONV, *_DROPOUTS, "use_tucker")),
    "Kohya LoKr": ("networks.lokr", "", (*_CONV, *_DROPOUTS, "use_tucker", "factor")),
    "LoCon": ("lycoris.kohya", "locon", _DELTA),
    "LyCORIS/LoCon": ("lycoris.kohya", "locon", _DELTA),
    "LyCORIS/LoHa": ("lycoris.kohya", "loha", _DELTA),
    "LyCORIS/LoKr": ("lycoris.kohya", "lokr", (*_DELTA, "factor", "use_cp", "decompose_both")),
    "LyCORIS/DyLoRA": ("lycoris.kohya", "dylora", (*_LYCORIS[:-1], "use_tucker", "unit")),
    "LyCORIS/GLoRA": ("lycoris.kohya", "glora", (*_LYCORIS, "use_tucker")),
    "LyCORIS/iA3": ("lycoris.kohya", "ia3", (*_CONV, "LyCORIS_preset", "train_on_input")),
    "LyCORIS/BOFT": ("lycoris.kohya", "boft", (*_LYCORIS, "use_tucker")),
    "LyCORIS/Diag-OFT": ("lycoris.kohya", "diag-oft", (*_LYCORIS, "use_tucker", "constrain", "rescaled")),
    "LyCORIS/Native Fine-Tuning": ("lycoris.kohya", "full", (*_DROPOUTS, "LyCORIS_preset", "train_norm")),
})  # fmt: skip
_FIELDS = frozenset({field for _, _, fields in _TYPES.values() for field in fields} | {*_PLUS})
_RENAMED = MappingProxyType({
    "LyCORIS_preset": "network_args.preset",
    "conv_dims": "network_args.conv_block_dims",  # of older files
    "conv_alphas": "network_args.conv_block_alphas",
    "constrain": "network_args.constraint",
    "optimizer": "optimizer_type",
    "max_resolution": "resolution",
    "sdxl_cache_text_encoder_outputs": "cache_text_encoder_outputs",
    "sdxl_no_half_vae": "no_half_vae",
    "lora_network_weights": "network_weights",
})  # fmt: skip
_TOGETHER = frozenset({
    "LoRA_type", "noise_offset_type", "model_list", "save_as_bool", "epoch", "seed", "unet_lr", "text_encoder_lr",
    "lr_warmup", "lr_warmup_steps", "max_train_epochs", "max_train_steps",
})  # fmt: skip
# Fields for models that are not trained here; each group counts only with its own checkbox.
_FAMILIES = MappingProxyType({
    "flux1_checkbox": re.compile(
        r"flux1_\w+|ae|clip_l|t5xxl|t5xxl_lr|discrete_flow_shift|model_prediction_type|timestep_sampling|split_mode|"
        r"train_blocks|t5xxl_max_token_length|enable_all_linear|guidance_scale|mem_eff_save|apply_t5_attn_mask|"
        r"split_qkv|train_t5xxl|cpu_offload_checkpointing|(single_|double_)?blocks_to_swap|show_timesteps(_resolution)?|"
        r"(img|txt)_(attn|mlp|mod)_dim|single_(mod_)?dim|in_dims|train_(double|single)_block_indices|model_type|"
        r"train_lora_ggpo|ggpo_(sigma|beta)|fp8_base_unet"
    ),
    "sd3_checkbox": re.compile(
        r"sd3_\w+|clip_g(_dropout_rate)?|logit_(mean|std)|mode_scale|pos_emb_random_crop_rate|save_(clip|t5xxl)|"
        r"t5xxl_(device|dtype)|weighting_scheme"
    ),
    "hunyuan_image_checkbox": re.compile(r"hunyuan_\w+"),
    "anima_checkbox": re.compile(r"anima_\w+"),
    "lumina_checkbox": re.compile(r"lumina_\w+"),
})  # fmt: skip


def run_arguments(document: Mapping[str, Any]) -> Iterator[Named]:
    """Yield the arguments that the GUI hands to sd-scripts for a file; `outcomes` has the keys that it does not."""
    chosen = document.get("LoRA_type", "Standard")
    module, algorithm, fields = _TYPES.get(str(chosen), (str(chosen), "", ()))
    yield "network_module", Argument("LoRA_type" if "LoRA_type" in document else "", module)
    if algorithm:
        yield "network_args.algo", Argument("LoRA_type", algorithm)
    for key, value in document.items():
        if key in _FIELDS:
            if (key in fields or key in _PLUS) and _counts(key, value):
                name = _RENAMED.get(key, f"network_args.{key}")
                yield name, Argument(key, value)
        elif key in ("optimizer_args", "lr_scheduler_args"):
            yield from spread(key, key, value.replace('"', "") if isinstance(value, str) else value)
        elif key == "xformers":  # one of three words, or a switch in older files
            yield str(value) if value in ("sdpa", "xformers") else "xformers", Argument(key, value)
        elif key != "additional_parameters" and not _is_special(key, document):
            yield _RENAMED.get(key, key), Argument(key, value)
    yield from _together(document)
    yield from _command_line(str(document.get("additional_parameters") or ""))  # last, because it overrules


def outcomes(document: Mapping[str, Any]) -> Iterator[Outcome]:
    """Yield what becomes of the keys that the GUI does not hand on."""
    for key, value in document.items():
        if _family(key) is not None:
            boxes = [box for box in _FAMILIES if key == box]
            on = bool(boxes) and not values.is_off(value)
            text = "Only SD1, SD2 and SDXL are trained here."
            yield Leave(key, value, text) if on else Silent(key)
        elif (
            key in _FIELDS
            or key in ("noise_offset_type", "LoRA_type", "model_list", "save_as_bool", "additional_parameters")
            or _is_special(key, document)
        ):
            yield Silent(key)  # counts only if `run_arguments` has it, whose outcome is then the one that is kept


def _counts(key: str, value: Any) -> bool:
    """Tell whether the GUI writes a field of the adapter: those for blocks, dropouts and ratios only if they are on."""
    return not values.is_off(value) if key in (*_BLOCKS, *_DROPOUTS, *_PLUS) else not values.is_empty(value)


def _family(key: str) -> str | None:
    """Return the checkbox of the family that a key belongs to, None for a key of SD's own."""
    if key in _FAMILIES:
        return key
    return next((box for box, names in _FAMILIES.items() if names.fullmatch(key)), None)


def _is_special(key: str, document: Mapping[str, Any]) -> bool:
    """Tell whether `_together` or nobody reads a key."""
    noise = document.get("noise_offset_type", "Original")
    if _family(key) is not None:
        return True
    if key in ("noise_offset", "noise_offset_random_strength", "adaptive_noise_scale"):
        return noise != "Original"
    if key in ("multires_noise_iterations", "multires_noise_discount"):
        return noise != "Multires"
    return key in _TOGETHER


def _together(document: Mapping[str, Any]) -> Iterator[Named]:
    """Yield the arguments that the GUI makes of several fields."""
    yield from _rates(document)
    for key in ("lr_warmup_steps", "lr_warmup"):
        if not values.is_off(document.get(key)):
            share = key == "lr_warmup"
            yield "lr_warmup_steps", Argument(key, _percent(document[key]) if share else document[key])
            break
    if not values.is_off(document.get("seed")):
        yield "seed", Argument("seed", document["seed"])
    if not values.is_off(document.get("max_train_epochs")):
        yield "max_train_epochs", Argument("max_train_epochs", document["max_train_epochs"])
    elif not values.is_off(document.get("max_train_steps")):
        yield "max_train_steps", Argument("max_train_steps", document["max_train_steps"])
    elif values.is_empty(document.get("dataset_config")) and not values.is_off(document.get("epoch")):
        yield "max_train_epochs", Argument("epoch", document["epoch"])


def _rates(document: Mapping[str, Any]) -> Iterator[Named]:
    """Yield the learning rates: 0 for one part trains the other alone, 0 for both trains both at the common rate."""
    given = {key: document[key] for key in ("unet_lr", "text_encoder_lr") if not values.is_off(document.get(key))}
    for key in ("unet_lr", "text_encoder_lr"):
        if key in given:
            yield key, Argument(key, given[key])
        elif given and key in document:
            yield key, Argument(key, 0)


def _percent(value: Any) -> Any:
    try:
        return values.number(value) / 100
    except ValueError:
        return value


def _command_line(text: str) -> Iterator[Named]:
    """Yield the arguments in the field for additional parameters."""
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    position = 0
    while position < len(words):
        word = words[position]
        name, equals, value = word.lstrip("-").partition("=")
        position += 1
        following = [value] if equals else []
        while not equals and position < len(words) and not words[position].startswith("--"):
            following.append(words[position])
            position += 1
        content: Any = True if not following else following[0] if len(following) == 1 else following
        yield from spread(f"additional_parameters.{name}", name, content)
