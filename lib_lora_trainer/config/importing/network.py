"""The adapter: network_module, network_dim and what stands in network_args."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType

from lib_lora_trainer.config.importing import block_rules, values
from lib_lora_trainer.config.importing.outcomes import Argument, Arguments, Leave, Outcome, Put, Silent, attempt, one

# Of sd-scripts: module → method with and without conv_dim.
_MODULES = MappingProxyType({
    "networks.lora": ("locon", "lora"),
    "networks.lora_fa": ("locon", "lora"),
    "networks.dylora": ("dylora", "dylora"),
    "networks.oft": ("oft", "oft"),
    "networks.loha": ("loha", "loha"),
    "networks.lokr": ("lokr", "lokr"),
})  # fmt: skip
_ALGORITHMS = MappingProxyType({
    "lora": "locon",
    "locon": "locon",
    "loha": "loha",
    "lokr": "lokr",
    "ia3": "ia3",
    "dylora": "dylora",
    "glora": "glora",
    "full": "full",
    "diag-oft": "oft",
    "boft": "boft",
})  # fmt: skip
# Of LyCORIS: preset → our layers, and whether it trains text encoders.
_PRESETS = MappingProxyType({
    "full": ("all", True),
    "full-lin": ("linear", True),
    "attn-mlp": ("attention-mlp", True),
    "attn-only": ("attention", True),
    "unet-only": ("all", False),
    "unet-transformer-only": ("attention-mlp", False),
    "ia3": ("auto", True),
})  # fmt: skip
_WITHOUT_CONVOLUTIONS = ("linear", "attention-mlp", "attention")
_DIRECT = MappingProxyType({
    "rank_dropout": ("adapter.rank_dropout", values.number),
    "module_dropout": ("adapter.module_dropout", values.number),
    "dropout": ("adapter.dropout", values.number),
    "dora_wd": ("adapter.weight_decompose", values.switch),
    "use_tucker": ("adapter.tucker", values.switch),
    "use_scalar": ("adapter.scalar", values.switch),
    "rs_lora": ("adapter.rank_stabilized", values.switch),
    "train_norm": ("adapter.norms", values.switch),
    "factor": ("adapter.lokr_factor", values.whole),
    "decompose_both": ("adapter.lokr_decompose_both", values.switch),
    "full_matrix": ("adapter.lokr_full_matrix", values.switch),
    "constraint": ("adapter.oft_constraint", values.number),
    "rescaled": ("adapter.oft_rescaled", values.switch),
    "unit": ("adapter.dylora_unit", values.whole),
    "block_size": ("adapter.dylora_unit", values.whole),
    "loraplus_lr_ratio": ("optimizer.lora_plus_ratio", values.number),
})  # fmt: skip
_TUCKER = ("use_cp", "use_conv_cp")  # older names, which count beside the new one
_LEFT = MappingProxyType({
    "bypass_mode": "Only how the delta is computed, not which; it needs no setting here.",
    "rank_dropout_scale": "Rank dropout is not scaled here; rank_dropout itself is kept.",
    "train_on_input": "ia3 trains the side that its layers need here.",
    "unbalanced_factorization": "LoKr's factors are always as even as the factor allows here.",
    "train_t5xxl": "There is no T5 in SD1, SD2 and SDXL.",
    "ggpo_sigma": "GGPO is not offered here.",
    "ggpo_beta": "GGPO is not offered here.",
    "key_dims": "Ranks by key are written as adapter.rules here.",
})  # fmt: skip
_PREFIX = "network_args."


def translate(arguments: Arguments) -> Iterator[Outcome]:
    """Yield what becomes of the arguments about the adapter."""
    module = arguments.get("network_module", Argument("", ""))
    lycoris = str(module.value).startswith("lycoris")
    yield from _lycoris(arguments, module) if lycoris else _native(arguments, module)
    if str(module.value).strip() == "networks.oft":
        yield from _oft(arguments)
    else:
        yield from one(arguments, "network_dim", "adapter.rank", values.whole, 4)
        yield from _alpha(arguments, lycoris)
    for name, (setting, convert) in _DIRECT.items():
        yield from one(arguments, _PREFIX + name, setting, convert)
    for name in _TUCKER:
        argument = arguments.get(_PREFIX + name)
        if argument is not None:
            off = values.is_off(argument.value)
            yield Silent(argument.key) if off else attempt(argument, "adapter.tucker", values.switch)
    yield from _dora_axis(arguments)
    yield from _lora_plus(arguments)
    yield from _parts(arguments)
    for name, reason in _LEFT.items():
        argument = arguments.get(_PREFIX + name)
        if argument is not None:
            off = values.is_off(argument.value)
            yield Silent(argument.key) if off else Leave(argument.key, argument.value, reason)
    yield from block_rules.translate(arguments)
    yield from _start(arguments)


def _native(arguments: Arguments, module: Argument) -> Iterator[Outcome]:
    name = str(module.value).strip()
    convolutions = not values.is_off(_value(arguments, "conv_dim"))
    if not module.key and "network_dim" not in arguments:
        text = "The file speaks of no adapter, as those for training whole checkpoints do. Choose its method and rank."
        yield Leave("network_module", None, text)
    if name and name not in _MODULES:
        yield Leave(
            module.key, module.value, "This kind of adapter is not offered here, or is for another family of models."
        )
    else:
        with_convolutions, without = _MODULES[name or "networks.lora"]
        yield Put(module.key, "adapter.method", with_convolutions if convolutions else without)
        if not convolutions and without not in ("lora", "oft"):
            # The others train every layer here unless told otherwise; there convolutions only with a rank of their own.
            yield Put("", "adapter.layers", "attention-mlp")
    if name == "networks.lora_fa":
        text = "LoRA-FA keeps half of each pair frozen; here both are trained, which needs a little more memory."
        yield Leave(module.key, module.value, text)
    if name == "networks.dylora" and _PREFIX + "unit" not in arguments:
        yield Put("", "adapter.dylora_unit", 1)
    if convolutions:
        yield from one(arguments, _PREFIX + "conv_dim", "adapter.conv_rank", values.whole)
        yield from one(arguments, _PREFIX + "conv_alpha", "adapter.conv_alpha", values.number, 1.0)
    else:
        unused = (arguments.get(_PREFIX + key) for key in ("conv_dim", "conv_alpha"))
        yield from (Silent(argument.key) for argument in unused if argument is not None)


def _oft(arguments: Arguments) -> Iterator[Outcome]:
    """Yield what networks.oft has of its own: dim is the number of blocks there, alpha the constraint."""
    rank = arguments.get("network_dim")
    if rank is not None:
        text = "It is the number of blocks there, and the size of the blocks here. Set adapter.rank."
        yield Leave(rank.key, rank.value, text)
    yield from one(arguments, "network_alpha", "adapter.oft_constraint", values.number, 1e-3)
    yield Put("", "adapter.text_encoder", False)
    layers = Put("", "adapter.layers", "attention")
    for name, meaning in (("enable_all_linear", "attention-mlp"), ("enable_conv", "auto")):
        argument = arguments.get(_PREFIX + name)
        if argument is not None and not values.is_off(argument.value):
            layers = Put(argument.key, "adapter.layers", meaning)
        elif argument is not None:
            yield Silent(argument.key)
    yield layers


def _lycoris(arguments: Arguments, module: Argument) -> Iterator[Outcome]:
    algorithm = arguments.get(_PREFIX + "algo", Argument("", "lora"))
    preset = arguments.get(_PREFIX + "preset", Argument("", "full"))
    chosen = attempt(algorithm, "adapter.method", values.choice(_ALGORITHMS))
    layers, text_encoder = _PRESETS.get(str(preset.value or "full"), ("", True))
    if isinstance(chosen, Put) and chosen.value == "ia3":
        layers = "auto"
    if isinstance(chosen, Put) and chosen.value == "locon" and layers in _WITHOUT_CONVOLUTIONS:
        chosen = Put(chosen.key, chosen.setting, "lora")
    yield chosen
    if module.key != algorithm.key:
        yield Put(module.key, "adapter.method", chosen.value) if isinstance(chosen, Put) else Silent(module.key)
    if not layers:
        text = "This preset is not known here. Choose adapter.layers, or write its exceptions as adapter.rules."
        yield Leave(preset.key, preset.value, text)
    else:
        yield Put(preset.key, "adapter.layers", layers)
    if not text_encoder:
        yield Put(preset.key, "adapter.text_encoder", False)
    # Without values of their own convolutions take the linear layers'.
    rank = arguments.get("network_dim", Argument("", 4))
    alpha = arguments.get("network_alpha", Argument("", 1.0))
    for name, setting, convert, common in (
        ("conv_dim", "adapter.conv_rank", values.whole, rank),
        ("conv_alpha", "adapter.conv_alpha", values.number, alpha),
    ):
        own = arguments.get(_PREFIX + name)
        if own is not None and not values.is_off(own.value):
            yield attempt(own, setting, convert)
        elif not values.is_off(common.value):
            yield attempt(Argument("", common.value), setting, convert)
        if own is not None and values.is_off(own.value):
            yield Silent(own.key)


def _alpha(arguments: Arguments, lycoris: bool) -> Iterator[Outcome]:
    """Yield the alpha, of which 0 means the rank."""
    argument = arguments.get("network_alpha")
    if argument is not None and values.is_off(argument.value) and not values.is_empty(argument.value):
        rank = arguments.get("network_dim", Argument("", 4))
        yield attempt(Argument(argument.key, rank.value), "adapter.alpha", values.number)
        if lycoris:
            yield attempt(Argument("", rank.value), "adapter.conv_alpha", values.number)
        return
    yield from one(arguments, "network_alpha", "adapter.alpha", values.number, 1.0)


def _dora_axis(arguments: Arguments) -> Iterator[Outcome]:
    """Yield a remark for DoRA with its norms over the outputs, LyCORIS's default since 3.2."""
    axis, dora = arguments.get(_PREFIX + "wd_on_output"), arguments.get(_PREFIX + "dora_wd")
    named = dora if axis is None else axis
    if dora is None or values.is_off(dora.value) or (axis is not None and values.is_off(axis.value)):
        yield from [Silent(axis.key)] if axis is not None else []
    elif named is not None:
        text = "DoRA has its norms over the inputs here, not the outputs, because the WebUI's loader reads no other."
        yield Leave(named.key, named.value, text)


