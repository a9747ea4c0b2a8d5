"""Sample images: the prompts in a file or a text, with their flags, and how often they are made."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lib_lora_trainer.config.importing import values
from lib_lora_trainer.config.importing.folders import located
from lib_lora_trainer.config.importing.outcomes import Argument, Arguments, Leave, Outcome, Put, Silent, attempt, one

# sd-scripts' samplers by the WebUI's names.
_SAMPLERS = MappingProxyType({
    "ddim": "DDIM",
    "lms": "LMS",
    "k_lms": "LMS",
    "euler": "Euler",
    "k_euler": "Euler",
    "euler_a": "Euler a",
    "k_euler_a": "Euler a",
    "heun": "Heun",
    "dpm_2": "DPM2",
    "k_dpm_2": "DPM2",
    "dpm_2_a": "DPM2 a",
    "k_dpm_2_a": "DPM2 a",
    "dpmsolver": "DPM++ 2M",
    "dpmsolver++": "DPM++ 2M",
    "dpmsingle": "DPM++ 2S a",
})  # fmt: skip
# Flag of a prompt's line, and its name in TOML and JSON files → setting here.
_FLAGS = MappingProxyType({
    "n": "negative_prompt",
    "w": "width",
    "h": "height",
    "d": "seed",
    "s": "sample_steps",
    "l": "scale",
    "ss": "sample_sampler",
})  # fmt: skip
_SETTINGS = MappingProxyType({
    "negative_prompt": ("samples.negative", values.text, ""),
    "width": ("samples.width", values.whole, 512),
    "height": ("samples.height", values.whole, 512),
    "seed": ("samples.seed", values.whole, None),
    "sample_steps": ("samples.steps", values.whole, 30),
    "scale": ("samples.guidance", values.number, 7.5),
    "sample_sampler": ("samples.sampler", values.choice(_SAMPLERS), None),
})  # fmt: skip
_FLAG = re.compile(r" --(?=[a-z]+ )", re.IGNORECASE)

Prompt = Mapping[str, Any]


def files(arguments: Arguments, folder: Path) -> tuple[Path, ...]:
    """Return the file of prompts if there is one that can be read."""
    place = _file(arguments, folder)
    try:
        return (place,) if place is not None and _read(place) else ()
    except (OSError, ValueError):
        return ()


def _file(arguments: Arguments, folder: Path) -> Path | None:
    """Return the file that sample_prompts names; None when it holds prompts, or nothing."""
    source = arguments.get("sample_prompts")
    text = "" if source is None or values.is_empty(source.value) else str(source.value)
    place = located(text, folder)
    return place if "\n" not in text and place.suffix.lower() in (".txt", ".toml", ".json") else None


def translate(arguments: Arguments, folder: Path) -> Iterator[Outcome]:
    """Yield what becomes of the sample images; folder: of the file, for the path of the prompts."""
    yield from one(arguments, "sample_every_n_epochs", "samples.every_epochs", values.whole)
    yield from one(arguments, "sample_every_n_steps", "samples.every_steps", values.whole)
    yield from one(arguments, "sample_at_first", "samples.at_start", values.switch)
    yield from one(arguments, "sample_sampler", "samples.sampler", values.choice(_SAMPLERS))
    yield from _intervals(arguments)
    source = arguments.get("sample_prompts")
    if source is None or values.is_empty(source.value):
        yield from [Silent(source.key)] if source is not None else []
        return
    prompts: Sequence[Prompt]
    text = str(source.value)
    place = _file(arguments, folder)
    if place is not None:
        try:
            prompts = _read(place)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            yield Leave(source.key, text, f"{place} cannot be read: {reason}. Enter the prompts as samples.prompts.")
            return
    else:
        prompts = [_of_line(line.strip()) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    yield Put(source.key, "samples.prompts", tuple(str(prompt.get("prompt", "")) for prompt in prompts))
    yield from _flags(source, prompts)


def _intervals(arguments: Arguments) -> Iterator[Outcome]:
    """Yield 0 for the interval that is not given while the other is: samples are then made by that alone."""
    steps, epochs = (arguments.get(f"sample_every_n_{unit}") for unit in ("steps", "epochs"))
    if steps is not None and not values.is_off(steps.value) and epochs is None:
        yield Put("", "samples.every_epochs", 0)


def _read(place: Path) -> list[Prompt]:
    """Return the prompts of a file. Raises OSError, or ValueError with what is wrong in it."""
    text = place.read_text(encoding="utf-8-sig")
    if place.suffix.lower() == ".txt":
        return [_of_line(line.strip()) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if place.suffix.lower() == ".json":
        found = json.loads(text)
    else:
        import tomlkit
        from tomlkit.exceptions import TOMLKitError

        try:
            table = tomlkit.parse(text).unwrap().get("prompt", {})
        except TOMLKitError as error:
            raise ValueError(str(error)) from error
        found = [{**table, **subset} for subset in table.get("subset", [])]
    if not isinstance(found, list):
        raise ValueError("it is no list of prompts")
    return [_of_line(item) if isinstance(item, str) else _without(item) for item in found]


def _without(item: Any) -> Prompt:
    if not isinstance(item, dict):
        raise ValueError(f"{item!r} is no prompt")
    return {name: value for name, value in item.items() if name not in ("subset", "enum")}


def _of_line(line: str) -> Prompt:
    """Return the prompt and the flags of a line: `1girl, smile --n blurry --w 512 --d 1`."""
    prompt, *flags = _FLAG.split(line)
    found: dict[str, Any] = {"prompt": prompt.strip()}
    for flag in flags:
        name, _, value = flag.partition(" ")
        found[_FLAGS.get(name.lower(), f"--{name}")] = value.strip()
    return found


def _flags(source: Argument, prompts: Sequence[Prompt]) -> Iterator[Outcome]:
    """Yield the flags that all prompts have in common as settings, and a sentence for those that differ."""
    for name in dict.fromkeys(name for prompt in prompts for name in prompt if name != "prompt"):
        if name not in _SETTINGS:
            yield Leave(source.key, name, f"{name} is not known for sample images here.")
            continue
        setting, convert, default = _SETTINGS[name]
        given = [prompt.get(name, default) for prompt in prompts]
        first = next(value for value in given if value is not None)
        steady = [str(value) for value in given] == [str(first)] * len(given)
        counting = name == "seed" and _counts_up(given)
        yield attempt(Argument(source.key, first), setting, convert)
        if not (steady and name != "seed") and not counting:
            text = f"{setting} is one value for all prompts here; the first prompt's is taken."
            if name == "seed":
                text = "Seeds count up from the first prompt's here."
            yield Leave(source.key, f"{name}: {', '.join(str(value) for value in given)}", text)


def _counts_up(seeds: Sequence[Any]) -> bool:
    try:
        numbers = [values.whole(seed) for seed in seeds]
    except ValueError:
        return False
    return numbers == [numbers[0] + index for index in range(len(numbers))]
