"""Wildcards in captions: {a|b|c} is one of them, chosen anew for each exposure."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field

from lib_lora_trainer.base.seeds import derive

_MARK = re.compile(r"\{\{|\}\}|[{}|]")


@dataclass
class _Group:
    """An open {…}. options: what has been read of each choice; literal: {{ in it whose }} is still to come."""

    number: int
    options: list[str] = field(default_factory=lambda: [""])
    literal: int = 0

    def add(self, text: str) -> None:
        self.options[-1] += text


def one_line(caption: str, seed: int) -> str:
    """Return one of a caption's lines, stripped; empty lines do not count. A caption of one line stays as it is."""
    if "\n" not in caption:
        return caption
    lines = [line.strip() for line in caption.split("\n") if line.strip()]
    return random.Random(seed).choice(lines) if lines else ""


def resolve(text: str, seed: int) -> str:
    """Return a text with every {a|b|c} replaced by one of its choices and {{, }} by plain braces.

    Choices may hold wildcards again: {a|{b|c} d}; two opening braces side by side are an escape, so a choice that
    begins with a wildcard needs a space before it. What is never closed, a brace that closes nothing and {} are plain
    text. Each wildcard draws on its own, addressed by its number in the text, so that a choice elsewhere changes none.
    Without nesting and stray braces this is what sd-scripts reads (library/train_util.py `process_caption`, 48d368f).
    """
    opened = [_Group(0)]
    count = position = 0
    for mark in _MARK.finditer(text):
        opened[-1].add(text[position : mark.start()])
        position = mark.end()
        current, sign = opened[-1], mark[0]
        nested = len(opened) > 1
        if sign == "{{":
            current.literal += 1
            current.add("{")
        elif sign == "}}" and len(opened) > 2 and not current.literal:
            _close(opened, seed)  # two wildcards end here
            _close(opened, seed)
        elif sign == "}}":
            current.literal = max(0, current.literal - 1)
            current.add("}")
        elif sign == "{":
            count += 1
            opened.append(_Group(count))
        elif sign == "|" and nested:
            current.options.append("")
        elif sign == "}" and nested:
            _close(opened, seed)
        else:
            current.add(sign)
    opened[-1].add(text[position:])
    while len(opened) > 1:
        unclosed = opened.pop()
        opened[-1].add("{" + "|".join(unclosed.options))
    return opened[0].options[0]


def _close(opened: list[_Group], seed: int) -> None:
    group = opened.pop()
    if group.options == [""]:
        opened[-1].add("{}")
    else:
        opened[-1].add(random.Random(derive(seed, "wildcard", group.number)).choice(group.options))
