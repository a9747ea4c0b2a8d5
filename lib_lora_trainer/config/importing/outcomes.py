"""What becomes of each key of a foreign file: a setting here, a sentence why not, or nothing as it says nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from lib_lora_trainer.base.setting import range_problems
from lib_lora_trainer.config.data import SourceConfig
from lib_lora_trainer.config.importing import values
from lib_lora_trainer.config.paths import put
from lib_lora_trainer.config.run import RunConfig

_SOURCE = re.compile(r"data\.sources\[([0-9]+)\]\.(\w+)")
_SECRET = re.compile(r"_(token|key)$")


@dataclass(frozen=True)
class Argument:
    """One value of a foreign file. key: where it stands there, as the user finds it."""

    key: str
    value: Any


Arguments = Mapping[str, Argument]
"""Arguments by the name that sd-scripts gives them; `network_args.conv_dim` and the like for those within lists."""


@dataclass(frozen=True)
class Put:
    """A setting gets a value. key: "" when no key says it and the other trainer's own default does."""

    key: str
    setting: str
    value: Any


@dataclass(frozen=True)
class Leave:
    """A key that changes nothing here, or not all it should; reason: a sentence, with the next step if there is one."""

    key: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Silent:
    """A key whose value means `off` or `default` in the other trainer."""

    key: str


@dataclass(frozen=True)
class Inside:
    """A key that names a file whose keys have outcomes of their own; setting: where they begin."""

    key: str
    setting: str


Outcome = Put | Leave | Silent | Inside


class Mapped(NamedTuple):
    """A key of the file and the setting it became."""

    key: str
    setting: str


class Unmapped(NamedTuple):
    """A key of the file with its value, and why it changes nothing here or not all it should."""

    key: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Sorted:
    """All outcomes put to use. assumed: settings that follow the other trainer's defaults; silent: keys."""

    config: RunConfig
    mapped: tuple[Mapped, ...]
    unmapped: tuple[Unmapped, ...]
    silent: tuple[str, ...]
    assumed: tuple[tuple[str, Any], ...]


def one(
    arguments: Arguments, name: str, setting: str, convert: Callable[[Any], Any], default: Any = None
) -> Iterator[Outcome]:
    """Yield what becomes of one argument that is one setting here; default: the other trainer's, None = as ours."""
    argument = arguments.get(name)
    if argument is None or values.is_empty(argument.value):
        if argument is not None:
            yield Silent(argument.key)
        if default is not None:
            yield Put("", setting, default)
        return
    yield attempt(argument, setting, convert)


def attempt(argument: Argument, setting: str, convert: Callable[[Any], Any]) -> Outcome:
    """Return the argument's converted value for a setting, or why it cannot be converted."""
    try:
        return Put(argument.key, setting, convert(argument.value))
    except ValueError as error:
        return Leave(argument.key, argument.value, f"{error}.")


def sort(config: RunConfig, outcomes: Iterable[Outcome]) -> Sorted:
    """Put every value into the configuration, in order; one that is out of the setting's range is left out."""
    mapped: list[Mapped] = []
    unmapped: list[Unmapped] = []
    silent: list[str] = []
    assumed: dict[str, Any] = {}
    for outcome in outcomes:
        if isinstance(outcome, Silent):
            silent.append(outcome.key)
        elif isinstance(outcome, Inside):
            mapped.append(Mapped(outcome.key, outcome.setting))
        elif isinstance(outcome, Leave):
            unmapped.append(Unmapped(outcome.key, shown(outcome.key, outcome.value), outcome.reason))
        else:
            changed = _with(config, outcome.setting, outcome.value)
            wrong = [str(problem) for problem in range_problems(changed) if problem.where.startswith(outcome.setting)]
            if wrong:
                unmapped.append(Unmapped(outcome.key, outcome.value, " ".join(wrong)))
                continue
            if outcome.key:
                mapped.append(Mapped(outcome.key, outcome.setting))
            elif changed != config:
                assumed[outcome.setting] = outcome.value
            config = changed
    named = {name for name, _ in mapped} | {left.key for left in unmapped}
    quiet = tuple(dict.fromkeys(key for key in silent if key not in named))
    return Sorted(config, tuple(dict.fromkeys(mapped)), tuple(_unique(unmapped)), quiet, tuple(assumed.items()))


def shown(key: str, value: Any) -> Any:
    """Return a value as it may be shown: passwords of services are not."""
    return "(not shown)" if _SECRET.search(key) and isinstance(value, str) else value


def _with(config: RunConfig, setting: str, value: Any) -> RunConfig:
    match = _SOURCE.fullmatch(setting)
    if match is None:
        return put(config, setting, value)
    index = int(match[1])
    sources = list(config.data.sources)
    sources += [SourceConfig()] * (index + 1 - len(sources))
    sources[index] = put(sources[index], match[2], value)
    return replace(config, data=replace(config.data, sources=tuple(sources)))


def _unique(found: list[Unmapped]) -> Iterator[Unmapped]:
    seen: set[tuple[str, str]] = set()
    for each in found:
        if (each.key, each.reason) not in seen:
            seen.add((each.key, each.reason))
            yield each
