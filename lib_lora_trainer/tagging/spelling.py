"""How a tag is written: on the board, in captions and in prompts; and when two spellings are the same tag."""

from __future__ import annotations

import functools
import re

# Faces made of punctuation, in which the underscore is part of the drawing.
KAOMOJI = frozenset(
    "0_0 (o)_(o) +_+ +_- ._. <o>_<o> <|>_<|> =_= >_< 3_3 6_9 >_o @_@ ^_^ o_o u_u x_x |_| ||_||".split()  # noqa: SIM905
)

_SPECIAL = re.compile(r"[\\()\[\]]")
_ESCAPED = re.compile(r"\\([\\()\[\]])")


def with_spaces(tag: str) -> str:
    """Return a board's tag as captions write it: underscores become spaces, except in kaomoji."""
    return tag if tag in KAOMOJI else tag.replace("_", " ")


def with_underscores(tag: str) -> str:
    """Return a caption's tag as the board writes it; the inverse of `with_spaces` for every tag of a board."""
    return tag.replace(" ", "_")


def escaped(tag: str) -> str:
    r"""Return a tag for a prompt, where the WebUI reads ( ) [ ] as emphasis unless a backslash stands before them."""
    return _SPECIAL.sub(r"\\\g<0>", tag)


def unescaped(tag: str) -> str:
    r"""Return a tag for a caption: \( \) \[ \] \\ lose their backslash; the inverse of `escaped`."""
    return _ESCAPED.sub(r"\1", tag)


@functools.lru_cache(maxsize=1 << 16)
def key(tag: str) -> str:
    r"""Return what all spellings of a tag have in common: `Kayoko_\(Blue Archive\)` is `kayoko (blue archive)`."""
    return with_spaces(unescaped(tag.strip())).casefold()
