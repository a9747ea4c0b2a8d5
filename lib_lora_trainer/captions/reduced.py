"""Captions without what regularization images must not call: the triggers, and what the user marks besides."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.captions import emphasis
from lib_lora_trainer.captions.tags import join, split

_BRACKETS = "()[]"
_GROUP = re.compile(r"([(\[]+)(.*?)((?::\s*[+-]?[.\d]+\s*)?(?<!\\)[)\]]+)", re.DOTALL)
_EMPTY_GROUP = re.compile(r"(?<!\\)\(\s*(?::\s*[+-]?[.\d]+\s*)?\)|(?<!\\)\[\s*\]")
_BACKSLASH = re.compile(r"\\(?=[()\[\]])")
_SPACES = re.compile(r"[\s_]+")
_MARKED = re.compile(r"[\\()\[\]]")
_WEIGHT_AT_END = re.compile(r":\s*[+-]?[.\d]+\s*$")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_LETTERS = re.compile(r"[^\W\d_]{2,}")


@dataclass(frozen=True)
class Cut:
    """What is cut out of captions. whole: patterns that take a tag as it is compared; inner: patterns within a tag."""

    whole: tuple[re.Pattern[str], ...]
    inner: tuple[re.Pattern[str], ...]


def cut(triggers: Sequence[str], marks: Sequence[str]) -> Cut:
    """Return what cuts triggers and marks out of captions.

    A trigger goes wherever it stands as a word or as words, also within a sentence; underscores and spaces are one, and
    so are capital and small letters. A mark is a whole tag, with * for anything and ? for one character (a backslash
    before makes them plain), or, between slashes, a regular expression for what goes within a tag.
    Raises ValueError (re.error) for an expression that is none; see `mark_problems`.
    """
    parts = {part for trigger in triggers for part in split(trigger)}
    expressions = [mark.strip()[1:-1] for mark in marks if _is_expression(mark)]
    return Cut(
        whole=tuple(wildcard(mark) for mark in marks if mark.strip() and not _is_expression(mark)),
        inner=(
            *(re.compile(expression, re.IGNORECASE) for expression in expressions),
            # The longest first: mona taco before mona.
            *(_words(part) for part in sorted(parts, key=lambda part: (-len(part), part))),
        ),
    )


def mark_problems(marks: Iterable[str], where: str) -> tuple[Problem, ...]:
    """Return an error for every mark that is no regular expression though it is written as one."""
    problems = []
    for index, mark in enumerate(marks):
        try:
            cut((), (mark,))
        except re.error as error:
            text = f"{mark!r} is no regular expression: {error}."
            problems.append(Problem("error", f"{where}[{index}]", text, "Correct it, or remove the slashes."))
    return tuple(problems)


def reduced(caption: str, without: Cut, weighted: bool) -> str:
    """Return a caption without what is cut out; "" when nothing is left.

    weighted: whether the caption's brackets weight words, as in (tag:1.2); brackets around nothing go then as well.
    A caption of which nothing goes stays as it is, byte for byte; else its tags are joined by ", ".
    """
    tags = list(emphasis.split_tags(caption) if weighted else split(caption))
    kept = [_cut_tag(tag, without, weighted) for tag in tags]
    return caption.strip() if kept == tags else join(tag for tag in kept if tag)


def _cut_tag(tag: str, without: Cut, weighted: bool) -> str:
    group = _GROUP.fullmatch(tag) if weighted else None
    if group is not None:
        inside = reduced(group[2], without, weighted)
        left = _EMPTY_GROUP.sub("", f"{group[1]}{inside}{group[3]}").strip() if inside else ""
        return tag if inside == group[2].strip() else left
    if any(pattern.fullmatch(_plain(tag)) for pattern in without.whole):
        return ""
    left = tag
    for pattern in without.inner:
        left = pattern.sub("", left)
    if left == tag:
        return tag
    if weighted:
        left = _EMPTY_GROUP.sub("", left)
    left = re.sub(r"\s{2,}", " ", left).strip()
    return left if any(character.isalnum() for character in left) else ""


def _plain(text: str) -> str:
    """Return a text as tags are compared: small letters, spaces for underscores, brackets without backslashes."""
    return _SPACES.sub(" ", _BACKSLASH.sub("", text)).strip().casefold()


def _is_expression(mark: str) -> bool:
    mark = mark.strip()
    return len(mark) > 2 and mark.startswith("/") and mark.endswith("/")


def wildcard(text: str) -> re.Pattern[str]:
    """Return what matches a whole text as it is compared: * is anything, ? one character, a backslash makes plain."""
    pattern, escaped = "", False
    for character in _SPACES.sub(" ", text).strip().casefold():
        if escaped or character not in "*?\\":
            pattern, escaped = pattern + re.escape(character), False
        elif character == "\\":
            escaped = True
        else:
            pattern += ".*" if character == "*" else "."
    return re.compile(pattern, re.DOTALL)


def matches(name: str, pattern: str) -> bool:
    """Tell whether a name is that of a pattern with * and ?, or the pattern itself."""
    return name == pattern or wildcard(pattern).fullmatch(_plain(name)) is not None


def _words(trigger: str) -> re.Pattern[str]:
    """Return what finds a trigger as whole words; scripts without spaces have no borders of words."""
    spelled = "".join(
        r"[\s_]+" if part.isspace() else r"\\?" + re.escape(part) if part in _BRACKETS else re.escape(part)
        for part in _SPACES.sub(" ", trigger).strip()
    )
    before = r"(?<!\w)" if trigger[:1].isascii() and trigger[:1].isalnum() else ""
    after = r"(?!\w)" if trigger[-1:].isascii() and trigger[-1:].isalnum() else ""
    return re.compile(before + spelled + after, re.IGNORECASE)


def contains(caption: str, trigger: str) -> bool:
    """Tell whether a caption still has a trigger in it, also as a part of a word, from which it would be called."""
    return any(_plain(part) in _plain(caption) for part in split(trigger))


def words_of(triggers: Sequence[str]) -> tuple[str, ...]:
    """Return the words that triggers are made of, in small letters: mona and taco of Mona_Taco, but no whole trigger."""
    whole = {_plain(part) for trigger in triggers for part in split(trigger)}
    found = (word.casefold() for trigger in triggers for word in _LETTERS.findall(_CAMEL.sub(" ", trigger)))
    return tuple(dict.fromkeys(word for word in found if word not in whole))


def as_prompt(caption: str, weighted: bool) -> str:
    r"""Return the prompt that a host reads as training reads a caption.

    Without weights, brackets and backslashes are written as plain characters, \( for (, and BREAK as a plain word. AND
    and a number behind a colon at the end, which the WebUI takes for several prompts and their weights, are plain as
    well: a backslash before nothing vanishes (modules/prompt_parser.py `re_AND`, `re_weight`, `re_attention`, 1.10.1).
    """
    text = re.sub(r"\bAND\b", "and", caption)
    if not weighted:
        text = re.sub(r"\bBREAK\b", "break", _MARKED.sub(r"\\\g<0>", text))
    return f"{text}\\" if _WEIGHT_AT_END.search(text) else text
