"""How edits look for tags: by name in any spelling, by a pattern with * and ?, or by a regular expression."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from lib_lora_trainer.captions.reduced import wildcard
from lib_lora_trainer.captions.tags import split
from lib_lora_trainer.captions.text import key

_SPACE = r"[\s_]+"
_BRACKETS = "()[]"


@functools.lru_cache(maxsize=256)
def finder(find: str, how: str) -> Callable[[str], bool]:
    """Return what tells whether a tag is meant.

    exact: one of the names, separated by commas; wildcard: a whole tag with * and ?; both in any spelling. regex: a
    regular expression found anywhere in the tag as it is written; ^ and $ make it take all of it.
    Raises ValueError (re.error) for an expression that is none.
    """
    if how == "regex":
        pattern = re.compile(find)
        return lambda tag: pattern.search(tag) is not None
    if how == "wildcard":
        shapes = [wildcard(part.replace("_", " ")) for part in split(find)]
        return lambda tag: any(shape.fullmatch(key(tag)) for shape in shapes)
    names = {key(part) for part in split(find)}
    return lambda tag: key(tag) in names


def replaced(text: str, find: str, replacement: str, how: str) -> str:
    """Return a text with everything replaced that is found; how: as in `finder`, here of words within the text."""
    if how == "regex":
        return re.sub(find, replacement, text)
    return in_words(find, wild=how == "wildcard").sub(lambda _: replacement, text)


@functools.lru_cache(maxsize=256)
def in_words(find: str, *, wild: bool = False) -> re.Pattern[str]:
    """Return what finds a tag as whole words in a text, in any spelling; wild: * is any part of a word, ? one character."""
    pattern = ""
    for part in re.findall(r"[\s_]+|\\[\\()\[\]]|.", find.strip(), re.DOTALL):
        plain = part[-1] if part.startswith("\\") and len(part) > 1 else part
        if re.fullmatch(_SPACE, part):
            pattern += _SPACE
        elif wild and plain in "*?":
            pattern += r"[^\s,]*" if plain == "*" else r"[^\s,]"
        else:
            pattern += r"\\?" + re.escape(plain) if plain in _BRACKETS else re.escape(plain)
    before = r"(?<!\w)" if find.strip()[:1].isalnum() else ""
    after = r"(?!\w)" if find.strip()[-1:].isalnum() else ""
    return re.compile(before + pattern + after, re.IGNORECASE)