def _lora_plus(arguments: Arguments) -> Iterator[Outcome]:
    """Yield the ratios by part; there is one for both here, and the UNet's is taken."""
    unet = arguments.get(_PREFIX + "loraplus_unet_lr_ratio")
    text = arguments.get(_PREFIX + "loraplus_text_encoder_lr_ratio")
    if unet is not None:
        off = values.is_off(unet.value)
        yield Silent(unet.key) if off else attempt(unet, "optimizer.lora_plus_ratio", values.number)
    if text is None:
        return
    if values.is_off(text.value):
        yield Silent(text.key)
    elif unet is not None and unet.value == text.value:
        yield attempt(text, "optimizer.lora_plus_ratio", values.number)
    else:
        yield Leave(text.key, text.value, "LoRA+ has one ratio for UNet and text encoder here.")


def _parts(arguments: Arguments) -> Iterator[Outcome]:
    for name, setting in (
        ("network_train_unet_only", "adapter.text_encoder"),
        ("network_train_text_encoder_only", "adapter.unet"),
    ):
        argument = arguments.get(name)
        if argument is not None:
            off = values.is_off(argument.value)
            yield Silent(argument.key) if off else Put(argument.key, setting, False)


def _start(arguments: Arguments) -> Iterator[Outcome]:
    yield from one(arguments, "network_weights", "adapter.start_from", values.text)
    sizes = arguments.get("dim_from_weights")
    if sizes is None:
        return
    if values.is_off(sizes.value):
        yield Silent(sizes.key)
    elif not values.is_off(arguments.get("network_weights", Argument("", "")).value):
        yield attempt(Argument(sizes.key, arguments["network_weights"].value), "adapter.start_from", values.text)
    else:
        text = (
            "Ranks are taken from a file only when training goes on from it. Set adapter.start_from, or adapter.rank."
        )
        yield Leave(sizes.key, sizes.value, text)


def _value(arguments: Arguments, name: str) -> object:
    argument = arguments.get(_PREFIX + name)
    return None if argument is None else argument.value
