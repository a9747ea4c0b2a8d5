"""What method, optimizer, length, arithmetic and files of a run contradict.

A rule that other trainers need is missing on purpose: training in half precision throughout ("full fp16", "full bf16"),
which learns nothing at usual learning rates (G4 guide). No setting asks for it: `training.precision` and
`training.fp8_base` are about the frozen model, adapters and optimizer are fp32 always.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator

from lib_lora_trainer.base.errors import ConfigError, Problem
from lib_lora_trainer.base.files import check_name
from lib_lora_trainer.config.optimizer import OptimizerConfig
from lib_lora_trainer.plan.case import Case, named, times_seen

# Images seen of one character: images × repeats × epochs, whatever the batch. With the optimizers of the G3 guide half
# of it on SDXL, and 3/5 with min-SNR and ip-noise together. Its 1/3 for old screencaps is left to the user: nothing
# here knows how old a picture is. D-Adaptation's is that of the G4 guide, the same on SD1 and SDXL.
_BUDGET = 6000
_PRODIGY_BUDGET = 3000
_PRODIGY = ("prodigy", "schedulefree-prodigy")
_DADAPT = ("dadapt-adam", "dadapt-lion")
# G4: with 23 pictures 64/32 broke when images were enlarged, 64/16 did not.
_FEW_PICTURES = 30
_HIGH_ALPHA = 32
_SCALED = ("lora", "locon", "loha", "lokr", "dylora", "glora")
_COMPILERS = ("cc", "gcc", "g++", "c++", "clang", "clang++", "cl", "icx")


def name(case: Case) -> Iterator[Problem]:
    """A name that no file or no prompt can have."""
    try:
        check_name(case.config.name, "name")
    except ConfigError as error:
        yield Problem("error", "name", str(error).removeprefix("name: "))
    if any(character in case.config.name for character in ":<>,"):
        text = f"{case.config.name!r} cannot be written in a prompt."
        yield Problem("error", "name", text, "Leave out : < > and commas.")


def parts(case: Case) -> Iterator[Problem]:
    """Nothing to train, a text encoder that cannot be, and learning rates of 0."""
    adapter, optimizer = case.config.adapter, case.config.optimizer
    if not adapter.start_from:
        if not adapter.unet and not adapter.text_encoder:
            text = "Neither the UNet nor the text encoder is trained."
            yield Problem("error", "adapter.unet", text, "Switch one on.")
        if adapter.text_encoder and not case.info.text_encoders:
            text = f"the text encoder of {case.info.title} cannot be trained in {case.info.host}."
            yield Problem("error", "adapter.text_encoder", text, "Switch it off and train the UNet alone.")
    rates = (
        ("optimizer.unet_learning_rate", "unet" in case.parts, optimizer.unet_learning_rate),
        ("optimizer.text_learning_rate", case.trains_text, optimizer.text_learning_rate),
    )
    for where, trained, rate in rates:
        if trained and rate == 0:
            yield Problem("error", where, "is 0, so this part learns nothing.", "Raise it, or do not train the part.")
    until = case.config.training.text_encoder_until
    where = "training.text_encoder_until"
    if until < 1 and not case.trains_text:
        yield Problem("note", where, "has no effect: no text encoder is trained.")
    elif until == 0:
        text = "is 0, so the text encoder's part of the file learns nothing."
        yield Problem("warning", where, text, "Raise it, or do not train the text encoder.")


def alpha(case: Case) -> Iterator[Problem]:
    """A scale above 1, and a high alpha for few pictures."""
    adapter = case.config.adapter
    if adapter.method not in _SCALED or adapter.start_from:
        return
    # rs-LoRA's scale, alpha / √rank, is above 1 by design.
    convolutions = adapter.method != "lora" or adapter.layers == "all"
    pairs = (
        ("adapter.alpha", adapter.alpha, adapter.rank, True),
        ("adapter.conv_alpha", adapter.conv_alpha, adapter.conv_rank, convolutions),
    )
    for where, scale, rank, used in pairs:
        if used and scale > rank and not adapter.rank_stabilized:
            text = f"{scale:g} is larger than the rank, {rank}, which acts like a higher learning rate."
            yield Problem("warning", where, text, "Use the rank or half of it.")
    count = len(case.pictures)
    if 0 < count <= _FEW_PICTURES and adapter.alpha >= _HIGH_ALPHA:
        text = f"{adapter.alpha:g} is much for {count} pictures: images may break when they are enlarged."
        yield Problem("warning", "adapter.alpha", text, f"Use {_HIGH_ALPHA // 2} or less, or more pictures.")


def budget(case: Case) -> Iterator[Problem]:
    """More exposures of one concept than a character needs."""
    concepts = [concept for concept in case.scan.concepts if not concept.regularization]
    if not concepts:
        return
    largest = max(concepts, key=lambda concept: concept.exposures)
    seen = times_seen(largest, case.scan.concepts, case.images, case.config.data.balance_regularization)
    limit, conditions = _budget(case.config.optimizer, case)
    if seen > limit:
        text = f"{largest.name} is seen {seen} times in all; characters {conditions} rarely need more than {limit}."
        fix = "Lower the epochs or the repeats, or keep them for situations, objects and many concepts."
        yield Problem("warning", "training.epochs", text, fix)


def _budget(optimizer: OptimizerConfig, case: Case) -> tuple[int, str]:
    """Return the budget and the words that say for what."""
    if optimizer.name in _DADAPT:
        return _BUDGET, f"with {optimizer.name}"
    limit = _PRODIGY_BUDGET if optimizer.name in _PRODIGY else _BUDGET
    conditions = [optimizer.name]
    if case.config.loss.min_snr_gamma and case.config.noise.input_perturbation:
        limit, conditions = limit * 3 // 5, [*conditions, "min-SNR", "ip-noise"]
    on = ""
    if case.info.family == "sdxl":
        limit, on = limit // 2, " on SDXL"
    return limit, f"with {named(conditions)}{on}"


def length(case: Case) -> Iterator[Problem]:
    """A step limit that is far away, and a warm-up that outlasts the run."""
    training = case.config.training
    if case.steps and training.max_steps > 2 * case.steps:
        text = f"{training.max_steps} are not reached: {training.epochs} epochs end after {case.steps} steps."
        yield Problem("note", "training.max_steps", text, "Raise the epochs or the repeats if you want them.")
    warmup = case.config.optimizer.warmup
    if case.steps and warmup > case.steps:
        text = f"lasts {warmup:g} steps, longer than the run's {case.steps}: the learning rate is never reached."
        yield Problem("warning", "optimizer.warmup", text, "Lower it; below 1 it is a share of the run.")


def arithmetic(case: Case) -> Iterator[Problem]:
    """Number formats and compilation that the device does not have."""
    training, device = case.config.training, case.info.device
    if training.precision == "fp16" and device == "cpu":
        yield Problem("error", "training.precision", "fp16 cannot be trained on a CPU.", "Use fp32 or bf16.")
    if training.fp8_base and device == "cpu":
        text = "saves no memory on a CPU, where the weights stay as they are beside the 8-bit ones."
        yield Problem("note", "training.fp8_base", text)
    if training.compile:
        yield from _compilation(device)


def _compilation(device: str) -> Iterator[Problem]:
    where, off = "training.compile", "Switch it off, or install one."
    if device.startswith("cuda") and importlib.util.find_spec("triton") is None:
        text = "needs Triton, which is not installed."
        fix = "Switch it off."
        if sys.platform == "win32":
            text = "needs Triton, which is not installed; torch for Windows comes without it."
            fix = "Switch it off, or install triton-windows."
        yield Problem("error", where, text, fix)
        return
    if sys.platform == "win32" and device.startswith("cuda"):
        return  # triton-windows brings its compiler
    own = [os.environ.get(variable) for variable in ("CC", "CXX")]
    if not any(shutil.which(command) for command in (*filter(None, own), *_COMPILERS)):
        text = (
            "needs a C++ compiler, and none is found in the folders of PATH; the run will stop before its first step."
        )
        yield Problem("warning", where, text, off)


def model(case: Case) -> Iterator[Problem]:
    """A model other than the planned one, or settings that do not fit it."""
    info, config = case.info, case.config
    if config.base_model and config.base_model not in (info.sha256, info.sha256[:10], info.name, info.title):
        text = f"the run was planned on {config.base_model} and {info.title} is loaded."
        yield Problem("warning", "base_model", text, "Load the planned checkpoint, or plan anew.")
    skip = config.training.clip_skip
    if info.family != "sd1" and skip != 1:
        yield Problem("note", "training.clip_skip", f"has no effect: {info.family} has one layer to read.")
    elif info.family == "sd1" and info.clip_skip != skip:
        text = f"the run uses clip skip {skip}, {info.host} is set to {info.clip_skip}; "
        yield Problem("note", "training.clip_skip", f"{text}generate with the one you train with.")
    yield from _noise_schedule(case)


def _noise_schedule(case: Case) -> Iterator[Problem]:
    """Tell when the schedule of the noise is set to another one than the checkpoint's.

    What the setting means for a model that predicts noise: `diffusion.combinations`.
    """
    setting, trained = case.config.noise.zero_terminal_snr, case.info.zero_terminal_snr
    where = "noise.zero_terminal_snr"
    if setting == "off" and trained:
        text = f"is off, but {case.info.title} was trained with it, so the adapter learns on another schedule."
        yield Problem("warning", where, text, "Set it to auto.")
    if setting == "on" and not trained and case.info.prediction == "v":
        text = f"is on, but {case.info.title} does not say that it was trained with it."
        yield Problem("warning", where, text, "Set it to auto, unless you know that the checkpoint has it.")


def files(case: Case) -> Iterator[Problem]:
    """Saves and samples that never come."""
    save, samples, epochs = case.config.save, case.config.samples, case.config.training.epochs
    if save.keep_last and not save.every_epochs and not save.every_steps:
        text = "has no effect: nothing is saved before the end."
        yield Problem("note", "save.keep_last", text)
    elif save.every_epochs > epochs:
        yield Problem("note", "save.every_epochs", f"has no effect: the run has {epochs} epochs.")
    never = not samples.every_epochs and not samples.every_steps and not samples.at_start
    if samples.prompts and never:
        text = "no sample is made: neither before the start, nor after epochs, nor after steps."
        yield Problem("note", "samples.prompts", text)
