"""Tags about one thing: a general one beside a specific one is redundant, two that say different things become one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lib_lora_trainer.captions.cleaning.values import (
    CleanProposal,
    Look,
    Rewrite,
    spelled,
)
from lib_lora_trainer.captions.lexicon import Parts, group_of, parts_of
from lib_lora_trainer.captions.text import Caption, key

JOINED = ("garment", "ornament", "footwear")
_CROWD = ("multiple girls", "multiple boys", "multiple others")


def redundancy(look: Look) -> Iterator[CleanProposal]:
    """Propose to remove `shirt` beside `white shirt`: the same noun with no word that the other lacks.

    Both are about the same kind of thing (families of the lexicon), so that `sword` stays beside `holding sword`, and
    `no hat` contains no hat.
    """
    found: dict[tuple[str, str], dict[Path, tuple[Rewrite, ...]]] = {}
    names: dict[str, str] = {}
    for path, caption in look.captions.items():
        for line in _lines(caption):
            for group in _by_last_word(line):
                for general in group:
                    specific = max((other for other in group if _contains(other, general)), key=len, default="")
                    if not specific:
                        continue
                    names.setdefault(key(general), general)
                    names.setdefault(key(specific), specific)
                    rewrite = Rewrite(frozenset({key(general)}), needs=frozenset({key(specific)}))
                    pair = key(general), key(specific)
                    found.setdefault(pair, {})[path] = (rewrite,)
    for (general, specific), rewrites in found.items():
        what = f"Remove {names[general]}, keep {names[specific]}"
        why = f"“{names[specific]}” says it already; two tags for one thing split what is learned about it."
        yield CleanProposal("redundancy", what, why, rewrites)


def consolidation(look: Look) -> Iterator[CleanProposal]:
    """Propose `white turtleneck dress` for `white dress, turtleneck dress`: one noun, no word for the same aspect.

    Only of garments, ornaments and footwear; two colours are two garments. Off where several people may wear them.
    """
    found: dict[str, dict[Path, tuple[Rewrite, ...]]] = {}
    crowded: set[str] = set()
    for path, caption in look.captions.items():
        for line in _lines(caption):
            for tags, joined in _joinable(line):
                rewrite = Rewrite(frozenset(map(key, tags)), (joined,))
                what = f"{', '.join(tags)} → {joined}"
                known = found.setdefault(what, {})
                known[path] = (*known.get(path, ()), rewrite)
                if _is_crowd(caption):
                    crowded.add(what)
    for what, rewrites in found.items():
        why = "They describe one garment, which is learned as one thing under one name."
        if what in crowded:
            why += " Off, since pictures with several people are among them, who may wear one each."
        yield CleanProposal("consolidation", what, why, rewrites, on=what not in crowded)


def _lines(caption: Caption) -> list[list[str]]:
    return [[caption.items[index].text for index in line if not caption.items[index].prose] for line in caption.lines()]


def _by_last_word(line: Sequence[str]) -> Iterator[list[str]]:
    """Yield the tags of a line that end in one word, where there are several."""
    found: dict[str, list[str]] = {}
    for tag in line:
        found.setdefault(key(tag).rpartition(" ")[2], []).append(tag)
    return (tags for tags in found.values() if len(tags) > 1)


def _contains(specific: str, general: str) -> bool:
    """Tell whether one tag says all that another does, and more."""
    left, right = key(specific), key(general)
    if left == right or left.startswith(("no ", "unworn ")):
        return False
    one, other = parts_of(specific), parts_of(general)
    if not (_ends(one.noun, other.noun) and set(other.colours) <= set(one.colours)):
        return False
    if not set(other.modifiers) <= set(one.modifiers) or len(left) <= len(right):
        return False
    groups = group_of(specific), group_of(general)
    return groups[0] is not None and groups[1] is not None and groups[0].family == groups[1].family


def _ends(noun: str, other: str) -> bool:
    return noun == other or noun.endswith(f" {other}")


def _joinable(line: Sequence[str]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield tags that become one, two or more of them, and that one."""
    left = [tag for tag in dict.fromkeys(line) if _is_worn(tag)]
    left = [tag for tag in left if not any(_contains(other, tag) for other in left)]
    while left:
        together, parts = [left[0]], parts_of(left[0])
        for tag in left[1:]:
            merged = _merged(parts, parts_of(tag))
            if merged is not None:
                together.append(tag)
                parts = merged
        left = [tag for tag in left if tag not in together]
        if len(together) > 1:
            words = " ".join((*parts.colours, *parts.modifiers, parts.noun))
            yield tuple(together), spelled(words, together)


def _is_worn(tag: str) -> bool:
    group = group_of(tag)
    return group is not None and group.family in JOINED and not key(tag).startswith(("no ", "unworn "))


def _merged(one: Parts, other: Parts) -> Parts | None:
    """Return what both say together; None where they may be about two things, or one says nothing of its own."""
    if not (_ends(one.noun, other.noun) or _ends(other.noun, one.noun)):
        return None
    if one.colours and other.colours and set(one.colours) != set(other.colours):
        return None
    noun = max(one.noun, other.noun, key=len)
    return Parts(
        noun,
        tuple(dict.fromkeys((*one.colours, *other.colours))),
        tuple(dict.fromkeys((*one.modifiers, *other.modifiers))),
    )


def _is_crowd(caption: Caption) -> bool:
    people = [each for each in caption.keys if each in _CROWD or _count(each) > 0]
    return any(each in _CROWD for each in people) or sum(_count(each) for each in people) > 1


def _count(each: str) -> int:
    digits = each.rstrip("+girlsboythe")
    return int(digits) if digits.isdecimal() and each != digits else 0
