"""Triggers: put first in captions, and advice on the word itself."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.captions import lexicon
from lib_lora_trainer.captions.lexicon import key
from lib_lora_trainer.captions.prune_values import ImageTags, Line
from lib_lora_trainer.captions.reduced import words_of

_FORBIDDEN = re.compile(r"[,<>|{}\r\n;:]|^\s*$")
_VOWELS = re.compile(r"(?<=\w)[aeiou]")
_WORD = re.compile(r"[^\W_]+")
_QUALIFIER = re.compile(r"[ _]\\?\([^()]*\)$")
SHORTEST = 3


def inserted(image: ImageTags, words: Iterable[str], leaving: Collection[str] = (), *, separated: bool) -> ImageTags:
    """Return a caption with triggers first, in their order, each once, and without the tags that leave.

    leaving: tags as they are compared. separated: whether the triggers are set apart, as they are in any case where the
    caption has separators already. A picture without caption gets the triggers alone.
    """
    wanted = tuple(dict.fromkeys(words))
    lines = image.lines or (Line(()),)
    return ImageTags(image.image, tuple(_inserted(line, wanted, leaving, separated=separated) for line in lines))


def _inserted(line: Line, words: tuple[str, ...], leaving: Collection[str], *, separated: bool) -> Line:
    gone = {*leaving, *map(key, words)}
    first, tags, last = (
        tuple(tag for tag in part if key(tag) not in gone) for part in (line.first, line.tags, line.last)
    )
    if line.first or line.last or (separated and words):
        return Line(tags, (*words, *first), last)
    return Line((*words, *tags), (), last)


def errors(word: str) -> tuple[Problem, ...]:
    """Return what makes a word impossible as a trigger."""
    found = _FORBIDDEN.search(word)
    if found is None:
        return ()
    text = f"has {found[0]!r}, which captions and prompts give a meaning of its own." if word.strip() else "is empty."
    return (Problem("error", f"trigger {word!r}", text, "Use letters, digits, spaces, _ or -."),)


def advice(word: str, others: Iterable[str] = ()) -> tuple[Problem, ...]:
    """Return what speaks against a word as a trigger before anything is generated; the probe tells the rest.

    others: the dataset's tags and other triggers. A trigger that is a word of the base model starts from that word's
    pictures (G3's contamination), also where it is a part: Mona_Taco draws tacos.
    """
    where, plain = f"trigger {word!r}", key(word)
    found = list(errors(word))
    if found:
        return tuple(found)
    group = lexicon.group_of(word)
    name = _QUALIFIER.sub("", word)  # of kayoko (blue archive) the brackets are no part of the word
    pieces = [
        piece for piece in dict.fromkeys((*words_of((name,)), *_WORD.findall(key(name)))) if piece in lexicon.words()
    ]
    if group is not None and group.name != "name" and set(_WORD.findall(plain)) <= lexicon.words():
        text = f"is a tag that models know, about {group.name}."
        found.append(Problem("warning", where, text, f"Choose a rare word, such as {suggestion(word)}."))
    elif pieces:
        text = f"contains {', '.join(pieces)}, which models draw."
        fix = f"Probe it, make regularization images of {pieces[0]}, or choose a rare word, such as {suggestion(word)}."
        found.append(Problem("warning", where, text, fix))
    if len(plain) < SHORTEST:
        text = "is short: such pieces of words have meanings in every model."
        found.append(Problem("warning", where, text, f"Use {SHORTEST} letters or more."))
    if plain.isdigit():
        found.append(Problem("warning", where, "is a number, which models read as a count or a year.", "Add letters."))
    mine = set(_WORD.findall(plain))
    shared = [other for other in others if key(other) != plain and mine & set(_WORD.findall(key(other)))]
    if shared:
        text = f"shares a word with {', '.join(sorted(set(shared))[:3])}, whose features mix with it."
        found.append(Problem("warning", where, text, f"Shorten it, e.g. to {initials(word)}, or rename the tags."))
    return tuple(found)


def suggestion(word: str) -> str:
    """Return a rarer spelling of a word: its vowels left out, save the first letter; never a word that models know."""
    made = "".join(_VOWELS.sub("", piece) for piece in _WORD.findall(key(word)))
    while len(made) < SHORTEST or made in lexicon.words():
        made += "x"
    return made


def initials(word: str) -> str:
    """Return the first letters of a trigger's words (`aiming at viewer` is `aav`); of a single word its rarer spelling."""
    pieces = _WORD.findall(key(word))
    return "".join(piece[0] for piece in pieces) if len(pieces) >= SHORTEST else suggestion(word)
