"""What a `<lora:…>` in a prompt says about block weights, in lora-block-weight's syntax."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lib_lora_trainer.base.errors import ConfigError

_OURS = ("lbw", "w", "lbwe", "x", "start", "stop", "step")
_MISWRITTEN = re.compile(r"(lbwe?|start|stop|step)[ ;](.+)", re.IGNORECASE)


@dataclass(frozen=True)
class Tag:
    """One `<lora:…>`. items: what is left of it for the host's loader; text, unet: its strengths.

    blocks, elements: as written, "" for none; start, stop: the first step at which the UNet has the adapter, counted
    from 1, and the first at which it no longer has; None for no limit.
    """

    name: str
    items: tuple[str, ...]
    text: float
    unet: float
    blocks: str
    elements: str
    x: float
    start: int | None
    stop: int | None


def read(items: Sequence[str]) -> Tag | None:
    """Return what the parts of a tag between its colons say; None when nothing of it is about block weights.

    `name:TE:UNET:dyn` and named `te= unet= dyn=` are the WebUI's; `lbw=` (or `w=`), `lbwe=`, `x=`, `start=`, `stop=` and
    `step=A-B` are lora-block-weight's, as are its positions `name:TE:WEIGHTS:ELEMENTS:X`, where the WebUI's own loader
    fails on WEIGHTS (test_positions_that_the_loader_fails_on). Names are compared whole: there the first part that
    contains `te` or `x` somewhere counts, an adapter's name included. Raises ConfigError naming the part.
    """
    named = dict(item.split("=", 1) for item in items if "=" in item)
    given = [item for item in items if "=" not in item]
    if not given or any("@" in item for item in given[1:]):
        return None  # sd-webui-loractl's syntax, or none that anybody knows
    weights, rest = "", given[1:]
    if len(rest) > 1 and not _is_number(rest[1]):
        _check_word(rest[1], given[0])
        weights = rest.pop(1)
    elif len(rest) > 2 and not _is_number(rest[2]):
        _check_word(rest[2], given[0])
        weights = rest.pop(2)
    own = ["", ""]
    if weights:
        after = 1 if len(given) > 2 and given[2] == weights else 2
        own = [*rest[after : after + 2], "", ""][:2]
        rest = rest[:after]
    if not weights and not any(name in named for name in _OURS):
        return None
    start, stop = _steps(named)
    text = _number(named.get("te", rest[0] if rest else named.get("unet", "1")), "te")
    unet = _number(named.get("unet", rest[1] if len(rest) > 1 else repr(text)), "unet")
    dyn = named.get("dyn", rest[2] if len(rest) > 2 else "")
    others = [f"{key}={value}" for key, value in named.items() if key not in (*_OURS, "te", "unet", "dyn")]
    return Tag(
        given[0],
        (given[0], repr(text), repr(unet), *([dyn] if dyn else []), *others),
        text,
        unet,
        named.get("lbw", weights or named.get("w", "")).strip(),
        named.get("lbwe", own[0]).strip(),
        _number(named.get("x", own[1] or "1"), "x"),
        start,
        stop,
    )


def _steps(named: dict[str, str]) -> tuple[int | None, int | None]:
    start, stop = named.get("start"), named.get("stop")
    if "step" in named:
        first, dash, last = named["step"].partition("-")
        if not dash:
            raise ConfigError(f"step={named['step']}: has no end. Write step=A-B, for instance step=5-15.")
        start, stop = first, last
    return _step(start, "start"), _step(stop, "stop")


def _step(text: str | None, name: str) -> int | None:
    if text is None:
        return None
    if not text.strip().isdecimal():
        raise ConfigError(f"{name}={text}: is no number of a step. Write a whole number, for instance {name}=10.")
    return int(text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number(text: str, name: str) -> float:
    if not _is_number(text) or not math.isfinite(float(text)):
        raise ConfigError(f"{name}={text}: is no number. Write for instance {name}=0.8.")
    return float(text)


def _check_word(text: str, name: str) -> None:
    """Raise ConfigError for `lbw:MIDD` and `lbw MIDD`, written for `lbw=MIDD`."""
    found = _MISWRITTEN.fullmatch(text.strip())
    if found or text.strip().lower() in _OURS:
        word, value = (found[1].lower(), found[2]) if found else (text.strip().lower(), "…")
        raise ConfigError(f"{text!r} of <lora:{name}> has no =. Write {word}={value}.")
