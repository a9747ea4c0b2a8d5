"""The edits of captions: each a pure function from a caption and its options to another caption."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lib_lora_trainer.base.errors import Problem
from lib_lora_trainer.base.setting import range_problems
from lib_lora_trainer.captions import edits_options as options
from lib_lora_trainer.captions import lexicon, text
from lib_lora_trainer.captions.edits_find import finder, in_words, replaced
from lib_lora_trainer.captions.tags import split
from lib_lora_trainer.captions.text import Caption, Item, Marks, key, parse

_TWO_LETTERS = re.compile(r"[^\W_]{2}")
_SCORE = re.compile(r"score_\d+(_up)?", re.IGNORECASE)
_BARE_BRACKET = re.compile(r"(?<!\\)[()\[\]]")
_ESCAPED_BRACKET = re.compile(r"\\([()\[\]])")


@dataclass(frozen=True)
class Facts:
    """What an edit may ask besides the caption. frequency: how many captions have a tag; scores: of this picture's tags.

    Both by what tags are compared by (`text.key`).
    """

    frequency: Mapping[str, int] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Edit:
    """One kind of edit. title: for people; options: its dataclass; change: returns the new caption."""

    title: str
    options: type
    change: Callable[[Any, Caption, Facts], Caption]


def name_of(chosen: Any) -> str:
    """Return the name of the edit that options belong to."""
    return next(name for name, edit in EDITS.items() if type(chosen) is edit.options)


def edited(caption: str, chosen: Any, marks: Marks | None = None, facts: Facts | None = None) -> str:
    """Return a caption after an edit; one that the edit has nothing to do with comes back byte for byte.

    chosen: the options of one of `EDITS`, free of `problems`.
    """
    return edited_caption(parse(caption, marks), chosen, facts).text


def edited_caption(caption: Caption, chosen: Any, facts: Facts | None = None) -> Caption:
    """Return a parsed caption after an edit, as `edited` does."""
    return EDITS[name_of(chosen)].change(chosen, caption, facts or Facts())


def problems(chosen: Any) -> tuple[Problem, ...]:
    """Return what is wrong with an edit's options: values out of range, nothing to look for, no regular expression."""
    found = range_problems(chosen)
    for name in ("find", "old", "new", "tags"):
        if not getattr(chosen, name, "x").strip():
            found.append(Problem("error", name, "is empty.", "Enter a tag."))
    if getattr(chosen, "how", "") == "regex":
        try:
            pattern = re.compile(chosen.find)
            pattern.sub(getattr(chosen, "replacement", ""), "")
            _template(pattern, getattr(chosen, "replacement", ""))
        except (re.error, IndexError) as error:
            found.append(Problem("error", "find", f"{chosen.find!r}: {error}.", "Correct the regular expression."))
    return tuple(found)


def _template(pattern: re.Pattern[str], replacement: str) -> None:
    """Raise re.error where a replacement speaks of a group that the pattern lacks, also if nothing matches."""
    re.compile(pattern.pattern + "|").sub(replacement, "")


def _add(chosen: options.AddOptions, caption: Caption) -> Caption:
    wanted = list(dict.fromkeys(split(chosen.tags)))
    lines = len(caption.lines())
    places = range(lines) if caption.marks.alternatives else [lines - 1 if chosen.place == "last" else 0]
    for number in reversed(places) if lines else [0]:
        whole = caption.marks.alternatives or chosen.place == "index"
        caption = _added(caption, wanted, chosen, number if lines else None, whole)
    return caption


