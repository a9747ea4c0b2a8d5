"""Length of the run, caches and whatever is put together from several arguments."""

from __future__ import annotations

import math
from collections.abc import Iterator

from lib_lora_trainer.config.importing import values
from lib_lora_trainer.config.importing.outcomes import Argument, Arguments, Leave, Outcome, Put, Silent, attempt, one

_USUAL_STEPS = 1600
_MOST_EPOCHS = 100_000


def translate(arguments: Arguments) -> Iterator[Outcome]:
    """Yield the length, the text encoder's arguments, caches, compilation, logs and how many files are kept."""
    yield from _length(arguments)
    yield from _optional(arguments, "clip_skip", "training.clip_skip", 1)
    yield from _optional(arguments, "max_token_length", "training.token_limit", 75)
    yield from _cache(arguments, "cache_latents", "data.cache", True)
    yield from _cache(arguments, "cache_text_encoder_outputs", "data.cache_text", False)
    yield from _eight_bits(arguments)
    yield from _compiled(arguments)
    yield from _kept(arguments)
    yield from _logs(arguments)


def _length(arguments: Arguments) -> Iterator[Outcome]:
    """Yield epochs, or steps: an epoch has one step at least, so as many epochs as steps never end a run early."""
    epochs, steps = arguments.get("max_train_epochs"), arguments.get("max_train_steps")
    if epochs is not None and not values.is_off(epochs.value):
        yield attempt(epochs, "training.epochs", values.whole)
        if steps is not None:
            yield Silent(steps.key)  # there, too, the epochs overrule them
        return
    if epochs is not None:
        yield Silent(epochs.key)
    if steps is None or values.is_off(steps.value):
        yield from [Silent(steps.key)] if steps is not None else []
        steps = Argument("", _USUAL_STEPS)
    found = attempt(steps, "training.max_steps", values.whole)
    yield found
    if isinstance(found, Put):
        yield Put("", "training.epochs", max(1, min(found.value, _MOST_EPOCHS)))


def _optional(arguments: Arguments, name: str, setting: str, default: int) -> Iterator[Outcome]:
    """Yield a number of which 0 means the default, too."""
    argument = arguments.get(name)
    if argument is not None and values.is_off(argument.value):
        yield Silent(argument.key)
        yield Put("", setting, default)
    else:
        yield from one(arguments, name, setting, values.whole, default)


def _cache(arguments: Arguments, name: str, setting: str, shapes_nothing: bool) -> Iterator[Outcome]:
    """Yield where something is cached. The latents' cache is left as it is here when nothing there forbids it."""
    plain, disk = arguments.get(name), arguments.get(f"{name}_to_disk")
    on_disk = disk is not None and not values.is_off(disk.value)
    in_memory = plain is not None and not values.is_off(plain.value)
    found = "disk" if on_disk else "memory" if in_memory else "none"
    for argument in (plain, disk):
        if argument is not None:
            off = values.is_off(argument.value)
            yield Silent(argument.key) if off and found != "none" else Put(argument.key, setting, found)
    if plain is None and disk is None and shapes_nothing:
        varied = any(
            not values.is_off(arguments[key].value) for key in ("color_aug", "random_crop") if key in arguments
        )
        if varied or "face_crop_aug_range" in arguments:
            yield Put("", setting, "none")


def _eight_bits(arguments: Arguments) -> Iterator[Outcome]:
    for name in ("fp8_base", "fp8_base_unet"):
        argument = arguments.get(name)
        if argument is not None:
            off = values.is_off(argument.value)
            yield Silent(argument.key) if off else attempt(argument, "training.fp8_base", values.switch)


def _compiled(arguments: Arguments) -> Iterator[Outcome]:
    """Yield compilation; a backend alone, which the GUI of kohya_ss hands to accelerate, switches it on as well."""
    wish, backend = arguments.get("torch_compile"), arguments.get("dynamo_backend")
    if wish is not None:
        off = values.is_off(wish.value)
        yield Silent(wish.key) if off else attempt(wish, "training.compile", values.switch)
    if backend is None:
        return
    word = str(backend.value or "no").lower()
    if word == "no" or (wish is not None and values.is_off(wish.value)) or (wish is None and word == "inductor"):
        yield Silent(backend.key)  # inductor is what sd-scripts writes without being asked
        return
    yield Put(backend.key, "training.compile", True)
    if word != "inductor":
        yield Leave(backend.key, backend.value, "torch.compile always uses inductor here.")


def _kept(arguments: Arguments) -> Iterator[Outcome]:
    """Yield how many files are kept: there a number of saves by epoch, or the saves of a number of steps."""
    epochs, steps = arguments.get("save_last_n_epochs"), arguments.get("save_last_n_steps")
    by_epochs = epochs is not None and not values.is_off(epochs.value)
    if epochs is not None:
        yield attempt(epochs, "save.keep_last", values.whole) if by_epochs else Silent(epochs.key)
    if steps is not None and values.is_off(steps.value):
        yield Silent(steps.key)
    elif steps is not None and by_epochs:
        yield Leave(steps.key, steps.value, "One number counts for all files here, the one by epochs is taken.")
    elif steps is not None:
        every = arguments.get("save_every_n_steps", Argument("", 0)).value
        try:
            yield Put(steps.key, "save.keep_last", values.whole(steps.value) // values.whole(every) + 1)
        except (ValueError, ZeroDivisionError):
            yield Leave(steps.key, steps.value, "It needs save_every_n_steps. Set save.keep_last.")
    yield from _ratio(arguments)


def _ratio(arguments: Arguments) -> Iterator[Outcome]:
    argument = arguments.get("save_n_epoch_ratio")
    if argument is None:
        return
    if values.is_off(argument.value):
        yield Silent(argument.key)
        return
    epochs = arguments.get("max_train_epochs", Argument("", 0)).value
    try:
        every = math.floor(values.number(epochs) / values.number(argument.value)) or 1
    except ValueError as error:
        yield Leave(argument.key, argument.value, f"{error}.")
        return
    if values.is_off(epochs):
        text = "How many epochs there are is not known before the pictures are counted. Set save.every_epochs."
        yield Leave(argument.key, argument.value, text)
    else:
        yield Put(argument.key, "save.every_epochs", every)


def _logs(arguments: Arguments) -> Iterator[Outcome]:
    """Yield TensorBoard, which sd-scripts writes when there is a folder for logs and nothing else is wished."""
    kind, place = arguments.get("log_with"), arguments.get("logging_dir")
    word = "" if kind is None else str(kind.value or "").lower()
    wished = word in ("tensorboard", "all") or (not word and place is not None and not values.is_off(place.value))
    for argument in (kind, place):
        if argument is not None and values.is_off(argument.value):
            yield Silent(argument.key)
        elif argument is not None and wished:
            yield Put(argument.key, "save.tensorboard", True)
    if word not in ("", "tensorboard") and kind is not None:
        yield Leave(kind.key, kind.value, "Logs are written for TensorBoard alone here.")
    if place is not None and not values.is_off(place.value):
        yield Leave(place.key, place.value, "Logs lie in the run's own folder here.")
