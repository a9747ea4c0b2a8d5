"""Sweeps: one configuration varied in some settings becomes several runs."""

from __future__ import annotations

import difflib
import itertools
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from lib_lora_trainer.base import codec, files
from lib_lora_trainer.base.errors import ConfigError, Problem, ProblemsFound
from lib_lora_trainer.config.paths import flat, put
from lib_lora_trainer.config.run import RunConfig

LIMIT = 999
"""Most runs of one sweep; more would not end in a lifetime, and are a mistake in a list."""
LONGEST_NAME = 64

_FIXED = ("version", "name", "base_model", "data.sources")
_SHORT = {"optimizer.unet_learning_rate": "lr", "optimizer.text_learning_rate": "text_lr", "optimizer.name": ""}
_SWITCHES = {"true": True, "on": True, "yes": True, "false": False, "off": False, "no": False}
_WHOLE = re.compile(r"[-+]?[0-9]{1,18}")
_PIECE = re.compile(r"""\[(?:"(?:[^"\\]|\\.)*"|[^\]"])*\]|"(?:[^"\\]|\\.)*"|[^,\["]+|[\["]""")


def parse(lines: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Return the values of each setting that lines such as `optimizer.unet_learning_rate: 1e-4, 2e-4` vary.

    A line is a setting's dotted path, a colon, and values with commas between them; empty lines count for nothing. Text
    with commas stands in double quotes, lists in brackets: `adapter.rules: [], ["IN04: off", "MID: off"]`. `none` is a
    field without a value. Values have the types of the settings.
    Raises ProblemsFound with every mistake: unknown settings, wrong types, values out of range or given twice.
    """
    found: list[Problem] = []
    sweep: dict[str, tuple[Any, ...]] = {}
    for index, line in enumerate(lines):
        if not line.strip():
            continue
        where = f"sweep[{index}]"
        path, colon, text = line.replace("\uff1a", ":", 1 if ":" not in line else 0).partition(":")
        path = path.strip()
        if not colon:
            text = f"{line.strip()!r} has no colon."
            found.append(Problem("error", where, text, "Write for instance adapter.rank: 8, 16."))
        elif path in sweep:
            found.append(Problem("error", where, f"{path} is varied twice.", "Put all its values into one line."))
        elif problem := _refusal(path, where):
            found.append(problem)
        else:
            sweep[path] = tuple(_values(path, text, where, found))
    if found:
        raise ProblemsFound(tuple(found))
    return sweep


def expand(config: RunConfig, sweep: Mapping[str, Sequence[Any]]) -> tuple[RunConfig, ...]:
    """Return a configuration for every combination of values; the last setting changes first.

    Their names say what is special about them, `name-lr1e-4-rank8`. They are unique also where letters' case does not
    count, can be files' names, and have at most 64 characters; where they would be longer, they are numbered instead,
    `name-01`. Without a setting to vary the result is the configuration itself.
    Raises ConfigError for unknown settings, an impossible name or too many runs, ProblemsFound for wrong values.
    """
    files.check_name(config.name, "name")
    for path, values in sweep.items():
        problem = _refusal(path, "sweep")
        if problem is None and not values:
            problem = Problem("error", "sweep", f"{path} has no values.", "Give one or more.")
        if problem is not None:
            raise ConfigError(str(problem))
    count = math.prod(len(values) for values in sweep.values())
    if count > LIMIT:
        raise ConfigError(f"sweep: {count} combinations; {LIMIT} are allowed. Vary fewer settings, or fewer values.")
    if not sweep:
        return (config,)
    rows = list(itertools.product(*sweep.values()))
    names = _names(config.name, list(sweep), rows)
    return tuple(
        _varied(config, dict(zip(sweep, row, strict=True)), name) for row, name in zip(rows, names, strict=True)
    )


def _varied(config: RunConfig, values: Mapping[str, Any], name: str) -> RunConfig:
    for path, value in values.items():
        config = put(config, path, _typed(path, value))
    return replace(config, name=name)


def _typed(path: str, value: Any) -> Any:
    """Return a value as its setting holds it. Raises ProblemsFound for a wrong type or one out of range."""
    if value is None and type(None) in typing.get_args(_hint(path)):
        return None
    *tables, field = path.split(".")
    plain = list(value) if isinstance(value, tuple) else value
    mapping: dict[str, Any] = {field: plain}
    for table in reversed(tables):
        mapping = {table: mapping}
    return dict(flat(codec.from_mapping(RunConfig, mapping, "sweep")))[path]


def _refusal(path: str, where: str) -> Problem | None:
    """Return why a setting cannot be varied, None when it can."""
    known = [known for known, _ in flat(RunConfig()) if known not in _FIXED]
    if path in known:
        return None
    if path in _FIXED:
        return Problem(
            "error", where, f"{path} cannot be varied.", "Each run of a sweep has its own name and no other."
        )
    last = path.rpartition(".")[2]
    near = [other for other in known if other.rpartition(".")[2] == last] or difflib.get_close_matches(path, known, 1)
    hint = f"Did you mean {' or '.join(near[:3])}?" if near else "Settings are named as in the configuration file."
    return Problem("error", where, f"{path!r} is not a setting.", hint)


def _hint(path: str) -> Any:
    owner: Any = RunConfig
    for name in path.split("."):
        owner = typing.get_type_hints(owner)[name]
    return owner


def _values(path: str, text: str, where: str, found: list[Problem]) -> Iterator[Any]:
    seen: list[Any] = []
    for token in _split(text):
        try:
            value = _typed(path, _read(token, _hint(path)))
        except ProblemsFound as mistakes:
            found += [
                replace(problem, where=where, message=f"{path}: {problem.message}") for problem in mistakes.problems
            ]
            continue
        if value in seen:
            found.append(Problem("error", where, f"{path}: {token} is given twice.", "Keep one."))
        seen.append(value)
        yield value
    if not _split(text):
        found.append(Problem("error", where, f"{path} has no values.", "Give one or more, with commas between them."))


def _split(text: str) -> list[str]:
    """Return what commas outside of quotes and brackets separate."""
    parts = [""]
    for piece in re.findall(r",|" + _PIECE.pattern, text):
        if piece == ",":
            parts.append("")
        else:
            parts[-1] += piece
    return [part.strip() for part in parts if part.strip()]


def _read(token: str, hint: Any) -> Any:
    """Return a token as the type that fits the setting best; what does not fit stays text, for the codec to refuse."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        if token.lower() == "none":
            return None
        hint = next(choice for choice in typing.get_args(hint) if choice is not type(None))
    if typing.get_origin(hint) is tuple:
        inner = token[1:-1] if token.startswith("[") and token.endswith("]") else token
        return [_read(item, typing.get_args(hint)[0]) for item in _split(inner)]
    if hint is bool:
        return _SWITCHES.get(token.lower(), token)
    if hint is int and _WHOLE.fullmatch(token):
        return int(token)
    if hint is float:
        return _float(token)
    if token.startswith('"') and token.endswith('"') and len(token) > 1:
        return re.sub(r"\\(.)", r"\1", token[1:-1])
    return token


def _float(token: str) -> float | str:
    try:
        number = float(token)
    except ValueError:
        return token
    return number if math.isfinite(number) else token


def _names(name: str, paths: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    words = _words(paths)
    names = []
    for row in rows:
        parts = [f"{word}{_shown(value, word)}" for word, value in zip(words, row, strict=True)]
        names.append("-".join((name, *parts)))
    fitting = all(len(item) <= LONGEST_NAME and len(item.encode()) <= files.NAME_BYTES for item in names)
    if fitting and len({item.casefold() for item in names}) == len(names):
        return names
    digits = len(str(len(rows)))
    return [f"{_cut(name, digits + 1)}-{number:0{digits}d}" for number in range(1, len(rows) + 1)]


def _cut(name: str, room: int) -> str:
    """Return a name that leaves `room` characters of what a name may have."""
    name = name[: LONGEST_NAME - room]
    while len(name.encode()) > files.NAME_BYTES - room:
        name = name[:-1]
    return name


def _words(paths: Sequence[str]) -> list[str]:
    """Return a short word for each setting: its own name, with its table's where two are alike."""
    last = [path.rpartition(".")[2] for path in paths]
    return [
        _SHORT.get(path, name if last.count(name) == 1 else "_".join(path.split(".")[-2:]))
        for path, name in zip(paths, last, strict=True)
    ]


def _shown(value: Any, word: str) -> str:
    """Return a value as a part of a file's name."""
    if value is None or isinstance(value, bool):
        text = {None: "none", True: "on", False: "off"}[value]
    elif isinstance(value, int):
        return str(value)
    elif isinstance(value, float):
        return _number(value)
    else:
        text = "_".join(value) if isinstance(value, (tuple, list)) else str(value)
        text = re.sub(r"[^\w.+-]+", "_", text).strip("_. ") or "none"
    return f"_{text}" if word else text


def _number(value: float) -> str:
    """Return a number as people write it: 16, 0.5, 1e-4."""
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    if not isinstance(exponent, int) or not any(digits) or 1e-2 <= abs(value) < 1e6:
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    mantissa = "".join(map(str, digits))
    mantissa = f"{mantissa[0]}.{mantissa[1:]}".rstrip(".")
    return f"{'-' if sign else ''}{mantissa}e{exponent + len(digits) - 1}"
