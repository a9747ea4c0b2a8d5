"""What a tag speaks of: hair, eyes, garments by part of the body, pose, view, place, and so on; colours and modifiers apart.

The groups and their words stand in `lexicon.json` beside this file: whole tags, nouns that may have other words before
them (`frilled black vest` is a `vest`), and the first words of tags (`holding sword` is a gesture).
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

Family = Literal[
    "trait", "breasts", "ornament", "garment", "footwear", "count", "view", "pose", "gesture", "expression", "place",
    "object", "style", "meta", "quality", "name",
]  # fmt: skip
"""What groups have in common. trait: what a body is like; count: who and how many; name: of a character or a series."""

_SPACES = re.compile(r"[\s_]+")
_BACKSLASH = re.compile(r"\\(?=[()\[\]\\])")
_QUALIFIED = re.compile(r"(.+) \(([^()]+)\)")
_FILE = Path(__file__).with_name("lexicon.json")


@dataclass(frozen=True)
class Group:
    """A group of tags, such as `hair colour` of the family `trait`."""

    name: str
    family: Family


@dataclass(frozen=True)
class Parts:
    """A tag taken apart. noun: what it names; colours, modifiers: in their order: `frilled light blue vest`.

    There colours are ("light blue",), modifiers ("frilled",) and the noun is "vest". A tag without colours and
    modifiers is its own noun.
    """

    noun: str
    colours: tuple[str, ...] = ()
    modifiers: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Lexicon:
    groups: dict[str, Group]
    tags: dict[str, Group]
    nouns: dict[str, Group]
    starts: dict[str, Group]
    coloured: dict[str, Group]
    qualifiers: dict[str, Group]
    colours: frozenset[str]
    shades: frozenset[str]
    modifiers: tuple[str, ...]
    common: frozenset[str]


def key(tag: str) -> str:
    r"""Return what all spellings of a tag have in common: `Long_Hair` is `long hair`, `a \(b\)` is `a (b)`."""
    return _SPACES.sub(" ", _BACKSLASH.sub("", tag)).strip().casefold()


def group_of(tag: str) -> Group | None:
    """Return the group of a tag however it is spelled; None for a word that the lexicon does not know.

    In order: the whole tag; colours before a noun that has a group of its own with them (`white hair`); its first words,
    the longest that fit; its last words, the longest that fit. A name in brackets (`kayoko (blue archive)`) is that of a
    character, unless the brackets say what the tag is (`bow (weapon)`).
    """
    plain = key(tag)
    return _group(plain) if plain else None


@functools.lru_cache(maxsize=65_536)
def _group(plain: str) -> Group | None:
    known = _lexicon()
    if plain in known.tags:
        return known.tags[plain]
    words = plain.split(" ")
    if words[-1] in known.coloured and len(words) > 1 and _all_colours(words[:-1], known):
        return known.coloured[words[-1]]
    qualified = _QUALIFIED.fullmatch(plain)
    if qualified is not None:
        return known.qualifiers.get(qualified[2]) or known.groups["name"]
    for table, ends in ((known.starts, False), (known.nouns, True)):
        for length in range(len(words), 0, -1):
            part = " ".join(words[-length:] if ends else words[:length])
            found = table.get(part)
            if found is not None:
                return found
    return None


def groups() -> tuple[Group, ...]:
    """Return every group, in the order of the file."""
    return tuple(_lexicon().groups.values())


def parts_of(tag: str) -> Parts:
    """Return a tag's noun with its colours and modifiers apart; only words before the last can be either."""
    known = _lexicon()
    rest = key(tag)
    colours: list[str] = []
    modifiers: list[str] = []
    while " " in rest:
        first, _, after = rest.partition(" ")
        second, _, further = after.partition(" ")
        modifier = next((each for each in known.modifiers if rest.startswith(f"{each} ")), None)
        if first in known.shades and second in known.colours and further:
            colours.append(f"{first} {second}")
            rest = further
        elif first in known.colours:
            colours.append(first)
            rest = after
        elif modifier is not None and (modifier != rest.rpartition(" ")[0] or not _is_entry(rest, known)):
            modifiers.append(modifier)
            rest = rest[len(modifier) + 1 :]
        else:
            break
    return Parts(rest, tuple(colours), tuple(modifiers))


@functools.lru_cache(maxsize=1)
def words() -> frozenset[str]:
    """Return every word that stands in some entry, and common ones: what models know from tags and captions."""
    known = _lexicon()
    entries = (*known.tags, *known.nouns, *known.starts)
    found = (word for entry in entries for word in re.findall(r"[a-z]{3,}", entry))
    return frozenset(found) | known.colours | known.common


def _is_entry(rest: str, known: _Lexicon) -> bool:
    """Tell whether words are an entry as they stand: `school uniform`, `long sleeves`, but not `frilled vest`."""
    return rest in known.tags or rest in known.nouns


def _all_colours(found: list[str], known: _Lexicon) -> bool:
    return all(word in known.colours or word in known.shades for word in found)


@functools.lru_cache(maxsize=1)
def _lexicon() -> _Lexicon:
    content: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))
    made = {name: Group(name, cast("Family", about["family"])) for name, about in content["groups"].items()}
    tables: dict[str, dict[str, Group]] = {kind: {} for kind in ("tags", "nouns", "starts", "pairs")}
    for name, about in content["groups"].items():
        for kind, table in tables.items():
            for entry in _listed(about.get(kind, "")):
                for spelling in _plurals(entry) if kind == "nouns" else (entry,):
                    table.setdefault(spelling, made[name])
    for entry in tables["nouns"]:
        tables["tags"].setdefault(entry, tables["nouns"][entry])
    return _Lexicon(
        made,
        tables["tags"],
        tables["nouns"],
        tables["starts"],
        tables["pairs"],
        {word: made[name] for word, name in content["qualifiers"].items()},
        frozenset(_listed(content["colours"])),
        frozenset(_listed(content["shades"])),
        tuple(sorted(_listed(content["modifiers"]), key=len, reverse=True)),
        frozenset(_listed(content["common"])),
    )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(key(entry) for entry in text.split(", ") if entry.strip())


def _plurals(noun: str) -> tuple[str, ...]:
    """Return a noun as it stands and in the plural."""
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun, f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return noun, f"{noun[:-1]}ies"
    if noun.endswith("f"):
        return noun, f"{noun}s", f"{noun[:-1]}ves"
    return noun, f"{noun}s"
