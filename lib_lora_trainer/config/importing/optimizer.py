"""The optimizer, its arguments and its learning rates."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from types import MappingProxyType

from lib_lora_trainer.config.importing import values
from lib_lora_trainer.config.importing.outcomes import Argument, Arguments, Leave, Outcome, Put, Silent, attempt, one

# sd-scripts' names in lower case (library/train_util.py `get_optimizer` at 48d368f). Paged ones compute the same and
# differ in where their state lies.
_NAMES = MappingProxyType({
    "adamw": "adamw",
    "adamw8bit": "adamw8bit",
    "pagedadamw": "adamw",
    "pagedadamw32bit": "adamw",
    "pagedadamw8bit": "adamw8bit",
    "lion": "lion",
    "lion8bit": "lion8bit",
    "pagedlion8bit": "lion8bit",
    "adafactor": "adafactor",
    "prodigy": "prodigy",
    "dadaptation": "dadapt-adam",
    "dadaptadampreprint": "dadapt-adam",
    "dadaptadam": "dadapt-adam",
    "dadaptlion": "dadapt-lion",
    "adamwschedulefree": "schedulefree-adamw",
    "schedulefree.adamwschedulefree": "schedulefree-adamw",
    "prodigyopt.prodigy": "prodigy",
    "prodigyplus.prodigyplusschedulefree": "schedulefree-prodigy",
    "prodigyplus.prodigy_plus_schedulefree.prodigyplusschedulefree": "schedulefree-prodigy",
})  # fmt: skip
_CLASSES = MappingProxyType({
    "sgdnesterov": "torch.optim.SGD",
    "sgdnesterov8bit": "bitsandbytes.optim.SGD8bit",
    "dadaptadagrad": "dadaptation.DAdaptAdaGrad",
    "dadaptadan": "dadaptation.DAdaptAdan",
    "dadaptadanip": "dadaptation.experimental.DAdaptAdanIP",
    "dadaptsgd": "dadaptation.DAdaptSGD",
    "radamschedulefree": "schedulefree.RAdamScheduleFree",
    "sgdschedulefree": "schedulefree.SGDScheduleFree",
    "ademamix8bit": "bitsandbytes.optim.AdEMAMix8bit",
    "pagedademamix8bit": "bitsandbytes.optim.AdEMAMix8bit",
})  # fmt: skip
_NOT_HERE = MappingProxyType({
    "came": "CAME",
    "compass": "Compass",
    "lpfadamw": "LPFAdamW",
    "rmsprop": "its RMSProp",
})  # fmt: skip
# Settings of ours that differ from what the optimizer does there when nothing is said (prodigyopt 1.1.2, dadaptation
# 3.2, transformers' Adafactor with sd-scripts' relative_step = True).
_VALUES_THERE = MappingProxyType({"prodigy": {"weight_decay": 0.0, "d_coef": 1.0}})
_ARGUMENTS_THERE = MappingProxyType({
    "prodigy": {"use_bias_correction": "False", "safeguard_warmup": "False"},
    "dadapt-adam": {"decouple": "False"},
    "adafactor": {"relative_step": "True", "scale_parameter": "True"},
    "torch.optim.SGD": {"momentum": "0.9", "nesterov": "True"},
    "bitsandbytes.optim.SGD8bit": {"momentum": "0.9", "nesterov": "True"},
})  # fmt: skip
_FIELDS = MappingProxyType({
    "weight_decay": "weight_decay",
    "eps": "epsilon",
    "d0": "d0",
    "d_coef": "d_coefficient",
    "growth_rate": "growth_rate",
})  # fmt: skip
_PREFIX = "optimizer_args."


def translate(arguments: Arguments) -> Iterator[Outcome]:
    """Yield what becomes of the optimizer, its arguments, the learning rates and the gradient clip."""
    kind = yield from _name(arguments)
    yield from _arguments(arguments, kind)
    yield from _rates(arguments)
    yield from one(arguments, "max_grad_norm", "optimizer.gradient_clip", values.number)


def _name(arguments: Arguments) -> Generator[Outcome, None, str]:
    """Yield the optimizer, and return its name here or, for others, its class."""
    old = {"use_8bit_adam": "AdamW8bit", "use_lion_optimizer": "Lion"}
    chosen = arguments.get("optimizer_type", Argument("", ""))
    for name, meaning in old.items():
        argument = arguments.get(name)
        if argument is not None and values.is_off(argument.value):
            yield Silent(argument.key)
        elif argument is not None:
            chosen = Argument(argument.key, meaning)
    written = str(chosen.value or "AdamW").strip()
    word = written.lower()
    if word in _NAMES:
        yield Put(chosen.key, "optimizer.name", _NAMES[word])
        if word in ("dadaptation", "dadaptadampreprint"):
            text = "The preprint's D-Adaptation is not offered here; dadapt-adam is its published form."
            yield Leave(chosen.key, chosen.value, text)
        return _NAMES[word]
    last = word.rpartition(".")[2]
    if last in _NOT_HERE and ("." not in word or word.startswith("loraeasycustomoptimizer.")):
        text = f"{_NOT_HERE[last]} is part of the other trainer. Choose another optimizer, or its class as custom."
        yield Leave(chosen.key, chosen.value, f"{text} adamw is set.")
        return "adamw"
    path = _CLASSES.get(word, written if "." in written else f"torch.optim.{written}")
    yield Put(chosen.key, "optimizer.name", "custom")
    yield Put(chosen.key, "optimizer.custom_class", path)
    return path


def _arguments(arguments: Arguments, kind: str) -> Iterator[Outcome]:
    given = {name.removeprefix(_PREFIX): argument for name, argument in arguments.items() if name.startswith(_PREFIX)}
    lines: list[str] = []
    keys: list[str] = []
    for name, argument in given.items():
        if name in _FIELDS:
            yield attempt(argument, f"optimizer.{_FIELDS[name]}", values.number)
        elif name == "betas":
            yield from _betas(argument, lines, keys)
        else:
            lines.append(f"{name}={argument.value}")
            keys.append(argument.key)
    for name, value in _VALUES_THERE.get(kind, {}).items():
        if name not in given:
            yield Put("", f"optimizer.{_FIELDS[name]}", value)
    # warmup_init makes sd-scripts switch relative_step on.
    forced = kind == "adafactor" and not values.is_off(given.get("warmup_init", Argument("", False)).value)
    if forced and "relative_step" in given:
        lines = ["relative_step=True" if line.startswith("relative_step=") else line for line in lines]
    lines += [f"{name}={value}" for name, value in _ARGUMENTS_THERE.get(kind, {}).items() if name not in given]
    if lines:
        yield from (Put(key, "optimizer.arguments", tuple(lines)) for key in keys or [""])
    whole = arguments.get("optimizer_args")
    if whole is not None:
        yield Silent(whole.key)


def _betas(argument: Argument, lines: list[str], keys: list[str]) -> Iterator[Outcome]:
    try:
        betas = values.numbers(argument.value)
    except ValueError as error:
        yield Leave(argument.key, argument.value, f"{error}.")
        return
    if len(betas) == 2:
        yield Put(argument.key, "optimizer.beta1", betas[0])
        yield Put(argument.key, "optimizer.beta2", betas[1])
    else:
        lines.append(f"betas={','.join(f'{beta:g}' for beta in betas)}")
        keys.append(argument.key)


def _rates(arguments: Arguments) -> Iterator[Outcome]:
    """Yield the learning rates by part: its own, else the common one; 0 leaves the part out, as in sd-scripts."""
    common = arguments.get("learning_rate")
    if common is None or values.is_empty(common.value):
        if common is not None:
            yield Silent(common.key)
        common = Argument("", 2e-6)
    used = False
    for name, part in (("unet_lr", "unet"), ("text_encoder_lr", "text_encoder")):
        setting = f"optimizer.{'unet' if part == 'unet' else 'text'}_learning_rate"
        own = arguments.get(name)
        if own is not None and values.is_empty(own.value):
            yield Silent(own.key)
        if own is None or values.is_empty(own.value):
            used = True
            yield attempt(common, setting, values.number)
            continue
        try:
            rates = values.numbers(own.value)
        except ValueError as error:
            yield Leave(own.key, own.value, f"{error}.")
            continue
        if rates[0] == 0:
            yield Put(own.key, f"adapter.{part}", False)
            continue
        yield Put(own.key, setting, rates[0])
        if len(set(rates)) > 1:
            text = "There is one learning rate for all text encoders here; the first is taken."
            yield Leave(own.key, own.value, text)
    if not used and common.key:
        yield Silent(common.key)
