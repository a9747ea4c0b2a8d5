"""Exceptions for blocks and layers: `IN04-07: rank=8 alpha=4 lr=0.5`, one a line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lib_lora_trainer.adapters import blocks
from lib_lora_trainer.base.errors import ConfigError, Problem, ProblemsFound
from lib_lora_trainer.base.families import Family
from lib_lora_trainer.base.setting import describe
from lib_lora_trainer.config.adapter import AdapterConfig

if TYPE_CHECKING:
    from lib_lora_trainer.adapters.targets import Layer

_SETTINGS = ("rank", "alpha", "conv_rank", "conv_alpha", "method")
_OPTIONS = ("rank=8", "alpha=4", "conv_rank=4", "conv_alpha=1", "lr=0.5", "method=lokr", "off", "on")
_LARGEST_RATE = 1000.0
_PATTERN = re.compile(r"/(.*)/\s*:(.*)", re.DOTALL)  # the last "/:" ends it, for no option has a slash
_WHOLE = re.compile(r"[0-9]{1,9}")
_NUMBER = re.compile(r"[-+]?([0-9]{1,20}\.?[0-9]{0,20}|\.[0-9]{1,20})([eE][-+]?[0-9]{1,3})?")
_EXAMPLE = "Write for instance `IN04-07: rank=8 lr=0.5`, `OUT09-11: off` or `/attn1/: rank=4`."

Switch = Literal["", "on", "off"]


@dataclass(frozen=True)
class Rule:
    """What some layers get instead of the common settings; None is the common value.

    blocks: the blocks it is for; or pattern: a regular expression, searched in a layer's part and path, such as
    `unet.input_blocks.4.1.transformer_blocks.0.attn1.to_q`. rate: factor of the part's learning rate; 0 keeps the adapter
    as it is, which with `start_from` is not the same as no adapter.
    """

    text: str
    blocks: frozenset[str] = frozenset()
    pattern: re.Pattern[str] | None = None
    switch: Switch = ""
    method: str | None = None
    rank: int | None = None
    alpha: float | None = None
    conv_rank: int | None = None
    conv_alpha: float | None = None
    rate: float | None = None


def fits(rule: Rule, layer: Layer, family: Family) -> bool:
    """Tell whether a rule is for a layer."""
    if rule.pattern is not None:
        return rule.pattern.search(f"{layer.part}.{layer.path}") is not None
    return blocks.block_of(layer, family) in rule.blocks


def parse(line: str, family: Family = "sd1", where: str = "rule") -> Rule:
    """Return the rule that a line describes: blocks or a /pattern/, a colon, options.

    Blocks as `blocks.parse` reads them; family: whose blocks may be named, by default every one there is. Options, with
    spaces between them: rank, alpha, conv_rank, conv_alpha, method, lr (a factor), off, on.
    Raises ProblemsFound with every mistake of the line; where: the setting that they name.
    """
    found: list[Problem] = []
    selector, options = _halves(line, where, found)
    values: dict[str, Any] = {}
    if selector is not None:
        values |= _selected(selector, family, where, found)
        values |= _options(options, where, found)
    if found:
        raise ProblemsFound(tuple(found))
    return Rule(line, **values)


def problems(config: AdapterConfig, family: Family) -> tuple[Problem, ...]:
    """Return every mistake in the settings `blocks` and `rules`, each naming its setting, e.g. `adapter.rules[2]`."""
    found: list[Problem] = []
    try:
        blocks.parse(config.blocks, family)
    except ConfigError as error:
        found.append(Problem("error", "adapter.blocks", str(error)))
    for index, line in enumerate(config.rules):
        try:
            parse(line, family, f"adapter.rules[{index}]")
        except ProblemsFound as mistakes:
            found += mistakes.problems if line.strip() else ()
    return tuple(found)


def read(config: AdapterConfig, family: Family) -> tuple[Rule, ...]:
    """Return the configuration's rules in order, without empty lines.

    Raises ConfigError with all mistakes of `problems` in one text.
    """
    found = problems(config, family)
    if found:
        raise ConfigError("\n".join(map(str, found)))
    return tuple(parse(line, family) for line in config.rules if line.strip())


def last_fitting(rules: Sequence[Rule], layer: Layer, family: Family) -> Rule | None:
    """Return the rule that counts for a layer: the last one that fits, alone."""
    return next((rule for rule in reversed(rules) if fits(rule, layer, family)), None)


def idle(layers: Sequence[Layer], config: AdapterConfig, family: Family) -> tuple[Problem, ...]:
    """Return a warning for every rule that changes nothing: no layer fits it, or later rules fit all of its layers.

    layers: the model's. Raises ConfigError for rules with mistakes.
    """
    rules = read(config, family)
    lines = [index for index, line in enumerate(config.rules) if line.strip()]
    counting = {id(last_fitting(rules, layer, family)) for layer in layers}
    found = []
    for index, rule in zip(lines, rules, strict=True):
        if id(rule) in counting:
            continue
        covered = any(fits(rule, layer, family) for layer in layers)
        text = "never counts: later rules fit the same layers." if covered else "fits no layer of the loaded model."
        fix = "Move it below them, or remove it." if covered else "Correct it, or remove it."
        found.append(Problem("warning", f"adapter.rules[{index}]", f"{rule.text!r} {text}", fix))
    return tuple(found)


def _halves(line: str, where: str, found: list[Problem]) -> tuple[str | None, str]:
    """Return what a rule is for and its options; None for the first when the line has no such form."""
    line = line.strip()
    if line.startswith("/"):
        match = _PATTERN.fullmatch(line.replace("\uff1a", ":"))
        if match is None:
            found.append(
                Problem("error", where, f"{line!r} has a pattern without an end.", "Write /pattern/: options.")
            )
            return None, ""
        return f"/{match[1]}", blocks.plain(match[2])
    selector, colon, options = blocks.plain(line).partition(":")
    if not colon or not selector.strip():
        found.append(Problem("error", where, f"{line!r} is no rule.", _EXAMPLE))
        return None, ""
    return selector.strip(), options


def _selected(selector: str, family: Family, where: str, found: list[Problem]) -> dict[str, Any]:
    try:
        if not selector.startswith("/"):
            return {"blocks": blocks.parse(selector, family)}
        if len(selector) > 1:
            return {"pattern": re.compile(selector[1:])}
        found.append(Problem("error", where, "the pattern is empty.", "Write /pattern/, or ALL for every layer."))
    except ConfigError as error:
        found.append(Problem("error", where, str(error)))
    except (re.error, ValueError, OverflowError, RecursionError) as error:
        text = f"/{selector[1:]}/ is not a regular expression: {error}."
        found.append(Problem("error", where, text, "Write a dot as \\. and close every bracket."))
    return {}


def _options(text: str, where: str, found: list[Problem]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    seen: list[str] = []
    for item in re.split(r"[\s,;]+", re.sub(r"\s*=\s*", "=", text.strip())):
        name, equals, value = item.partition("=")
        key = name.lower()
        if key in ("on", "off") and not equals:
            values["switch"] = key
        elif key == "lr" and equals:
            values["rate"] = _number(item, value, where, found)
        elif key in _SETTINGS and equals:
            values[key] = _setting(key, item, value, where, found)
        elif item:
            allowed = f"Options are {', '.join(_OPTIONS)}."
            found.append(Problem("error", where, f"{item!r} is no option.", allowed))
            continue
        else:
            continue
        seen.append(key)
    _check_together(seen, where, found)
    return values


def _check_together(seen: Sequence[str], where: str, found: list[Problem]) -> None:
    twice = sorted({key for key in seen if seen.count(key) > 1})
    if twice:
        found.append(Problem("error", where, f"{', '.join(twice)}: given more than once.", "Keep one."))
    if "off" in seen and set(seen) != {"off"}:
        text = f"off leaves nothing for {', '.join(sorted(set(seen) - {'off'}))} to act on."
        found.append(Problem("error", where, text, "Remove off, or the rest."))
    if not seen and not any(problem.where == where for problem in found):
        found.append(Problem("error", where, "says nothing about its layers.", f"Add one of: {', '.join(_OPTIONS)}."))


def _setting(name: str, item: str, value: str, where: str, found: list[Problem]) -> str | int | float | None:
    """Return an option's value within the range of the setting of the same name, None after a mistake."""
    about = describe(AdapterConfig, name)
    if about.choices:
        if value.lower() in about.choices:
            return value.lower()
        found.append(
            Problem("error", where, f"{item!r}: no such method.", f"Choose one of: {', '.join(about.choices)}.")
        )
        return None
    whole = name.endswith("rank")
    if (_WHOLE if whole else _NUMBER).fullmatch(value):
        number = int(value) if whole else float(value)
        if (about.minimum or 0) <= number <= (about.maximum or number):
            return number
    kind = "a whole number" if whole else "a number"
    allowed = f"Give {kind} from {about.minimum:g} to {about.maximum:g}."
    found.append(Problem("error", where, f"{item!r} is not allowed.", allowed))
    return None


def _number(item: str, value: str, where: str, found: list[Problem]) -> float | None:
    if _NUMBER.fullmatch(value) and 0 <= float(value) <= _LARGEST_RATE:
        return float(value)
    allowed = f"Give a factor of the learning rate from 0 to {_LARGEST_RATE:g}."
    found.append(Problem("error", where, f"{item!r} is not allowed.", allowed))
    return None