def _added(
    caption: Caption, wanted: Sequence[str], chosen: options.AddOptions, line: int | None, own_line: bool
) -> Caption:
    """Return a caption with tags in one of its lines; own_line: only what that line has counts as there."""
    if line is None:
        for number, tag in enumerate(wanted):
            caption = text.after(caption, number - 1, tag) if number else text.before(caption, 0, tag)
        return caption
    there = caption.lines()[line] if own_line else range(len(caption.items))
    have = {caption.items[index].key for index in there}
    prose = [caption.items[index].text for index in there if caption.items[index].prose]
    known = {tag for tag in wanted if key(tag) in have or any(in_words(tag).search(each) for each in prose)}
    new = [tag for tag in wanted if chosen.move or tag not in known]
    if chosen.move:
        keys = {key(tag) for tag in wanted}
        leaving = [index for index in caption.lines()[line] if caption.items[index].key in keys]
        if len(leaving) == len(caption.lines()[line]):
            return caption
        caption = text.removed(caption, leaving)
    return _put(caption, new, caption.lines()[line], chosen.place, chosen.position)


def _put(caption: Caption, new: Sequence[str], line: range, place: str, position: int) -> Caption:
    if place == "last" or (place == "index" and position > len(line)):
        for offset, tag in enumerate(new):
            caption = text.after(caption, line.stop - 1 + offset, tag)
        return caption
    start = line.start if place == "first" else line.start + position - 1
    for tag in reversed(new):
        caption = text.before(caption, start, tag)
    return caption


def _remove(chosen: options.RemoveOptions, caption: Caption) -> Caption:
    found = finder(chosen.find, chosen.how)
    return text.removed(caption, [i for i, item in enumerate(caption.items) if not item.prose and found(item.text)])


def _replace(chosen: options.ReplaceOptions, caption: Caption) -> Caption:
    if chosen.within == "caption":
        return parse(replaced(caption.text, chosen.find, chosen.replacement, chosen.how), caption.marks)
    found = finder(chosen.find, chosen.how)
    texts = {}
    for index, item in enumerate(caption.items):
        if not item.prose and found(item.text):
            new = re.sub(chosen.find, chosen.replacement, item.text) if chosen.how == "regex" else chosen.replacement
            if new != item.text:
                texts[index] = new
    return _without_repeats(text.changed(caption, texts), {key(tag) for new in texts.values() for tag in split(new)})


def _rename(chosen: options.RenameOptions, caption: Caption) -> Caption:
    old, pattern = key(chosen.old), in_words(chosen.old)
    texts = {}
    for index, item in enumerate(caption.items):
        if item.prose and pattern.search(item.text):
            texts[index] = pattern.sub(lambda _: chosen.new.strip(), item.text)
        elif not item.prose and item.key == old:
            texts[index] = chosen.new
    return _without_repeats(text.changed(caption, texts), {key(chosen.new)}) if texts else caption


def _without_repeats(caption: Caption, keys: set[str]) -> Caption:
    """Return a caption in whose lines each tag with one of the keys stands once, where it stood first."""
    caption = parse(caption.text, caption.marks)  # a replacement may have brought several tags
    return text.removed(caption, _repeated(caption, lambda item: item.key in keys))


def _repeated(caption: Caption, counts: Callable[[Item], bool]) -> list[int]:
    leaving = []
    for line in caption.lines():
        seen: set[str] = set()
        for index in line:
            item = caption.items[index]
            if item.prose or not counts(item):
                continue
            if item.key in seen:
                leaving.append(index)
            seen.add(item.key)
    return leaving


def _move(chosen: options.MoveOptions, caption: Caption) -> Caption:
    found = finder(chosen.find, chosen.how)
    for section in caption.sections():
        units = text.units(caption, section)
        moved = [u for u in units if any(not caption.items[i].prose and found(caption.items[i].text) for i in u)]
        rest = [unit for unit in units if unit not in moved]
        at = {"first": 0, "last": len(rest)}.get(chosen.place, min(chosen.position - 1, len(rest)))
        caption = text.reordered(caption, section, [*rest[:at], *moved, *rest[at:]])
    return caption


