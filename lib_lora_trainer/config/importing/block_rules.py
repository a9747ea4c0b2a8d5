"""Learning rates, ranks and alphas by block, as lines of adapter.rules."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

from lib_lora_trainer.config.importing import values
from lib_lora_trainer.config.importing.outcomes import Argument, Arguments, Leave, Outcome, Put, Silent

_RATES = ("down_lr_weight", "mid_lr_weight", "up_lr_weight")
_SIZES = {
    "block_dims": "rank",
    "block_alphas": "alpha",
    "conv_block_dims": "conv_rank",
    "conv_block_alphas": "conv_alpha",
}
_THRESHOLD = "block_lr_zero_threshold"
_NAMES = (*_RATES, *_SIZES, _THRESHOLD)
_SHAPES = ("cosine", "sine", "linear", "reverse_linear", "zeros")
_PREFIX = "network_args."


def translate(arguments: Arguments) -> Iterator[Outcome]:
    """Yield the arguments about blocks as one value of adapter.rules.

    Sources: networks/lora.py of sd-scripts at 48d368f: `get_block_lr_weight` (missing factors are 1, those up to the
    threshold are 0) and `get_block_dims_and_alphas` (25 numbers for SD1 and SD2; 23 for SDXL, of which the first and
    the last stand for layers without adapter and the middle has three).
    """
    given = {name: arguments[_PREFIX + name] for name in _NAMES if _PREFIX + name in arguments}
    yield from (Silent(argument.key) for argument in given.values() if values.is_empty(argument.value))
    given = {name: argument for name, argument in given.items() if not values.is_empty(argument.value)}
    options: dict[str, dict[str, str]] = {}
    used: list[str] = []
    for name, argument in given.items():
        if name == _THRESHOLD:
            continue
        try:
            found = _rates(name, given, _is_sdxl(arguments)) if name in _RATES else _sizes(name, argument)
        except ValueError as error:
            yield Leave(argument.key, argument.value, f"{error}. Write the blocks as adapter.rules.")
            continue
        used.append(argument.key)
        for block, option in found.items():
            options.setdefault(block, {})[name] = option
    rules = tuple(_lines(options))
    yield from (Put(key, "adapter.rules", rules) for key in used)
    if _THRESHOLD in given:
        key = given[_THRESHOLD].key
        yield Put(key, "adapter.rules", rules) if used else Silent(key)


def _is_sdxl(arguments: Arguments) -> bool | None:
    argument = arguments.get("sdxl")
    return None if argument is None else not values.is_off(argument.value)


def _rates(name: str, given: dict[str, Argument], sdxl: bool | None) -> dict[str, str]:
    threshold = values.number(given[_THRESHOLD].value) if _THRESHOLD in given else 0.0
    word = {"down_lr_weight": "IN", "up_lr_weight": "OUT", "mid_lr_weight": "MID"}[name]
    raw = given[name].value
    shape = str(raw).split("+")[0]
    if shape in _SHAPES and word != "MID":
        if sdxl is None:
            raise ValueError(f"how many blocks {raw!r} stands for depends on the model, which the file does not name")
        factors = _shaped(str(raw), 9 if sdxl else 12)
    else:
        factors = list(values.numbers([part or 0 for part in raw.split(",")] if isinstance(raw, str) else raw))
    if word == "MID":
        if len(set(factors)) > 1:
            raise ValueError("the middle block has one learning rate here")
        return {"MID": _rate(factors[0], threshold)}
    return {f"{word}{index:02d}": _rate(factor, threshold) for index, factor in enumerate(factors)}


def _rate(factor: float, threshold: float) -> str:
    return "off" if factor <= threshold else "" if factor == 1 else f"lr={factor:g}"


def _shaped(text: str, count: int) -> list[float]:
    shape, _, base = text.partition("+")
    lowest = values.number(base) if base else 0.0
    rising = [index / (count - 1) for index in range(count)]
    curves = {
        "linear": rising,
        "reverse_linear": rising[::-1],
        "sine": [math.sin(math.pi * place / 2) for place in rising],
        "cosine": [math.sin(math.pi * place / 2) for place in reversed(rising)],
        "zeros": [0.0] * count,
    }
    return [round(factor + lowest, 6) for factor in curves[shape]]


def _sizes(name: str, argument: Argument) -> dict[str, str]:
    numbers = values.numbers(argument.value)
    if len(numbers) == 23:
        middle = numbers[10:13]
        if len(set(middle)) > 1:
            raise ValueError("the middle block has one rank and one alpha here")
        ins, mid, outs = numbers[1:10], middle[0], numbers[13:22]
    elif len(numbers) == 25:
        ins, mid, outs = numbers[:12], numbers[12], numbers[13:]
    else:
        raise ValueError(f"{len(numbers)} numbers are neither the 25 blocks of SD1 nor the 23 of SDXL")
    return {block: _size(name, number) for block, number in zip(_blocks(len(ins)), (*ins, mid, *outs), strict=True)}


def _size(name: str, number: float) -> str:
    if number == 0:
        return "off" if name == "block_dims" else ""
    return f"{_SIZES[name]}={number:g}"


def _blocks(count: int) -> tuple[str, ...]:
    ins, outs = ([f"{word}{index:02d}" for index in range(count)] for word in ("IN", "OUT"))
    return (*ins, "MID", *outs)


def _lines(options: dict[str, dict[str, str]]) -> Iterator[str]:
    """Yield one rule for each run of neighbouring blocks with equal options."""
    described = [(block, _described(options.get(block, {}))) for block in _blocks(12)]
    for text, group in groupby(described, key=lambda pair: (pair[1], pair[0][:2])):
        if text[0]:
            yield f"{_range([block for block, _ in group])}: {text[0]}"


def _described(found: dict[str, str]) -> str:
    given = [found[name] for name in (*_SIZES, *_RATES) if found.get(name)]
    return "off" if "off" in given else " ".join(given)


def _range(blocks: Sequence[str]) -> str:
    return blocks[0] if len(blocks) == 1 else f"{blocks[0]}-{blocks[-1].lstrip('INOUT')}"