def _sort(chosen: options.SortOptions, caption: Caption, facts: Facts) -> Caption:
    groups = {group.name: place for place, group in enumerate(lexicon.groups())}

    def rank(unit: range) -> tuple[float, str]:
        tag = caption.items[unit.start].key
        if chosen.by == "frequency":
            return -facts.frequency.get(tag, 0), ""
        if chosen.by == "score":
            return -facts.scores.get(tag, 0.0), ""
        if chosen.by == "group":
            group = lexicon.group_of(tag)
            return groups[group.name] if group else len(groups), ""
        return 0, tag

    firsts = {line.start for line in caption.lines()}
    for section in caption.sections():
        units = text.units(caption, section)
        keep = chosen.keep if section.start in firsts else 0
        order = [*units[:keep], *sorted(units[keep:], key=rank, reverse=chosen.reverse)]
        caption = text.reordered(caption, section, order)
    return caption


def _dedupe(_chosen: options.DedupeOptions, caption: Caption) -> Caption:
    return text.removed(caption, _repeated(caption, lambda _: True))


def _each(caption: Caption, change: Callable[[str], str]) -> Caption:
    """Return a caption with every tag changed; sentences stay."""
    new = {i: change(item.text) for i, item in enumerate(caption.items) if not item.prose}
    return text.changed(caption, {i: tag for i, tag in new.items() if tag != caption.items[i].text})


def _case(chosen: options.CaseOptions, caption: Caption) -> Caption:
    change = {"lower": str.lower, "upper": str.upper, "capitalized": str.capitalize}[chosen.case]
    return _each(caption, lambda tag: change(tag) if _TWO_LETTERS.search(tag) else tag)


def respelled(tag: str, words: str) -> str:
    """Return a tag with `spaces` or `underscores` between its words; faces (^_^, o_o) and score_9 stay as they are.

    A face has no two letters or digits side by side.
    """
    if _SCORE.fullmatch(tag) or not _TWO_LETTERS.search(tag):
        return tag
    return tag.replace("_", " ") if words == "spaces" else tag.replace(" ", "_")


def _spelling(chosen: options.SpellingOptions, caption: Caption) -> Caption:
    return _each(caption, lambda tag: respelled(tag, chosen.words))


def _brackets(chosen: options.BracketOptions, caption: Caption) -> Caption:
    if chosen.brackets == "escaped":
        return _each(caption, lambda tag: _BARE_BRACKET.sub(r"\\\g<0>", tag))
    return _each(caption, lambda tag: _ESCAPED_BRACKET.sub(r"\1", tag))


def _affix(chosen: options.AffixOptions, caption: Caption) -> Caption:
    body = caption.text
    end = len(body.rstrip("\r\n"))
    return parse(chosen.prefix + body[:end] + chosen.suffix + body[end:], caption.marks)


def _set(chosen: options.SetOptions, caption: Caption) -> Caption:
    return parse(chosen.text, caption.marks)


def _alone(change: Callable[[Any, Caption], Caption]) -> Callable[[Any, Caption, Facts], Caption]:
    """Return an edit that asks about nothing but the caption."""
    return lambda chosen, caption, _facts: change(chosen, caption)


EDITS: Mapping[str, Edit] = {
    "add": Edit("Add tags", options.AddOptions, _alone(_add)),
    "remove": Edit("Remove tags", options.RemoveOptions, _alone(_remove)),
    "replace": Edit("Replace", options.ReplaceOptions, _alone(_replace)),
    "rename": Edit("Rename a tag", options.RenameOptions, _alone(_rename)),
    "move": Edit("Move tags", options.MoveOptions, _alone(_move)),
    "sort": Edit("Sort tags", options.SortOptions, _sort),
    "dedupe": Edit("Remove repeated tags", options.DedupeOptions, _alone(_dedupe)),
    "case": Edit("Change letters", options.CaseOptions, _alone(_case)),
    "spelling": Edit("Spaces or underscores", options.SpellingOptions, _alone(_spelling)),
    "brackets": Edit("Brackets", options.BracketOptions, _alone(_brackets)),
    "affix": Edit("Put before and behind", options.AffixOptions, _alone(_affix)),
    "set": Edit("Set the text", options.SetOptions, _alone(_set)),
}
